"""Hint at why a waiting job does not begin: its queue is paused, or no agent that is there may run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airunner.protocol.job import Job, JobState
from airunner.protocol.replies import AgentSummary, QueueMode

if TYPE_CHECKING:
    from airunner.client.client import Client

SILENT_MS: Final = 150_000  # since an agent's last request: an idle agent sends one every 30 s, a busy one every minute
QUEUES_SHOWN: Final = 8


async def waiting_hint(client: Client, job: Job) -> str:
    """Ask the broker why a job waits; empty: for its turn, or for its earliest start."""
    if job.state is not JobState.SCHEDULED or job.due_ms is not None:
        return ""
    async for queue in client.queues():
        if queue.queue == job.spec.queue and queue.mode is QueueMode.PAUSED:
            return f"queue {queue.queue} is paused, until `airunner resume {queue.queue}`"
    return agents_hint(job, [agent async for agent in client.agents()])


def agents_hint(job: Job, agents: list[AgentSummary]) -> str:
    """Format why none of these agents begins a waiting job; empty if one of them may, or if that is not known."""
    agents = [agent for agent in agents if agent.leases or (agent.silent_ms or 0) < SILENT_MS]
    if not all(agent.queues for agent in agents):
        return ""  # an older broker, or one that has just started
    queue = job.spec.queue
    serving = [agent for agent in agents if queue in agent.queues]
    if not serving:
        others = sorted({name for agent in agents for name in agent.queues})
        dots = ", …" if len(others) > QUEUES_SHOWN else ""
        served = f"agents serve: {', '.join(others[:QUEUES_SHOWN])}{dots}" if others else "no agent is there"
        return f"no agent serves queue {queue}; {served}"
    needs = job.spec.require.items()
    if suited := [agent for agent in serving if needs <= agent.tags.items()]:
        able = [agent for agent in suited if agent.stdin or not job.spec.stdin_bytes]
        if not able:
            return f"the agents of queue {queue} are too old to give a job its standard input: upgrade them"
        troubles = [agent.trouble for agent in able]
        return f"the agents of queue {queue} can run no jobs now: {troubles[0]}" if all(troubles) else ""
    wanted = " ".join(f"{name}={value}" for name, value in needs)
    return f"no agent of queue {queue} has the tags that the job requires: {wanted}"
