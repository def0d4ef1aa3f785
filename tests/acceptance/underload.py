"""Fleet under load: two brokers on one store, two agents, four clients and two monitors, while something is done to it.

Afterwards everything is drained and judged, as in `chaos`.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event as Wakeup
from typing import Final

import anyio

from tests.acceptance.brokers import make_homes
from tests.acceptance.chaos_judge import Cluster, Findings, drain, judge
from tests.acceptance.chaos_processes import Victim, airunner_processes, job_processes, kill
from tests.acceptance.chaos_users import CLIENT_KINDS, STOP, accepted, diaries
from tests.ports import free_ports
from tests.simulation.history import Killed, Record, wall_ms

BROKERS: Final = 2
AGENTS: Final = 2
USERS: Final = ("client", "client", "shell", "client", "monitor", "monitor")
VISIBILITY_S: Final = 5
WORK_JOBS: Final = 2  # that clients have to be told of before the next thing is done to the fleet
WORK_S_MAX: Final = 60.0
DRAIN_S: Final = 120.0
LOOK_S: Final = 0.1


class FleetUnderLoad:
    """Brokers on the store at a URL, agents and users."""

    def __init__(self, folder: Path, seed: int, url: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.findings = Findings()
        self.url = url
        self.brokers: list[Victim] = []
        self.endpoints: list[str] = []
        self.http = ""  # health page of the last broker
        self._seed = seed
        self._begun_ms = wall_ms()
        self._others: list[Victim] = []
        self._deaths: list[Record] = []

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.folder, self.home, " ".join(self.endpoints), self._begun_ms, VISIBILITY_S * 1_000)

    def start(self) -> None:
        """Start everything; agents and users wait for their brokers."""
        for number, home in enumerate(make_homes(self.home, BROKERS)):
            requests, events, http = free_ports()
            self.http = f"http://127.0.0.1:{http}/health"
            self.endpoints.append(f"tcp://127.0.0.1:{requests}")
            doors = ["--listen", self.endpoints[-1], "--events", f"tcp://127.0.0.1:{events}"]
            options = [*doors, "--http", f"127.0.0.1:{http}", "--store", self.url]
            self.brokers.append(Victim(f"broker-{number}", ["airunner", "broker", *options], home, {}))
        agent = ["agent", "--spawn", "2", "--visibility-timeout", str(VISIBILITY_S), "--cancel-grace", "1", "--name"]
        for number in range(AGENTS):
            self._begin(f"agent-{number}", ["airunner", *agent, f"agent-{number}"], number)
        for number, kind in enumerate(USERS):
            name = f"{kind}-{number}"
            user = ["tests.acceptance.chaos_users", kind, name, str(self.folder), str(self._seed)]
            self._begin(name, user, number)

    def _begin(self, name: str, arguments: list[str], number: int) -> None:
        """Start an agent or a user, which tries one broker first, and then the other."""
        order = self.endpoints[number % BROKERS :] + self.endpoints[: number % BROKERS]
        self._others.append(Victim(name, arguments, self.home, {"AIRUNNER_BROKER": " ".join(order)}))

    @property
    def accepted(self) -> int:
        """How many jobs clients were told of."""
        return sum(len(accepted(records)) for records in diaries(self.folder, *CLIENT_KINDS))

    def work(self, jobs: int) -> None:
        """Wait until clients were told of so many more jobs."""
        enough, deadline_s = self.accepted + jobs, time.monotonic() + WORK_S_MAX
        while self.accepted < enough:
            assert time.monotonic() < deadline_s, "clients are told of no further jobs"
            self.wait(LOOK_S)

    def wait(self, seconds: float) -> None:
        """Wait, and start processes that have ended, as their supervisor would."""
        Wakeup().wait(seconds)
        for victim in self.brokers:
            if died := victim.died():
                self.findings.note(died)  # taken for dead by the other, which is no fault
                self.bury(victim, died)

    def bury(self, broker: Victim, why: str) -> None:
        """Note that a broker has ended, and start it again."""
        self._deaths.append(Killed(at_ms=wall_ms(), machine="broker", why=why))
        broker.mend()

    def drain(self) -> None:
        """Let the clients and monitors finish, and wait for all jobs."""
        tell("draining")
        (self.folder / STOP).touch()
        deadline_s = time.monotonic() + DRAIN_S
        anyio.run(drain, self.cluster, DRAIN_S, tell)
        for victim in self._others[AGENTS:]:
            wrong = victim.ended(deadline_s - time.monotonic())
            self.findings.add("ended by themselves", [wrong] if wrong else [])
        anyio.run(drain, self.cluster, max(0.0, deadline_s - time.monotonic()), tell)

    def judge(self) -> bool:
        """Judge what is left; return whether that is as it has to be."""
        anyio.run(judge, self.cluster, self._deaths, self.findings)
        for victim in [*self._others[:AGENTS], *self.brokers]:
            wrong = victim.terminate()
            self.findings.add("ended by themselves", [wrong] if wrong else [])
        left = [f"{one.pid} {one.command} of {one.job_id}" for one in job_processes(self.home)]
        self.findings.add("processes left behind", left)
        for line in self.findings.lines():
            tell(line)
        return self.findings.clean

    def end(self) -> None:
        """Kill all that still runs."""
        for victim in [*self.brokers, *self._others]:
            victim.end()
        for pid in [*airunner_processes(self.home), *(process.pid for process in job_processes(self.home))]:
            kill(pid)


def tell(line: str) -> None:
    with suppress(ValueError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
