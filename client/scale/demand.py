"""Demand for agents: how many agents of the scaler are missing, and which names are free for them. Pure.

An agent is missing for each slot's worth of jobs that could begin now and that no agent of the scaler is free to run.
Jobs that run, and agents that other people started, do not count: an agent that serves a long job is no reason to
start another one beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from airunner.client.scale.cluster import Unit, UnitState
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary


def ready_jobs(queue: QueueSummary | None) -> int:
    """Count the jobs of a queue that could begin now; a paused queue starts none."""
    return 0 if queue is None or queue.mode is QueueMode.PAUSED else max(0, queue.waiting - queue.delayed)


def missing_agents(
    queue: QueueSummary | None, agents: Mapping[str, AgentSummary], starting: Collection[str], slots: int
) -> int:
    """Count the missing agents, each of which has `slots`.

    `agents` are the scaler's own that the broker knows, by name; `starting` are those that it does not know yet.
    """
    jobs = ready_jobs(queue)
    if queue is not None and queue.suitable is not None:
        running = sum(agent.leases for agent in agents.values())
        jobs = min(jobs, max(0, queue.suitable - running))
    free = slots * len(starting) + sum(_free_slots(agent, slots) for agent in agents.values())
    return -(-max(0, jobs - free) // slots)


def _free_slots(agent: AgentSummary, slots: int) -> int:
    """Count an agent's free slots; a broker that has only heard of its leases does not know how many it has."""
    return 0 if agent.trouble else max(0, (agent.slots or slots) - agent.leases)


def unit_name(scaler: str, number: int | str) -> str:
    """Return the name of a unit."""
    return f"{scaler}-{number}"


def is_unit_of(scaler: str, name: str) -> bool:
    """Check whether a unit of this name is one of the scaler's."""
    start, _, number = name.rpartition("-")
    return start == scaler and number.isascii() and number.isdecimal() and number == str(int(number))


def free_names(scaler: str, agents_max: int, units: Iterable[Unit], paused: Collection[str]) -> Sequence[str]:
    """List the names that new units may have, the lowest first, as many as there may be further agents.

    A unit whose key is in `paused` has failed lately: its name is not used again yet.
    """
    taken = {unit.name for unit in units if unit.state in (UnitState.LIVE, UnitState.ENDING) or unit.key in paused}
    names = [name for number in range(agents_max) if (name := unit_name(scaler, number)) not in taken]
    return names[: max(0, agents_max - len(taken))]
