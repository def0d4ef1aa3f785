"""Real processes, really killed: `python -m tests.acceptance.chaos --seconds 120 [--seed N]`.

A broker, three agents, eight clients and four monitors work; every second a random one of them gets SIGKILL, and is
started again a moment later, or SIGSTOP, and SIGCONT after a while that may be longer than its leases; or the disk that
broker and agents share is full for a while, where root may mount a small one. One agent and half of the monitors reach
the broker over a slow link, and connections over it are lost again and again. The machine of one agent sleeps now and
then, and its monotonic clock with it. A fourth agent, which root makes an ordinary user's and nothing else hurts, is
refused processes now and then.

Then everything is mended and drained, and what is left is judged. It exits with 1, and keeps its folder, unless nothing
was lost, done twice, holed, run twice at once, run beyond its lease, counted where a machine refused it, or left
behind. The seed draws the jobs, who is hurt, how and for how long; the rest is the machine's. However it ends, it ends
every process that it began.
"""

from __future__ import annotations

import argparse
import heapq
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Wakeup
from types import MappingProxyType
from typing import Final

import anyio

from tests.acceptance import bounded
from tests.acceptance.chaos_disk import RESERVE_MIB, SmallDisk
from tests.acceptance.chaos_judge import Cluster, Findings, drain, judge
from tests.acceptance.chaos_machines import Scarcity, Suspension
from tests.acceptance.chaos_processes import (
    Victim,
    airunner_processes,
    command_of,
    job_processes,
    kill,
    run_in_folder,
    two_at_once,
)
from tests.acceptance.chaos_users import CLIENT_KINDS, STOP, accepted, diaries
from tests.acceptance.running import airunner
from tests.acceptance.slowlink import SlowLink
from tests.simulation.history import Killed, Record, Started, wall_ms

AGENTS: Final = 3
SLEEPER: Final = 1  # of these
CLIENTS: Final = 8
MONITORS: Final = 4
VISIBILITY_S: Final = 5
TICK_S: Final = 1.0
LOOK_S: Final = 0.25
RESTART_S: Final = (0.0, 3.0)
STOPPED_S: Final = (0.5, 8.0)
FULL_S: Final = (0.5, 4.0)
FULL_SHARE: Final = 0.3
ASLEEP_S: Final = (4.0, 9.0)
AWAKE_S: Final = (2.0, 8.0)
SCARCE_S: Final = (1.0, 4.0)
PLENTY_S: Final = (3.0, 8.0)
RETRY_S: Final = (0.5, 1.0)  # where what was to be hurt, or to have felt it, is not there yet
ALL_SEEN_S: Final = 90.0  # in a run as long as this every fault has been seen
SLOW_BYTES_A_S: Final = 100_000.0
CUT_BYTES: Final = 200_000
NO_START: Final = "exited with 2"
NO_SPACE: Final = ("No space left on device", "make room")
DRAIN_S: Final = 180.0
SWEEP_S: Final = 15.0  # for what killed agents' keepers end
TELL_S: Final = 5.0


class Chaos:
    """The cluster, and what is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.findings = Findings()
        self._seed = seed
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(10**9))
        self._agents: list[Victim] = []
        self._scarce: list[Victim] = []
        self._users: list[Victim] = []
        self._brokers: list[Victim] = []
        self._twice: dict[str, list[int]] = {}
        self._endpoint = ""
        self._told_s = time.monotonic()
        self._disk = SmallDisk(self.home)
        self._full = False
        self._link: SlowLink | None = None
        self._seconds = 0.0
        self._begun_ms = wall_ms()
        self._deaths: list[Record] = []
        self._suspension = Suspension(folder, self.home, VISIBILITY_S)
        self._scarcity = Scarcity(self.home)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.folder, self.home, self._endpoint, self._begun_ms, VISIBILITY_S * 1_000)

    def start(self) -> None:
        """Everything; who is there before its broker waits for it."""
        airunner(self.home, "certs", "init")
        requests, events, http = _free_ports()
        self._endpoint = f"tcp://127.0.0.1:{requests}"
        self._link = SlowLink(self._endpoint, SLOW_BYTES_A_S, CUT_BYTES)
        if self._disk.why_not:
            _print(self._disk.why_not)
        listen = ["--listen", self._endpoint, "--events", f"tcp://127.0.0.1:{events}"]
        doors = [*listen, "--http", f"127.0.0.1:{http}", "--reserve-mib", str(RESERVE_MIB)]
        self._start(self._brokers, "broker", ["airunner", "broker", *doors])
        agent = ["agent", "--spawn", "2", "--visibility-timeout", str(VISIBILITY_S), "--cancel-grace", "1", "--name"]
        for number in range(AGENTS):
            name = f"agent-{number}"
            module = self._suspension.module if number == SLEEPER else ["airunner"]
            self._start(self._agents, name, [*module, *agent, name], slow=number == 0)
        if self._scarcity.why_not:
            _print(f"no machine refuses processes here: {self._scarcity.why_not}")
        else:
            self.folder.chmod(0o711)
            self._scarcity.prepare()
            self._start(self._scarce, "scarce", [bounded.MODULE, *agent, "scarce"], more=self._scarcity.variables)
        kinds = [*CLIENT_KINDS * (CLIENTS // 2), *["monitor"] * MONITORS]
        for number, kind in enumerate(kinds):
            name = f"{kind}-{number}"
            user = ["tests.acceptance.chaos_users", kind, name, str(self.folder), str(self._seed)]
            self._start(self._users, name, user, slow=kind == "monitor" and number % 2 == 0)

    def rage(self, seconds: float) -> None:
        """Hurt one of them each second."""
        begun_s = time.monotonic()
        self._seconds = seconds
        self._fall_asleep()
        if self._scarce:
            self._take_processes()
        hurt_s = begun_s + TICK_S
        while (now_s := time.monotonic()) < begun_s + seconds:
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2]()
            self._raise_the_dead()
            if now_s >= hurt_s:
                hurt_s += TICK_S
                self._hurt(now_s)
            awake = [one for one in job_processes(self.home) if one.pid not in self._suspension.asleep]
            self._twice = two_at_once(awake) | self._twice
            jobs = sum(len(accepted(records)) for records in diaries(self.folder, *CLIENT_KINDS))
            self._tell(f"{now_s - begun_s:.0f} of {seconds:g} s, {jobs} jobs accepted, {self._hurts}")
            Wakeup().wait(LOOK_S)

    def drain(self) -> None:
        """Mend everything, let the clients and monitors finish, and wait for what they asked for."""
        _print("mending and draining")
        deadline_s = time.monotonic() + DRAIN_S
        self._give_room()
        self._scarcity.end()
        self._wake()
        for victim in self._all:
            victim.mend()
        (self.folder / STOP).touch()
        anyio.run(self._drain, DRAIN_S)
        for user in self._users:
            self._note(user.ended(deadline_s - time.monotonic()))
        anyio.run(self._drain, max(0.0, deadline_s - time.monotonic()))  # what those asked at last
        self._raise_the_dead()

    async def _drain(self, within_s: float) -> None:
        """One that began while the disk was full may yet find out."""
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
        """Look at all that is left, while the broker is there and then without it."""
        anyio.run(judge, self.cluster, self._deaths, self.findings)
        self.findings.add("run twice at once", [f"{job_id}: attempts {both}" for job_id, both in self._twice.items()])
        for victim in [*self._agents, *self._scarce, *self._brokers]:
            self._note(victim.terminate())
        left = [f"{one.pid} {one.command} of {one.job_id}" for one in job_processes(self.home)]
        self.findings.add("processes left behind", left)
        _until(lambda: not airunner_processes(self.home))  # commands of clients that were killed may yet run
        own = [command_of(pid) for pid in airunner_processes(self.home)]
        self.findings.add("processes left behind", own)
        self.findings.note(self._hurts)
        self._judge_faults()

    def _judge_faults(self) -> None:
        """That they have happened, where the run was long enough for them to."""
        refusals, outslept = self.findings.refusals, self._suspension.outslept
        self.findings.note(f"{refusals} attempts refused by a machine, {outslept} leases that were slept past")
        if self._seconds >= ALL_SEEN_S:
            never = [] if refusals or self._scarcity.why_not else ["a machine that refuses"]
            never += [] if outslept else ["a lease that ran out in a sleep"]
            self.findings.add("faults never seen", never)

    def end(self) -> None:
        """SIGKILL to whatever still runs; the disk is kept where something was found."""
        self._suspension.end()
        for victim in self._all:
            victim.end()
        _until(lambda: not job_processes(self.home))  # that is their keepers' work
        for pid in [*airunner_processes(self.home), *(process.pid for process in job_processes(self.home))]:
            kill(pid)
        if self._link is not None:
            self._link.close()
        self._disk.close(keep=not self.findings.clean)

    @property
    def _all(self) -> list[Victim]:
        return [*self._brokers, *self._agents, *self._scarce, *self._users]

    @property
    def _hurts(self) -> str:
        kills, stops = (sum(one) for one in zip(*((victim.kills, victim.stops) for victim in self._all), strict=True))
        lost = 0 if self._link is None else self._link.lost
        hurts = f"{kills} kills, {stops} stops, {self._disk.fills} full disks, {lost} lost connections"
        return f"{hurts}, {self._suspension.sleeps} sleeps, {self._scarcity.times} times without processes"

    def _start(
        self,
        among: list[Victim],
        name: str,
        arguments: list[str],
        more: Mapping[str, str] = MappingProxyType({}),
        *,
        slow: bool = False,
    ) -> None:
        endpoint = self._link.endpoint if slow and self._link is not None else self._endpoint
        among.append(Victim(name, arguments, self.home, {"AIRUNNER_BROKER": endpoint, **more}))

    def _hurt(self, now_s: float) -> None:
        whole = [victim for victim in self._all if victim.whole and victim not in self._scarce]
        if not whole:
            return
        victim = self._random.choice(whole)
        fate = self._random.random()
        if fate < FULL_SHARE and not self._disk.why_not and not self._full and all(one.alive for one in self._all):
            self._full = True
            self._disk.fill()
            self._later(now_s + self._random.uniform(*FULL_S), self._give_room)
        elif fate < 0.5:
            victim.kill()
            self._note_death(victim, "kill")
            self._later(now_s + self._random.uniform(*RESTART_S), victim.mend)
        else:
            victim.stop()
            self._later(now_s + self._random.uniform(*STOPPED_S), victim.mend)

    def _fall_asleep(self) -> None:
        """Suspend the sleeper's machine while it has a job and nothing else has befallen it; and again, later."""
        sleeper = self._agents[SLEEPER]
        if sleeper.whole and self._suspension.begin(sleeper):
            self._soon(ASLEEP_S, self._wake)
        else:
            self._soon(RETRY_S, self._fall_asleep)

    def _wake(self) -> None:
        self.findings.add("outlived their lease", self._suspension.end())
        self._soon(AWAKE_S, self._fall_asleep)

    def _take_processes(self) -> None:
        (agent,) = self._scarce
        if self._scarcity.begin(agent):
            self._soon(SCARCE_S, self._give_processes)
        else:
            self._soon(RETRY_S, self._take_processes)

    def _give_processes(self) -> None:
        """Once they were missed."""
        if not self._scarcity.felt:
            self._soon(RETRY_S, self._give_processes)
            return
        self._scarcity.end()
        self._soon(PLENTY_S, self._take_processes)

    def _give_room(self) -> None:
        self._full = False
        self._disk.empty()

    def _raise_the_dead(self) -> None:
        """As their supervisor would; that it has to is a finding, but for one that said that the disk is full."""
        done = self._users if (self.folder / STOP).exists() else []
        for victim in self._all:
            if victim not in done and (died := victim.died()):
                if not (self._disk.fills and NO_START in died and any(words in died for words in NO_SPACE)):
                    self._note(died)
                self._note_death(victim, died)
                victim.mend()

    def _note_death(self, victim: Victim, why: str) -> None:
        """For the history; a broker is started again, and not before that."""
        self._deaths.append(Killed(at_ms=wall_ms(), machine=victim.name, why=why))
        if victim in self._brokers:
            self._deaths.append(Started(at_ms=wall_ms(), machine=victim.name, broker=True))

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
            _print(line)


def _free_ports() -> list[int]:
    """Three at once, so that they differ."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        probes = (one, two, three)
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SWEEP_S
    while not done() and time.monotonic() < deadline_s:
        Wakeup().wait(LOOK_S)


def _print(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    _print(f"chaos of {given.seconds:g} s, seed {given.seed}")

    def run(folder: Path, ends: ExitStack) -> bool:
        chaos = Chaos(folder, given.seed)
        ends.callback(chaos.end)
        chaos.start()
        chaos.rage(given.seconds)
        chaos.drain()
        chaos.judge()
        for line in chaos.findings.lines():
            _print(line)
        return chaos.findings.clean

    return run_in_folder("chaos", run)


if __name__ == "__main__":
    sys.exit(main())
