"""The scaler in a world of virtual time: jobs come, agents begin, run one job and end, and scalers are killed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint

from airunner.client.scale.cluster import ClusterAway, Unit, UnitState
from airunner.client.scale.scaler import FAILED_S, Scaler, Terms
from airunner.protocol.errors import OperatorError
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

MAX = 5


class World:
    """A broker and a cluster: an agent reaches the broker at its third step, and then runs one job."""

    def __init__(self, jobs: int = 0) -> None:
        self.jobs = jobs  # that wait
        self.units_: dict[str, Unit] = {}
        self.ages: dict[str, int] = {}
        self.known: dict[str, AgentSummary] = {}
        self.started: list[str] = []
        self.most = 0
        self.away = False
        self.fails = False

    def live(self) -> list[str]:
        return [name for name, unit in self.units_.items() if unit.state is UnitState.LIVE]

    def step(self) -> None:
        """Every agent takes a step: begins, runs a job, or ends since there is none or it has run one."""
        for name in self.live():
            self.ages[name] += 1
            if self.ages[name] < 3:
                continue
            busy = self.ages[name] == 3 and self.jobs > 0
            self.jobs -= busy
            self.known[name] = AgentSummary(name=name, slots=1, leases=int(busy), seen_ms=1)
            if not busy:
                self.units_[name] = Unit(name, self.units_[name].key, UnitState.DONE)

    # --- the broker ---

    async def queue(self, name: str, *, tags: Mapping[str, str] | None = None) -> QueueSummary | None:
        await checkpoint()
        assert (name, tags) == ("ci", {"os": "linux"})
        return QueueSummary(queue=name, mode=QueueMode.OPEN, waiting=self.jobs, running=0, suitable=10**6)

    async def agents(self, after: str | None = None) -> AsyncGenerator[AgentSummary]:
        await checkpoint()
        others = [AgentSummary(name=name, slots=9, leases=0, seen_ms=1) for name in ("a", "a-x", "b")]
        for agent in sorted([*self.known.values(), *others], key=lambda agent: agent.name):
            if agent.name > (after or ""):
                yield agent

    # --- the cluster ---

    async def check(self) -> None:
        await checkpoint()

    async def units(self) -> Sequence[Unit]:
        await checkpoint()
        if self.away:
            raise ClusterAway("the cluster sleeps")
        return list(self.units_.values())

    async def start(self, name: str, ended: Unit | None) -> bool:
        await checkpoint()  # killed here, it was not started
        last = self.units_.get(name)
        if (ended and ended.key) != (last and last.key):
            return False  # another scaler was faster
        assert last is None or last.state is not UnitState.LIVE
        self.started.append(name)
        key = f"{name} {len(self.started)}"
        self.units_[name] = Unit(name, key, UnitState.FAILED if self.fails else UnitState.LIVE, "no such image")
        self.ages[name] = 0
        self.known.pop(name, None)
        self.most = max(self.most, len(self.live()))
        await checkpoint()  # killed here, it was
        return True

    async def watch(self, changed: Callable[[], object]) -> None:
        await checkpoint()
        self.changed = changed


def scaler(world: World, said: list[str] | None = None, **terms: float) -> Scaler:
    report = (lambda _: None) if said is None else said.append
    return Scaler(world, world, Terms("a", "ci", MAX, tags={"os": "linux"}, **terms), report)


async def run(world: World, *scalers: Scaler, steps: int) -> None:
    """Run scalers, each of which looks once a second, while the agents take steps in between."""
    async with anyio.create_task_group() as group:
        for each in scalers:
            group.start_soon(each.run)
        for _ in range(steps):
            await anyio.sleep(1)  # virtual
            world.step()
        group.cancel_scope.cancel()


async def test_from_none_to_the_maximum_and_back_for_fifty_jobs() -> None:
    world = World(jobs=50)
    await run(world, scaler(world, interval_s=1), steps=60)
    assert (world.jobs, world.live(), world.most) == (0, [], MAX)
    assert len(world.started) == 50  # each agent runs one


@pytest.mark.parametrize("step", range(1, 30))
async def test_a_scaler_that_is_killed_at_any_step_and_its_successor_start_no_agent_twice(step: int) -> None:
    world = World(jobs=3)
    killed = scaler(world, interval_s=1)
    with anyio.CancelScope() as life:
        async with anyio.create_task_group() as group:
            group.start_soon(killed.look)
            for _ in range(step):
                await checkpoint()
            life.cancel()
    begun = list(world.started)
    await run(world, scaler(world, interval_s=1), steps=10)
    assert sorted(world.started) == ["a-0", "a-1", "a-2"], f"the first had started {begun}"
    assert (world.jobs, world.live()) == (0, [])


async def test_two_scalers_at_once_start_no_more_than_the_maximum() -> None:
    world = World(jobs=50)
    await run(world, scaler(world, interval_s=1), scaler(world, interval_s=1), steps=60)
    assert (world.jobs, world.live(), world.most) == (0, [], MAX)


@pytest.mark.parametrize(("jobs", "tries"), [(1, 1), (50, MAX)])
async def test_a_template_that_fails_is_tried_once_a_minute_and_reported_each_time(jobs: int, tries: int) -> None:
    world, said = World(jobs), list[str]()
    world.fails = True
    await run(world, scaler(world, said, interval_s=1), steps=int(2.5 * FAILED_S))
    assert len(world.started) == 3 * tries
    assert said.count("agent a-0 has failed: no such image") == 3


async def test_an_agent_that_never_reaches_the_broker_is_replaced_and_reported() -> None:
    world, said = World(jobs=1), list[str]()
    world.step = lambda: None  # type: ignore[method-assign]
    await run(world, scaler(world, said, interval_s=1, start_s=30), steps=45)
    assert world.live() == ["a-0", "a-1"]
    assert [line.split(":")[0] for line in said if "reached" in line] == [
        "agent a-0 has not reached the broker in 30 s"
    ]


async def test_an_agent_that_another_broker_knows_is_silent_only_while_jobs_wait() -> None:
    world, said = World(), list[str]()
    each = scaler(world, said, start_s=30)
    for jobs in (1, 1, 0, 1):
        world.jobs = jobs
        await each.look()
        await anyio.sleep(20)  # virtual
    assert (world.live(), len(said)) == (["a-0"], 1)


async def test_a_change_is_followed_at_once_also_one_that_comes_during_a_look() -> None:
    world = World(jobs=1)
    begin = world.start

    async def start(name: str, ended: Unit | None) -> bool:
        world.jobs = 2  # too late for this look
        world.changed()
        return await begin(name, ended)

    world.start = start  # type: ignore[method-assign]
    await run(world, scaler(world, interval_s=600), steps=1)
    assert world.started == ["a-0", "a-1"]


async def test_a_cluster_that_is_away_is_reported_once_and_waited_for() -> None:
    world, said = World(jobs=1), list[str]()
    world.away = True
    each = scaler(world, said, interval_s=1)
    await run(world, each, steps=5)
    world.away = False
    await run(world, each, steps=5)
    assert said == [
        "no agents can be started now: the cluster sleeps; trying again",
        "started agent a-0 (1 of 5); waiting jobs: 1",
    ]


async def test_a_refusal_for_good_ends_the_scaler() -> None:
    world = World(jobs=1)

    async def refuse(*_: object) -> bool:
        raise OperatorError("jobs.batch is forbidden")

    world.start = refuse  # type: ignore[method-assign]
    with pytest.RaisesGroup(pytest.RaisesExc(OperatorError, match="forbidden"), flatten_subgroups=True):
        await run(world, scaler(world), steps=5)
