"""An agent on a stage: the real actors and a real broker over a network in memory, and processes that are played."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from airunner.agent.agent import Agent
from airunner.agent.artifacts.step import ARTIFACT_BYTES_MAX
from airunner.agent.attempt.surroundings import Surroundings
from airunner.agent.caches.shelf import Shelf
from airunner.agent.checkout.repository import Rules
from airunner.agent.launcher.contract import (
    Exit,
    Holder,
    Launcher,
    LaunchSpec,
    LeaseEnded,
    Process,
    Spent,
    Survivor,
    Vitals,
)
from airunner.agent.launcher.refusal import MachineRefused
from airunner.agent.leases.probes import PROBE
from airunner.agent.output.spool import SPOOL_FOLDER
from airunner.agent.plan import Plan
from airunner.agent.workspace.workspace import T
from airunner.broker.blobs.keeper import Blobs
from airunner.client.client import Client
from airunner.protocol.fields import TerminalSize
from airunner.protocol.job import Job
from airunner.transport.bell import Bell
from airunner.transport.channel import Channel
from airunner.transport.memory import REQUESTS_ENDPOINT
from airunner.transport.ports import Edges
from airunner.transport.timers import boot_s
from tests.client.wire import Wire, brokered, edges

CANCEL_GRACE_S = 7.0
VISIBILITY_S = 300
CACHE_BYTES = 1 << 30


class PlayedSource:
    """Writes nothing, and ends with its process."""

    def __init__(self, over: anyio.Event) -> None:
        self._over = over

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await self._over.wait()
        return b""[:max_bytes]

    def close(self) -> None:
        """Nothing is held."""


class Unreal:
    """What is told of every process that is none."""

    ran_s: float | None = None
    size: TerminalSize | None = None

    def terminal_size(self) -> None:
        """There is none."""

    def resize(self, size: TerminalSize) -> None:
        self.size = size

    @property
    def spent(self) -> Spent:
        return Spent()

    async def vitals(self) -> Vitals | None:
        return Vitals(1, 4_096)

    async def holders(self) -> list[Holder]:
        return []


class PlayedProcess(Unreal):
    """Runs until it is told to end; a stubborn one until its grace is over."""

    def __init__(self, spec: LaunchSpec, *, stubborn: bool) -> None:
        self.pid = 1
        self.spec = spec
        self.stubborn = stubborn
        self.graces_s: list[float] = []
        self.deadline_s = inf
        self.closed = anyio.Event()
        self._exit: Exit | None = None
        self._expired = False
        self._over = anyio.Event()
        self.stdout = PlayedSource(self._over)
        self.stderr = PlayedSource(self._over)

    def exit(self, exit_code: int) -> None:
        """By itself."""
        self._end(Exit(exit_code, None))

    def expire(self) -> None:
        """Its keeper kills it, because its deadline has come."""
        self._expired = True
        self._over.set()

    def keep_until(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s

    async def wait(self) -> Exit:
        await self._over.wait()
        if self._exit is None:
            raise LeaseEnded
        return self._exit

    async def end(self, grace_s: float, number: signal.Signals = signal.SIGTERM) -> list[Survivor]:
        self.graces_s.append(grace_s)
        if self._expired:
            raise LeaseEnded
        if not self._over.is_set():
            if self.stubborn:
                await anyio.sleep(grace_s)  # virtual
            self._end(Exit(None, signal.SIGKILL if self.stubborn or not grace_s else number))
        return []

    def close(self) -> None:
        self.closed.set()

    def _end(self, exit_: Exit) -> None:
        self._exit = self._exit or exit_
        self._over.set()


class PlayedLauncher:
    """Starts what the test waits for; `hesitates` keeps it from starting anything, a `refusal` from starting `make`."""

    def __init__(self) -> None:
        self.started: list[PlayedProcess] = []
        self.asked = 0
        self.hesitates = False
        self.stubborn = False
        self.refusal: MachineRefused | None = None
        self.refuses_probes = False
        self._changed = Bell()

    async def launch(self, spec: LaunchSpec, deadline_s: float = inf) -> Process:
        self.asked += 1
        self._changed.ring()
        if self.refusal is not None and (spec.argv[0] == "make" or (self.refuses_probes and spec.argv == PROBE.argv)):
            raise self.refusal
        if self.hesitates:
            await anyio.sleep_forever()
        process = PlayedProcess(spec, stubborn=self.stubborn)
        process.keep_until(deadline_s)
        self.started.append(process)
        self._changed.ring()
        return process

    async def process(self, number: int = 1) -> PlayedProcess:
        """The one that is started as the `number`th."""
        await self._until(lambda: len(self.started) >= number)
        return self.started[number - 1]

    async def asking(self) -> None:
        """Until it has been asked to start something."""
        await self._until(lambda: self.asked > 0)

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            await self._changed.wait()


@dataclass
class Stage:
    """All of it, and what the agent has reported."""

    wire: Wire
    client: Client
    group: TaskGroup
    plan: Plan
    edges: Edges
    hooks: Path | None
    real: Launcher | None
    variables: dict[str, str] = field(default_factory=dict)
    artifact_bytes_max: int = ARTIFACT_BYTES_MAX
    reports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.launcher = PlayedLauncher()
        self.start()

    def start(self) -> None:
        """The first agent, or another one in the home of one that has ended."""
        surroundings = Surroundings(
            self.real or self.launcher,
            self.edges.wall_ms,
            {"PATH": f".::{os.environ['PATH']}:"},
            inline,
            CANCEL_GRACE_S,
            hooks=self.hooks,
            shelf=Shelf(self.plan.home, inline, CACHE_BYTES),
            rules=Rules(allow_local=True),
            variables=self.variables,
            artifact_bytes_max=self.artifact_bytes_max,
        )
        channel = Channel(self.wire, [REQUESTS_ENDPOINT], lambda: b"", self.edges)
        self.agent = Agent(self.plan, channel, surroundings, self.edges, self.reports.append)
        self.ended = anyio.Event()
        self.group.start_soon(self._run)

    async def _run(self) -> None:
        await self.agent.run()
        self.ended.set()

    async def begun(self, command: str = "sleep", **fields: object) -> tuple[Job, PlayedProcess]:
        """Submit a job, and return it with its first process once that runs."""
        number = len(self.launcher.started) + 1
        job = await self.client.submit(command=command, **fields)
        return job, await self.launcher.process(number)

    async def kinds(self, job_id: str) -> list[str]:
        """The kinds of its events, once it has ended."""
        return [event.kind async for event in self.client.follow(job_id)]


async def inline(call: Callable[[], T]) -> T:
    """Where a thread would run it."""
    await anyio.lowlevel.checkpoint()
    return call()


@asynccontextmanager
async def staged(
    home: Path,
    slots: int = 1,
    *,
    jobs_max: int | None = None,
    idle_s_max: float | None = None,
    here: Edges | None = None,
    hooks: Path | None = None,
    real: Launcher | None = None,
    variables: dict[str, str] | None = None,
    blobs: Blobs | None = None,
    artifact_bytes_max: int = ARTIFACT_BYTES_MAX,
) -> AsyncIterator[Stage]:
    """An agent that runs, until the block is left; with a `real` launcher, so do its processes."""
    (home / SPOOL_FOLDER).mkdir()
    plan = Plan(
        name="played",
        slots=slots,
        queues=("default",),
        visibility_ms=VISIBILITY_S * 1_000,
        home=home,
        version="1.2",
        jobs_max=jobs_max,
        idle_s_max=idle_s_max,
    )
    async with brokered(blobs) as (wire, client), anyio.create_task_group() as group:
        here = here or (replace(edges(2), boot_s=boot_s) if real else edges(2))  # keepers know the machine's clock
        yield Stage(wire, client, group, plan, here, hooks, real, variables or {}, artifact_bytes_max)
        group.cancel_scope.cancel()
