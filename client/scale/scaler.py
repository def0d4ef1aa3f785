"""Scaler loop: reads the demand and the units, and starts the agents that are missing.

It looks when the cluster reports a change, and each `interval_s`, since brokers report none of a queue. While no job
waits, a look is one small request to the broker. Nothing that it remembers decides how many agents there are: that is
read from the cluster, whose names are unique. It remembers only since when an agent has been silent or has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import anyio
from msgspec import Struct

from airunner.client.batches import BatchIterator
from airunner.client.scale.cluster import Cluster, ClusterAway, Unit, UnitState
from airunner.client.scale.demand import free_names, missing_agents, ready_jobs, unit_name
from airunner.protocol.errors import Busy, NoSpace
from airunner.protocol.replies import AgentSummary, QueueSummary

FAILED_S: Final = 60.0  # for which a failed unit keeps its name, and none is started instead: no template must spin
GAP_S: Final = 0.2  # between two looks: the changes of one unit come as several events


class Terms(Struct, frozen=True):
    """Terms of a scaler: what it scales, and how far."""

    name: str  # beginning of its units' names
    queue: str
    agents_max: int
    slots: int = 1  # jobs that one agent runs at once
    tags: Mapping[str, str] = {}  # of the agents
    interval_s: float = 5.0  # longest time between two looks
    start_s: float = 600.0  # time within which a unit's agent should have reached the broker


class Demanding(Protocol):
    """Reader of the demand at a broker; `Client` is one."""

    async def queue(self, name: str, *, tags: Mapping[str, str] | None = None) -> QueueSummary | None:
        """Get a queue; None: it has no jobs."""
        ...

    def agents(self, after: str | None = None) -> BatchIterator[AgentSummary]:
        """List agents by name, from after a name on."""
        ...


class Scaler:
    """Scaler of the agents of one queue. `report` gets a line for the operator."""

    def __init__(self, broker: Demanding, cluster: Cluster, terms: Terms, report: Callable[[str], None]) -> None:
        self._broker = broker
        self._cluster = cluster
        self._terms = terms
        self._report = report
        self._changed = anyio.Event()  # units have changed since the last look began
        self._silent_s: dict[str, float] = {}  # by key: since when a unit has been silent while jobs waited
        self._failed_s: dict[str, float] = {}  # by key: when a unit was first seen to have failed
        self._reported: set[str] = set()  # keys of silent or failed units that were reported
        self._trouble = ""  # the last reported error

    async def run(self) -> None:
        """Scale for ever. Raises `OperatorError`, `PeerError`: what the broker or the cluster refuses for good."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cluster.watch, self._note_change)
            while True:
                self._changed = anyio.Event()
                await self._look()
                await anyio.sleep(GAP_S)
                with anyio.move_on_after(max(0.0, self._terms.interval_s - GAP_S)):
                    await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()

    async def _look(self) -> None:
        try:
            await self.look()
        except (ClusterAway, Busy, NoSpace) as error:
            if self._trouble != str(error):
                self._report(f"no agents can be started now: {error}; trying again")
            self._trouble = str(error)
        else:
            self._trouble = ""

    async def look(self) -> None:
        """Look once, and start the agents that are missing. Raises `ClusterAway` and the errors of `run`."""
        terms = self._terms
        if not ready_jobs(await self._queue()):
            self._silent_s.clear()  # another broker may know agents that run nothing
            return
        units = await self._cluster.units()
        live = [unit for unit in units if unit.state is UnitState.LIVE]
        known = await self._agents({unit.name for unit in live})
        queue = await self._queue()  # after the agents: a job that begins meanwhile is counted once
        silent = [unit for unit in live if unit.name not in known]
        failed = [unit for unit in units if unit.state is UnitState.FAILED]
        late = _seen_for(terms.start_s, silent, self._silent_s)
        paused = {unit.key for unit in failed} - _seen_for(FAILED_S, failed, self._failed_s)
        self._warn(silent, late, failed)
        starting = [unit.name for unit in silent if unit.key not in late]
        missing = max(0, missing_agents(queue, known, starting, terms.slots) - len(paused))
        ended = {unit.name: unit for unit in units}
        count = len(live)
        for name in free_names(terms.name, terms.agents_max, units, paused)[:missing]:
            if await self._cluster.start(name, ended.get(name)):
                count += 1
                self._report(f"started agent {name} ({count} of {terms.agents_max}); waiting jobs: {ready_jobs(queue)}")

    async def _queue(self) -> QueueSummary | None:
        return await self._broker.queue(self._terms.queue, tags=self._terms.tags)

    async def _agents(self, names: set[str]) -> dict[str, AgentSummary]:
        """Get the agents that have these names, as far as the broker knows them."""
        start = unit_name(self._terms.name, "")
        known: dict[str, AgentSummary] = {}
        async with aclosing(self._broker.agents(after=start)) as agents:
            async for agent in agents:
                if not agent.name.startswith(start):
                    break
                if agent.name in names:
                    known[agent.name] = agent
        return known

    def _warn(self, silent: Sequence[Unit], late: set[str], failed: Sequence[Unit]) -> None:
        """Report each unit once that has failed, or whose agent does not reach the broker."""
        for unit in failed:
            if unit.key not in self._reported:
                self._report(f"agent {unit.name} has failed: {unit.note}")
        for unit in silent:
            if unit.key in late and unit.key not in self._reported:
                self._report(
                    f"agent {unit.name} has not reached the broker in {self._terms.start_s:g} s: look at its log; it "
                    "has to have this name"
                )
        self._reported = late | {unit.key for unit in failed}


def _seen_for(seconds: float, units: Sequence[Unit], since_s: dict[str, float]) -> set[str]:
    """Return the keys of units that were first seen `seconds` ago by this scaler's clock; `since_s` remembers it."""
    now_s = anyio.current_time()
    seen = {unit.key: since_s.get(unit.key, now_s) for unit in units}
    since_s.clear()
    since_s.update(seen)
    return {key for key, first_s in seen.items() if now_s - first_s >= seconds}
