"""One run of the simulated world: it is built, broken for a while, healed, drained, and judged.

```
 FAULTS_S of work under faults ──► heal ──► drain, at most DRAIN_S ──► every job and log is read ──► the oracle
```

Everything is drawn from the one seed: what is submitted, what breaks, when, and in which order things happen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final, NoReturn, TypeVar

import anyio
import anyio.lowlevel

from airunner.agent.agent import Agent
from airunner.agent.attempt.surroundings import Surroundings
from airunner.agent.output.spool import SPOOL_FOLDER
from airunner.agent.plan import Plan
from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.protocol.errors import PeerError
from airunner.protocol.events import Event
from airunner.protocol.job import Reason
from airunner.transport.channel import Channel
from airunner.transport.patience import Patience
from airunner.transport.ports import Edges
from tests.simulation.brokers import Alone, Brokers
from tests.simulation.dicts import DictDisk
from tests.simulation.disk import Disk
from tests.simulation.dynamofleet import DynamoFleet
from tests.simulation.fleet import PostgresFleet
from tests.simulation.history import (
    Completed,
    FinalEvents,
    FinalJob,
    Healed,
    LeftWaiting,
    Noted,
    Piled,
    Started,
    Woken,
)
from tests.simulation.homes import may_be_full
from tests.simulation.links import Weather
from tests.simulation.machine import Machine, true_s
from tests.simulation.network import REQUESTS_PORT, SimNetwork
from tests.simulation.processes import SimKeepers
from tests.simulation.recording import Recorder
from tests.simulation.tags import tags_of
from tests.simulation.torn import TornDisk
from tests.simulation.users import LateSubmitter, Monitor, Operator, Submitter, all_jobs, open_queue

WALL_MS: Final = 1_760_000_000_000
DRAIN_S: Final = 1_000.0  # four attempts that each fetch a MB of standard input over the slowest link, and fail
AGENTS: Final = 3
SUBMITTERS: Final = 2
MONITORS: Final = 2
VISIBILITY_MS: Final = (3_000, 5_000, 8_000)
LONG_VISIBILITY_MS: Final = 24_000  # of agents that wait at one of several brokers for so long that a lost hint shows
LONG_SHARE: Final = 0.5  # of the fleets of several brokers
HOUR_MS: Final = 3_600_000
COMPLETED_MIN: Final = 5
CANCEL_GRACE_S: Final = 2.0
SLOW_SHARE: Final = 0.12
SLOW_BYTES_A_S: Final = (8_192.0, 8_192.0, 20_000.0, 80_000.0)
_FOR_EVER: Final = Patience()
T = TypeVar("T")


def _alone(disk: Callable[[Random, Counter[str]], Disk]) -> Callable[[World], Brokers]:
    return lambda world: Alone(world, disk(world.random, world.recorder.rare))


HOUSES: Final[Mapping[str, Callable[[World], Brokers]]] = MappingProxyType(
    {"dicts": _alone(DictDisk), "sqlite": _alone(TornDisk), "shared": PostgresFleet, "dynamodb": DynamoFleet}
)
"""The kinds of worlds: how their brokers store."""


class World:
    """The machines, the network between them, the broker's disk, and whatever happens to them."""

    def __init__(
        self, seed: int, store: str, folder: Path, over: Callable[[World, Exception | None], NoReturn]
    ) -> None:
        self._over = partial(over, self)
        self.random = Random(seed)
        self.folder = folder
        self.recorder = Recorder()
        self.network = SimNetwork(self.random, self.recorder)
        may_be_full(self.recorder.rare)
        self.brokers = HOUSES[store](self)
        self.agents: dict[str, tuple[Machine, SimKeepers]] = {}
        self.users: dict[str, Machine] = {}
        self.healed = False
        self.is_healed = anyio.Event()
        self.job_ids: list[str] = []
        self._monitors: dict[str, Monitor] = {}
        self._user_done: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self.visibility_ms = {f"agent-{n}": self.random.choice(VISIBILITY_MS) for n in range(AGENTS)}
        if len(self.brokers.names) > 1 and self.random.random() < LONG_SHARE:
            self.visibility_ms = dict.fromkeys(self.visibility_ms, LONG_VISIBILITY_MS)
        for name in [*self.visibility_ms, *self._people()]:
            if self.random.random() < SLOW_SHARE:
                self.network.rates[name] = self.random.choice(SLOW_BYTES_A_S)  # to the end: all is to get through
                if name in self.visibility_ms:  # two pieces of a standard input, with a heartbeat between, take 4 s
                    self.visibility_ms[name] = max(self.visibility_ms[name], *VISIBILITY_MS)
        self._group: anyio.abc.TaskGroup | None = None

    @staticmethod
    def _people() -> list[str]:
        return [
            *(f"client-{number}" for number in range(SUBMITTERS)),
            *(f"monitor-{number}" for number in range(MONITORS)),
        ]

    async def run(self) -> None:
        """All of it, up to the final reading; then `over` ends the process, whatever still runs."""
        async with anyio.create_task_group() as self._group:
            self._watch_over(self.network.run)
            for name in self.brokers.names:
                self._watch_over(self.brokers.keep, name)
            for name in self.visibility_ms:
                self._watch_over(self._keep_agent, name)
            submitters = [Submitter(self, f"client-{number}") for number in range(SUBMITTERS)]
            if len(self.brokers.names) > 1:
                submitters[1:] = [Operator(self, "client-1"), LateSubmitter(self, "client-late")]
            for submitter in submitters:
                self._watch_over(self._keep_user, submitter.name, submitter.run)
            for number in range(MONITORS):
                monitor = self._monitors[f"monitor-{number}"] = Monitor(self, f"monitor-{number}")
                self._watch_over(self._keep_user, monitor.name, monitor.run)
            self._watch_over(self._through_it_all)

    async def _through_it_all(self) -> None:
        await self.brokers.faults().run()
        self._heal()
        await self._drain()
        for name, most in self.network.waited.items():
            self.recorder.add(Piled, machine=name, waiting_bytes=most.bytes, message_bytes=most.message_bytes)
        await self._read()
        self._over(None)

    def _watch_over(self, run: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a task of the world; its failure is the run's."""

        async def watched() -> None:
            try:
                await run(*arguments)
            except Exception as error:  # noqa: BLE001 - the run is over, and says why
                self._over(error)

        self.tasks.start_soon(watched)

    # --- machines -------------------------------------------------------------------------------------

    def wake(self, machine: Machine) -> None:
        """SIGCONT, if there is anybody to hear it."""
        if machine.alive and machine.stopped:
            machine.wake()
            self.recorder.add(Woken, machine=machine.name)

    async def _keep_agent(self, name: str) -> None:
        """Start this agent whenever it is gone; its folder stays."""
        home = self.folder / name
        (home / SPOOL_FOLDER).mkdir(parents=True)
        while True:
            machine = Machine(name)
            keepers = SimKeepers(machine, self.network, self.recorder)
            self.agents[name] = (machine, keepers)
            self.recorder.add(Started, machine=name)
            machine.start(self.tasks, partial(self._agent, machine, keepers, home))
            await machine.ended.wait()
            if machine.crashed is not None:
                raise AssertionError(f"{name} ended by itself") from machine.crashed
            await keepers.gone()  # as agent.place waits for the keepers of the last agent
            await anyio.sleep(self.pause_s([0.2, 2.0, 8.0]))  # virtual

    async def _agent(self, machine: Machine, keepers: SimKeepers, home: Path) -> None:
        edges = self.edges(self.random.randrange(-HOUR_MS, HOUR_MS), machine)
        endpoints = self.endpoints(more=0.3)
        agent = Agent(
            Plan(
                name=machine.name,
                slots=2,
                queues=("default", "slow"),
                visibility_ms=self.visibility_ms[machine.name],
                home=home,
                tags=tags_of(machine.name),
            ),
            Channel(self.network.of_machine(machine), endpoints, lambda: b"", edges),
            Surroundings(keepers, edges.wall_ms, {}, _inline, CANCEL_GRACE_S),
            edges,
            lambda line: self.note(f"{machine.name}: {line}"),
        )
        await agent.run()

    async def _keep_user(self, name: str, run: Callable[[Machine], Awaitable[None]]) -> None:
        """A client or monitor, started again whenever it is killed, until its own end."""
        while True:
            machine = self.users[name] = Machine(name)
            machine.start(self.tasks, partial(run, machine))
            await machine.ended.wait()
            self.network.machine_gone(machine)
            if machine.crashed is not None:
                raise AssertionError(f"{name} ended by itself") from machine.crashed
            if not machine.stopped:
                self._user_done[name].set()
                return
            await anyio.sleep(0.1)  # virtual

    def client(self, machine: Machine) -> Client:
        """A client on this machine."""
        reach = Reach(
            network=self.network.of_machine(machine),
            endpoints=self.endpoints(),
            token=lambda: b"",
            edges=self.edges(0, machine),
            close=lambda: None,
        )
        return Client(reach=reach, patience=_FOR_EVER)

    def endpoints(self, more: float = 0.0) -> tuple[str, ...]:
        """Those of all brokers, in any order; with this probability also one where nobody is."""
        names = list(self.brokers.names)
        if len(names) > 1:
            self.random.shuffle(names)
        nowhere = ["nowhere"] if more and self.random.random() < more else []
        return tuple(f"tcp://{name}:{REQUESTS_PORT}" for name in [*names, *nowhere])

    def edges(self, offset_ms: int, machine: Machine) -> Edges:
        """A machine's clocks and its luck."""
        return Edges(
            wall_ms=lambda: WALL_MS + offset_ms + int(true_s() * 1_000),
            random=self.random.random,
            random_bytes=self.random.randbytes,
            boot_s=machine.boot_s,
            watch_steps=machine.watch_steps,
        )

    # --- the end --------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.healed = True
        self.network.weather = Weather()
        self.network.swallows = False
        self.network.parted.clear()
        self.network.traps.clear()
        for machine, keepers in self.agents.values():
            keepers.trap = None
            machine.refuses, machine.disk_full = 0.0, False
        for machine in [*(machine for machine, _ in self.agents.values()), *self.users.values()]:
            if machine.stopped:
                self.wake(machine)
        self.brokers.heal()
        self.recorder.add(Healed)
        self.is_healed.set()

    async def _drain(self) -> None:
        """Until everything has ended; what never does is the oracle's to see."""

        async def watch(client: Client) -> None:
            for queue in ("default", "slow"):
                await open_queue(self, "drain", client, queue)
            for user in list(self.users):
                await self._user_done[user].wait()
            await anyio.sleep(self.brokers.late_s)  # virtual
            async for job in all_jobs(client):
                with suppress(PeerError):  # a log that cannot be read has not ended, and the laws say so
                    async with client.follow(job.id) as events:
                        async for _ in events:
                            pass

        with anyio.move_on_after(DRAIN_S):
            await self._on_machine("drain", watch)
        for name in self.users:
            if not self._user_done[name].is_set():
                monitor = self._monitors.get(name)
                self.recorder.add(LeftWaiting, machine=name, job_id=monitor.job_id if monitor is not None else None)

    async def _read(self) -> None:
        """Every job and log, as a client is shown them."""

        async def read(client: Client) -> None:
            for summary in [job async for job in all_jobs(client)]:
                job = await client.get(summary.id)
                self.recorder.add(FinalJob, job=job)
                self.recorder.rare["a job expired"] += job.result is not None and job.result.reason is Reason.EXPIRED
                events: list[Event] = []
                with suppress(PeerError):  # what cannot be read is not there, and the laws say so
                    async for event in client.replay(summary.id):
                        events.append(event)  # noqa: PERF401 - those before a damaged one are there
                self.recorder.add(FinalEvents, job_id=summary.id, events=tuple(events))

        with anyio.fail_after(DRAIN_S):
            await self._on_machine("reader", read)

    async def _on_machine(self, name: str, run: Callable[[Client], Awaitable[None]]) -> None:
        machine = Machine(name)

        async def main() -> None:
            async with self.client(machine) as client:
                await run(client)

        machine.start(self.tasks, main)
        await machine.ended.wait()
        assert machine.crashed is None, f"{name} ended by itself: {machine.crashed!r}"

    @property
    def idle(self) -> bool:
        """Whether this run shows too little to count."""
        return len(self.recorder.history.of(Completed)) < COMPLETED_MIN

    def wall_ms(self, at_s: float) -> int:
        """The right time at this moment of the run."""
        return WALL_MS + int(at_s * 1_000)

    def pause_s(self, lengths_s: list[float]) -> float:
        """Until what has died is started again."""
        return 0.05 if self.healed else self.random.random() * self.random.choice(lengths_s)

    def note(self, what: str) -> None:
        """Put a line into the trace; the folder of this run is left out: it is another each time."""
        self.recorder.add(Noted, what=what.replace(str(self.folder), ""))

    @property
    def tasks(self) -> anyio.abc.TaskGroup:
        """In which every machine runs."""
        assert self._group is not None, "the world runs"
        return self._group


async def _inline(call: Callable[[], T]) -> T:
    """Where production would start a thread."""
    await anyio.lowlevel.checkpoint()
    return call()
