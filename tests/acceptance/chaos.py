"""Real processes, really killed: `python -m tests.acceptance.chaos --seconds 120 [--seed N]`.

A broker, three agents, eight clients and four monitors work; every second a random one of them gets SIGKILL, and is
started again a moment later, or SIGSTOP, and SIGCONT after a while that may be longer than its leases. Then
everything is mended and drained, and what is left is judged. It exits with 1, and keeps its folder, unless nothing
was lost, finished twice, holed, run twice at once or left behind.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event as Wakeup
from typing import Final

import anyio

from tests.acceptance.chaos_judge import Findings, JobProcess, job_processes, judge
from tests.acceptance.chaos_users import STOP, Journal, journals
from tests.acceptance.running import environment

AGENTS: Final = 3
CLIENTS: Final = 8
MONITORS: Final = 4
VISIBILITY_S: Final = 5
TICK_S: Final = 1.0
RESTART_S_MAX: Final = 3.0
STOPPED_S: Final = (0.5, 8.0)
DRAIN_S: Final = 180.0
END_S: Final = 30.0
TELL_EVERY: Final = 5  # ticks


class Victim:
    """One process of the cluster, and how it is started again."""

    def __init__(self, name: str, arguments: list[str], home: Path, more: dict[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self._environ = environment(home, more)
        self._log = home / f"{name}.log"
        self.stopped = False
        self.kills = 0
        self.stops = 0
        self._process = self._start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self.kills += 1
        self._process.kill()
        self._process.wait()
        self.stopped = False

    def restart(self) -> None:
        if not self.alive:
            self._process = self._start()

    def stop(self) -> None:
        self.stops += 1
        self.stopped = True
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        if self.stopped and self.alive:
            self._process.send_signal(signal.SIGCONT)
        self.stopped = False

    def end(self) -> None:
        """As an operator would."""
        self.wake()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *self._arguments],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver
            )


class Chaos:
    """The cluster, and what is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._home = folder / "home"
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(10**9))
        self.twice: set[str] = set()
        subprocess.run(
            [sys.executable, "-m", "airunner", "certs", "init"],
            env=environment(self._home),
            check=True,
            capture_output=True,
        )
        self.broker_endpoint = f"tcp://127.0.0.1:{_free_port()}"
        self.environ = {"AIRUNNER_BROKER": self.broker_endpoint}
        doors = ["--listen", self.broker_endpoint, "--events", f"tcp://127.0.0.1:{_free_port()}"]
        self.broker = self._victim("broker", ["airunner", "broker", *doors, "--http", f"127.0.0.1:{_free_port()}"])
        agent = ["airunner", "agent", "--spawn", "2", "--visibility-timeout", str(VISIBILITY_S), "--cancel-grace", "1"]
        self.agents = [self._victim(f"agent-{n}", [*agent, "--name", f"agent-{n}"]) for n in range(AGENTS)]
        users = "tests.acceptance.chaos_users"
        kinds = ["client", "shell"]
        self.users = [
            *(self._victim(f"client-{n}", [users, kinds[n % 2], f"client-{n}", str(folder)]) for n in range(CLIENTS)),
            *(self._victim(f"monitor-{n}", [users, "monitor", f"monitor-{n}", str(folder)]) for n in range(MONITORS)),
        ]

    @property
    def victims(self) -> list[Victim]:
        return [self.broker, *self.agents, *self.users]

    def rage(self, seconds: float) -> None:
        """Hurt one of them each second."""
        begun_s = time.monotonic()
        ticks = 0
        while (now_s := time.monotonic()) - begun_s < seconds:
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2]()
            self._hurt(self._random.choice(self.victims), now_s)
            self._look_for_two()
            ticks += 1
            if ticks % TELL_EVERY == 0:
                _tell(
                    f"{now_s - begun_s:.0f} of {seconds:.0f} s, {len(self.accepted())} jobs accepted, {self._hurts()}"
                )
            Wakeup().wait(TICK_S)

    def heal(self) -> None:
        """All are awake and run; clients and monitors end by themselves."""
        self._due.clear()
        for victim in self.victims:
            victim.wake()
            victim.restart()
        (self.folder / STOP).touch()

    def end(self) -> list[JobProcess]:
        """Stop everything; what is left of jobs."""
        for victim in [*self.users, *self.agents, self.broker]:
            victim.end()
        return job_processes(self._home)

    def accepted(self) -> list[str]:
        """Every job that a client was told of."""
        return [job for path in sorted(journals(self.folder)) for job in Journal(path).accepted()]

    def _victim(self, name: str, arguments: list[str]) -> Victim:
        return Victim(name, arguments, self._home, self.environ)

    def _hurt(self, victim: Victim, now_s: float) -> None:
        if not victim.alive or victim.stopped:
            return
        if self._random.random() < 0.5:
            victim.kill()
            self._later(now_s + self._random.random() * RESTART_S_MAX, victim.restart)
        else:
            victim.stop()
            self._later(now_s + self._random.uniform(*STOPPED_S), victim.wake)

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), act))

    def _look_for_two(self) -> None:
        """Two attempts of one job that live at the same instant; one that died between two looks is none."""
        by_job: dict[str, dict[int, JobProcess]] = {}
        for process in job_processes(self._home):
            by_job.setdefault(process.job_id, {})[process.attempt] = process
        for job_id, attempts in by_job.items():
            if len(attempts) > 1 and all(process.alive for process in [*attempts.values(), *attempts.values()]):
                self.twice.add(f"{job_id}: attempts {sorted(attempts)}")

    def _hurts(self) -> str:
        kills = sum(victim.kills for victim in self.victims)
        return f"{kills} kills, {sum(victim.stops for victim in self.victims)} stops"


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tell(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    _tell(f"chaos of {given.seconds:g} s, seed {given.seed} (it draws who is hurt and when; the rest is the machine's)")
    folder = Path(tempfile.mkdtemp(prefix="airunner-chaos-"))
    chaos = Chaos(folder, given.seed)
    findings: Findings | None = None
    try:
        chaos.rage(given.seconds)
        _tell("healing and draining")
        chaos.heal()
        os.environ.update(environment(folder / "home", chaos.environ))
        findings = anyio.run(judge, folder, chaos.accepted(), DRAIN_S)
    finally:
        left = chaos.end()
    findings.add("run twice at once", chaos.twice)
    findings.add("processes left behind", [str(process) for process in left])
    for process in left:
        process.kill()
    for line in findings.lines():
        _tell(line)
    if findings.clean:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    _tell(f"what was found is in {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
