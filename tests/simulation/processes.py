"""Simulated processes of jobs: scripts that write, pause and end, under keepers that outlive their agent.

A script is drawn by the seed and travels in the job's arguments, so that every attempt at the job runs the same.
Processes belong to the world and not to their agent's machine: when that is stopped they run on, until their
keeper's deadline; when it is killed they are killed a moment later.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from random import Random

import anyio
import msgspec
from msgspec import Struct

from airunner.agent.launcher.contract import (
    RECEIVE_BYTES,
    Exit,
    LaunchFailed,
    LaunchSpec,
    LeaseEnded,
    Survivor,
)
from airunner.agent.launcher.refusal import MachineRefused, scarce_at_launch
from airunner.protocol.events import Stream
from airunner.transport.bell import Bell
from tests.agent.playing import Unreal
from tests.simulation.history import ProcessGone, ProcessStarted, ProcessWrote
from tests.simulation.machine import Machine, true_s
from tests.simulation.network import SimNetwork
from tests.simulation.recording import Recorder

PROBE = ("true",)
SIGTERM = 15
SIGKILL = 9
ROUNDING_S = 0.000_001


class Script(Struct, frozen=True):
    """What a command does: pauses (seconds) and pieces of output, then its end."""

    steps: tuple[tuple[float, str, str], ...] = ()
    exit_code: int = 0
    signal: int | None = None
    ignores_term: bool = False
    missing: bool = False
    times: int = 1  # that each piece is written, as one

    @staticmethod
    def drawn(random: Random) -> Script:
        """Most are short; some are long, silent, stubborn, failing, or not there."""
        length_s = random.choice([0.0, 0.01, 0.3, 2.0, 6.0, 15.0, 30.0])
        pieces = random.randrange(6)
        steps = [
            (
                random.random() * length_s / max(1, pieces),
                random.choice(["stdout", "stdout", "stderr"]),
                f"{number}:{random.randrange(10**6)}\n" * random.choice([1, 1, 3, 2000]),
            )
            for number in range(pieces)
        ]
        fails = random.random() < 0.25
        return Script(
            steps=tuple(steps) or ((length_s, "stdout", ""),),
            exit_code=random.choice([1, 7, 75]) if fails else 0,
            signal=random.choice([6, 11]) if fails and random.random() < 0.3 else None,
            ignores_term=random.random() < 0.2,
            missing=random.random() < 0.03,
            times=8 if random.random() < 0.04 else 1,
        )

    def words(self) -> tuple[str, ...]:
        """As the arguments of a job."""
        return (json.dumps(msgspec.to_builtins(self)),)


def stdin_of(words: str) -> bytes:
    """The standard input that goes with a script's words, if it has one."""
    return words.encode() * (1 + len(words) % 200)


class SimKeepers:
    """The launcher and the keepers of one agent's machine."""

    def __init__(self, machine: Machine, network: SimNetwork, recorder: Recorder) -> None:
        self.trap: Callable[[], None] | None = None  # sprung when a process next ends by itself
        self.machine = machine
        self.network = network
        self.recorder = recorder
        self._kept: list[SimProcess] = []

    async def launch(self, spec: LaunchSpec, deadline_s: float = math.inf) -> SimProcess:
        script = Script() if spec.argv == PROBE else msgspec.convert(json.loads(spec.argv[1]), Script)
        await anyio.sleep(0.0005 + self.network.random.random() * 0.003)  # virtual
        if self.machine.boot_s() >= deadline_s:
            raise LeaseEnded
        if self.network.random.random() < self.machine.refuses:
            self.recorder.rare["a machine refused to start a process"] += 1
            if (scarce := scarce_at_launch(errno.EAGAIN)) is not None:
                raise MachineRefused(scarce, "cannot start a process: Resource temporarily unavailable")
            raise LaunchFailed("cannot start a process", 126)
        if spec.stdin is not None:
            assert spec.stdin.read_bytes() == stdin_of(spec.argv[1]), "the command got a part of its standard input"
            self.recorder.rare["a command got a standard input"] += 1
        if script.missing:
            raise LaunchFailed("no such command", 127)
        environment = spec.environment
        of_a_job = spec.argv != PROBE
        attempt = (environment["AIRUNNER_JOB_ID"], int(environment["AIRUNNER_ATTEMPT"])) if of_a_job else None
        process = SimProcess(script, attempt, self)
        process.keep_until(deadline_s)
        self._kept = [kept for kept in self._kept if not kept.gone]
        self._kept.append(process)
        with anyio.move_on_after(spec.short_s, shield=True):
            began_s = anyio.current_time()
            await process.over.wait()
            if process.ended_by_itself:
                process.ran_s = anyio.current_time() - began_s
                self.recorder.rare["a command had ended when its start was reported"] += 1
        return process

    @property
    def busy_until_s(self) -> float:
        """When the last of its processes ends by itself."""
        return max((process.ends_s for process in self._kept if not process.gone), default=-math.inf)

    def agent_killed(self) -> None:
        """Every socket to it closes; the keepers kill what they keep, and exit."""
        for process in self._kept:
            delay_s = 0.0 if self.machine.asleep else self.network.random.random() * 0.5
            self.network.later(delay_s, process.kill)

    def spring(self) -> None:
        """A process has ended by itself."""
        trap, self.trap = self.trap, None
        if trap is not None:
            self.network.later(0, trap)

    async def gone(self) -> None:
        """Wait until none of the processes is left."""
        for process in self._kept:
            await process.over.wait()


class SimSource:
    """What a process writes."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._over = False
        self._changed = Bell()

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        while not self._held and not self._over:
            await self._changed.wait()
        chunk = bytes(self._held[:max_bytes])
        del self._held[:max_bytes]
        return chunk

    def close(self) -> None:
        """Read no more."""

    def put(self, data: bytes) -> None:
        """It was written."""
        self._held += data
        self._changed.ring()

    def end(self) -> None:
        """Nothing more will be."""
        self._over = True
        self._changed.ring()


class SimProcess(Unreal):
    """One command; see `agent.launcher.contract.Process`."""

    def __init__(self, script: Script, attempt: tuple[str, int] | None, keepers: SimKeepers) -> None:
        self._script = script
        self._exits = keepers.spring
        self._host, self._network, self._recorder = keepers.machine, keepers.network, keepers.recorder
        self._pid = next(self._network.numbers)
        self._exit: Exit | None = None
        self.ended_by_itself = False
        self._expired = False
        self.over = anyio.Event()
        self._deadline_s = math.inf
        self.stdout = SimSource()
        self.stderr = SimSource()
        self._of_a_job = attempt is not None
        self.ends_s = true_s() + sum(pause_s for pause_s, *_ in script.steps)  # unless it is ended
        if attempt is not None:
            started = {"machine": self._host.name, "pid": self._pid, "job_id": attempt[0], "attempt": attempt[1]}
            self._recorder.add(ProcessStarted, **started)
        self._step(0)

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def gone(self) -> bool:
        """Whether it lives no more."""
        return self._exit is not None

    def keep_until(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        if deadline_s < math.inf:
            self._later(max(0.0, deadline_s - self._host.boot_s()), lambda: self._expire(deadline_s))

    async def wait(self) -> Exit:
        while self._exit is None:
            await self.over.wait()
        if self._expired:
            raise LeaseEnded
        return self._exit

    async def end(self, grace_s: float, number: int = SIGTERM) -> list[Survivor]:
        if self._exit is None:
            if not grace_s:
                self.kill()
            elif self._script.ignores_term:
                self._later(grace_s, self.kill)
            else:
                self._later(0.002, lambda: self._die(None, number))
        try:
            await self.over.wait()
        except anyio.get_cancelled_exc_class():
            self.kill()
            raise
        if self._expired:
            raise LeaseEnded
        return []

    def close(self) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self._die(None, SIGKILL)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """On this machine, where nothing happens while it sleeps."""
        self._network.later(delay_s, lambda: self._host.when_awake(act))

    def _expire(self, deadline_s: float) -> None:
        if self._exit is not None or self._deadline_s != deadline_s:
            return
        left_s = deadline_s - self._host.boot_s()
        if left_s > ROUNDING_S:  # the clock that it is measured on has stood still meanwhile
            self._later(left_s, lambda: self._expire(deadline_s))
        else:
            self._expired = True
            self._recorder.rare["processes ended by their keeper's deadline"] += 1
            self.kill()

    def _step(self, number: int) -> None:
        """Wait, write, and go on; then end."""
        if self._exit is not None:
            return
        if number == len(self._script.steps):
            script = self._script
            self.ended_by_itself = True
            self._die(script.exit_code if script.signal is None else None, script.signal)
            self._exits()
            return
        pause_s, stream, text = self._script.steps[number]

        def write() -> None:
            if self._exit is None and text:
                data = text.encode() * self._script.times
                self._recorder.add(ProcessWrote, pid=self._pid, stream=Stream(stream), data=data)
                (self.stdout if stream == "stdout" else self.stderr).put(data)
            self._step(number + 1)

        self._later(pause_s, write)

    def _die(self, exit_code: int | None, signal: int | None) -> None:
        if self._exit is not None:
            return
        self._exit = Exit(exit_code, signal)
        if self._of_a_job:
            self._recorder.add(ProcessGone, pid=self._pid, exit_code=exit_code, signal=signal)
        self.stdout.end()
        self.stderr.end()
        self.over.set()
