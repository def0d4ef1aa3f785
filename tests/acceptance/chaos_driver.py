"""Driver of a chaos run: starts real processes again that were killed or have ended, mends all, drains and judges.

What is broken, and how, says a subclass: `chaos` of one broker, `chaos_ha` of several on PostgreSQL.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Wakeup
from typing import Final

import anyio

from tests.acceptance.chaos_judge import Cluster, Findings, Kept, drain, judge
from tests.acceptance.chaos_processes import (
    JobProcess,
    Victim,
    airunner_processes,
    command_of,
    job_processes,
    kill,
    run_in_folder,
    two_at_once,
)
from tests.acceptance.chaos_users import CLIENT_KINDS, STOP, accepted, diaries
from tests.acceptance.failovers import tell
from tests.simulation.history import Killed, Record, wall_ms

VISIBILITY_S: Final = 5
LOOK_S: Final = 0.25
RESTART_S: Final = (0.0, 3.0)
STOPPED_S: Final = (0.5, 8.0)
ALL_SEEN_S: Final = 90.0  # in a run as long as this every fault has been seen
DRAIN_S: Final = 180.0
SWEEP_S: Final = 15.0  # for what killed agents' keepers end
TELL_S: Final = 5.0


class Driver(ABC):
    """The processes of a run, and what becomes of them; `tick_s` lies between two that are hurt."""

    tick_s: float

    def __init__(self, folder: Path, seed: int, *findings: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.findings = Findings(*findings)
        self._seed = seed
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(10**9))
        self._brokers: list[Victim] = []
        self._agents: list[Victim] = []
        self._calm: list[Victim] = []  # an agent whom nobody hurts with a signal
        self._users: list[Victim] = []
        self._twice: dict[str, list[int]] = {}
        self._deaths: list[Record] = []
        self._seconds = 0.0
        self._told_s = time.monotonic()
        self._begun_ms = wall_ms()

    # --- what a subclass says ---

    @property
    @abstractmethod
    def cluster(self) -> Cluster:
        """The brokers that users speak to."""

    @property
    @abstractmethod
    def _hurts(self) -> str:
        """How much was done to them."""

    @abstractmethod
    def start(self) -> None:
        """Start everything; who is there before its broker waits for it."""

    @abstractmethod
    def _hurt(self) -> None:
        """Do the next thing to them."""

    @abstractmethod
    def _mend(self) -> None:
        """Mend what is no process."""

    @abstractmethod
    def _is_expected(self, victim: Victim, died: str) -> bool:
        """Whether a process may have ended so, and its supervisor starts it again."""

    def _awake(self) -> list[JobProcess]:
        """Processes of jobs that can run now."""
        return job_processes(self.home)

    @abstractmethod
    def _judge_more(self, kept: Kept) -> None:
        """Judge what is left by more laws, once all processes have ended."""

    # --- the run ---

    @property
    def _all(self) -> list[Victim]:
        return [*self._brokers, *self._agents, *self._calm, *self._users]

    def rage(self, seconds: float) -> None:
        """Hurt something every tick, and raise what has died."""
        begun_s = time.monotonic()
        self._seconds = seconds
        hurt_s = begun_s + self.tick_s
        while (now_s := time.monotonic()) < begun_s + seconds:
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2]()
            self._raise_the_dead()
            if now_s >= hurt_s:
                hurt_s = now_s + self.tick_s
                self._hurt()
            self._twice = two_at_once(self._awake()) | self._twice
            jobs = sum(len(accepted(records)) for records in diaries(self.folder, *CLIENT_KINDS))
            self._tell(f"{now_s - begun_s:.0f} of {seconds:g} s, {jobs} jobs accepted, {self._hurts}")
            Wakeup().wait(LOOK_S)

    def drain(self) -> None:
        """Mend everything, let the users finish, and wait for what they asked for."""
        tell("mending and draining")
        deadline_s = time.monotonic() + DRAIN_S
        self._due.clear()
        self._mend()
        for victim in self._all:
            victim.mend()
        (self.folder / STOP).touch()
        anyio.run(self._drain, DRAIN_S)
        for user in self._users:
            self._note(user.ended(deadline_s - time.monotonic()))
        anyio.run(self._drain, max(0.0, deadline_s - time.monotonic()))  # what those asked at last
        self._raise_the_dead()

    async def _drain(self, within_s: float) -> None:
        """What began while something was broken may yet find out."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._supervise)
            await drain(self.cluster, within_s, self._tell)
            group.cancel_scope.cancel()

    async def _supervise(self) -> None:
        while True:
            self._raise_the_dead()
            with anyio.move_on_after(LOOK_S):
                await anyio.Event().wait()

    def judge(self) -> None:
        """Look at all that is left, while the brokers are there and then without them."""
        kept = anyio.run(judge, self.cluster, self._deaths, self.findings)
        self.findings.add("run twice at once", [f"{job_id}: attempts {both}" for job_id, both in self._twice.items()])
        for victim in [*self._agents, *self._calm, *self._brokers]:
            self._note(victim.terminate())
        left = [f"{one.pid} {one.command} of {one.job_id}" for one in job_processes(self.home)]
        self.findings.add("processes left behind", left)
        _until(lambda: not airunner_processes(self.home))  # commands of users that were killed may yet run
        self.findings.add("processes left behind", [command_of(pid) for pid in airunner_processes(self.home)])
        self.findings.note(self._hurts)
        self._judge_more(kept)

    def _judge_seen(self, never: Sequence[str], within_s: float = ALL_SEEN_S) -> None:
        """Judge which faults were never seen, where the run was long enough for them all."""
        if self._seconds >= within_s:
            self.findings.add("faults never seen", never)

    def end(self) -> None:
        """Kill all that still runs."""
        for victim in self._all:
            victim.end()
        _until(lambda: not job_processes(self.home))  # that is their keepers' work
        for pid in [*airunner_processes(self.home), *(process.pid for process in job_processes(self.home))]:
            kill(pid)

    # --- what subclasses do it with ---

    def _signals(self) -> str:
        kills, stops = (sum(one) for one in zip(*((victim.kills, victim.stops) for victim in self._all), strict=True))
        return f"{kills} kills, {stops} stops"

    def _kill(self, victim: Victim) -> None:
        victim.kill()
        self._note_death(victim, "kill")
        self._soon(RESTART_S, victim.mend)

    def _stop(self, victim: Victim, within_s: tuple[float, float] = STOPPED_S) -> None:
        victim.stop()
        self._soon(within_s, victim.mend)

    def _raise_the_dead(self) -> None:
        """As their supervisor would; that it has to is a finding, but for an end that is expected."""
        done = self._users if (self.folder / STOP).exists() else []
        for victim in self._all:
            if victim not in done and (died := victim.died()):
                if not self._is_expected(victim, died):
                    self._note(died)
                self._note_death(victim, died)
                victim.mend()

    def _note_death(self, victim: Victim, why: str) -> None:
        self._deaths.append(Killed(at_ms=wall_ms(), machine=victim.name, why=why))

    def _soon(self, within_s: tuple[float, float], act: Callable[[], None]) -> None:
        self._later(time.monotonic() + self._random.uniform(*within_s), act)

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), act))

    def _note(self, wrong: str | None) -> None:
        if wrong:
            self.findings.add("ended by themselves", [wrong])

    def _tell(self, line: str) -> None:
        """Not too often."""
        if time.monotonic() - self._told_s >= TELL_S:
            self._told_s = time.monotonic()
            tell(line)


def _until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SWEEP_S
    while not done() and time.monotonic() < deadline_s:
        Wakeup().wait(LOOK_S)


def main(name: str, description: str | None, make: Callable[[Path, int, ExitStack], Driver]) -> int:
    """Run the driver that is made in a folder with a seed, and return the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.acceptance.{name}", description=description)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    tell(f"chaos of {given.seconds:g} s, seed {given.seed}")

    def run(folder: Path, ends: ExitStack) -> bool:
        driver = make(folder, given.seed, ends)
        ends.callback(driver.end)
        driver.start()
        driver.rage(given.seconds)
        driver.drain()
        driver.judge()
        for line in driver.findings.lines():
            tell(line)
        return driver.findings.clean

    return run_in_folder(name.replace("_", "-"), run)
