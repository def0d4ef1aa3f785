"""Failovers of PostgreSQL under load: `python -m tests.acceptance.failovers --failovers 20 [--asynchronous]`.

Two brokers share a primary, which has a standby; two agents, four clients and two monitors work. Again and again the
standby is parted from its primary, and a second later the primary is killed with all its processes, the standby takes
over, and what was the primary becomes its standby. Then everything is drained and judged, as in `chaos`.

With a synchronous standby nothing may be lost: neither what a client was told nor what a monitor was shown. With an
asynchronous one the brokers warn of it, and the judge has to find the loss: else it would find none at all. It exits
with 1, and keeps its folder, if that is not so.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event as Wakeup
from typing import Final
from urllib.request import urlopen

import anyio

from tests.acceptance.brokers import make_homes
from tests.acceptance.chaos_judge import Cluster, Findings, drain, judge
from tests.acceptance.chaos_processes import Victim, airunner_processes, job_processes, kill, run_in_folder
from tests.acceptance.chaos_users import CLIENT_KINDS, STOP, accepted, diaries
from tests.acceptance.running import environment, free_ports, run
from tests.postgresql.serving import VERSIONS
from tests.postgresql.standby import Pair, part
from tests.simulation.history import Killed, Record, wall_ms

BROKERS: Final = 2
AGENTS: Final = 2
USERS: Final = ("client", "client", "shell", "client", "monitor", "monitor")
VISIBILITY_S: Final = 5
PARTED_S: Final = 1.0  # without a standby, before the primary is killed
WORK_JOBS: Final = 2  # that clients have to be told of after a failover, before the next one
WORK_S_MAX: Final = 60.0
DRAIN_S: Final = 120.0
LOOK_S: Final = 0.1
WARNING: Final = "a standby is attached asynchronously"
UNSEEN: Final = "faults never seen"
GONE: Final = "was acknowledged and is gone"  # says the law that every job survives of which a client was told


class Failovers:
    """Servers, brokers, agents and users, and what is done to the servers."""

    def __init__(self, folder: Path, seed: int, pair: Pair) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.findings = Findings()
        self._seed = seed
        self._pair = pair
        self._url = pair.url(pair.primary.database())
        self._begun_ms = wall_ms()
        self._brokers: list[Victim] = []
        self._others: list[Victim] = []
        self._endpoints: list[str] = []
        self._http = ""
        self._deaths: list[Record] = []

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.folder, self.home, " ".join(self._endpoints), self._begun_ms, VISIBILITY_S * 1_000)

    def start(self) -> None:
        """Start everything; agents and users wait for their brokers."""
        for number, home in enumerate(make_homes(self.home, BROKERS)):
            requests, events, http = free_ports()
            self._http = f"http://127.0.0.1:{http}/health"
            self._endpoints.append(f"tcp://127.0.0.1:{requests}")
            doors = ["--listen", self._endpoints[-1], "--events", f"tcp://127.0.0.1:{events}"]
            options = [*doors, "--http", f"127.0.0.1:{http}", "--store", self._url]
            self._brokers.append(Victim(f"broker-{number}", ["airunner", "broker", *options], home, {}))
        agent = ["agent", "--spawn", "2", "--visibility-timeout", str(VISIBILITY_S), "--cancel-grace", "1", "--name"]
        for number in range(AGENTS):
            self._begin(f"agent-{number}", ["airunner", *agent, f"agent-{number}"], number)
        for number, kind in enumerate(USERS):
            name = f"{kind}-{number}"
            user = ["tests.acceptance.chaos_users", kind, name, str(self.folder), str(self._seed)]
            self._begin(name, user, number)

    def _begin(self, name: str, arguments: list[str], number: int) -> None:
        """Start an agent or a user, which tries one broker first, and then the other."""
        order = self._endpoints[number % BROKERS :] + self._endpoints[: number % BROKERS]
        self._others.append(Victim(name, arguments, self.home, {"AIRUNNER_BROKER": " ".join(order)}))

    def fail_over(self, failovers: int) -> None:
        """Let the standby take over, again and again, while clients are told of jobs."""
        for number in range(failovers):
            self._work(WORK_JOBS)
            if number == 0 and not self._pair.synchronous:
                self._require_warnings()
            part(self._pair.standby)
            if self._pair.synchronous:
                self._wait(PARTED_S)  # nothing is acknowledged meanwhile
            else:
                self._work(WORK_JOBS)  # which the standby has not got
            self._pair.fail_over()
            self._pair.mend()
            tell(f"{number + 1} of {failovers} failovers, {self._accepted} jobs accepted")
        self._work(WORK_JOBS)

    @property
    def _accepted(self) -> int:
        return sum(len(accepted(records)) for records in diaries(self.folder, *CLIENT_KINDS))

    def _work(self, jobs: int) -> None:
        """Wait until clients were told of so many more jobs."""
        enough, deadline_s = self._accepted + jobs, time.monotonic() + WORK_S_MAX
        while self._accepted < enough:
            assert time.monotonic() < deadline_s, "clients are told of no further jobs"
            self._wait(LOOK_S)

    def _wait(self, seconds: float) -> None:
        """Wait, and start processes that have ended, as their supervisor would."""
        Wakeup().wait(seconds)
        for victim in self._brokers:
            if died := victim.died():
                self.findings.note(died)  # taken for dead by the other, which is no fault
                self._deaths.append(Killed(at_ms=wall_ms(), machine="broker", why=died))
                victim.mend()

    def _require_warnings(self) -> None:
        """Require that operators are warned of an asynchronous standby in three places."""
        run(environment(self.home), "queues", "--broker", self._endpoints[-1], "--connect-timeout", f"{WORK_S_MAX}s")
        with urlopen(self._http) as answer:  # of a broker that has answered, and so has its pages
            seen = {"/health": answer.read().decode()}
        seen["doctor"] = run(environment(self.home), "doctor", "--store", self._url).stdout.decode()
        seen["log"] = (self.folder / "broker-0.log").read_text()
        self.findings.add(UNSEEN, [f"no warning: {place}" for place in seen if WARNING not in seen[place]])

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
        for victim in [*self._others[:AGENTS], *self._brokers]:
            wrong = victim.terminate()
            self.findings.add("ended by themselves", [wrong] if wrong else [])
        left = [f"{one.pid} {one.command} of {one.job_id}" for one in job_processes(self.home)]
        self.findings.add("processes left behind", left)
        for line in self.findings.lines():
            tell(line)
        return self.findings.clean if self._pair.synchronous else self._lost_as_warned()

    def _lost_as_warned(self) -> bool:
        """Check that the loss was found of which operators were warned."""
        return any(GONE in law for law in self.findings.found("laws broken")) and not self.findings.found(UNSEEN)

    def end(self) -> None:
        """Kill all that still runs."""
        for victim in [*self._brokers, *self._others]:
            victim.end()
        for pid in [*airunner_processes(self.home), *(process.pid for process in job_processes(self.home))]:
            kill(pid)


def tell(line: str) -> None:
    with suppress(ValueError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def main() -> int:
    """Run it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.failovers", description=__doc__)
    parser.add_argument("--failovers", type=int, default=20)
    parser.add_argument("--asynchronous", action="store_true")
    parser.add_argument("--version", type=int, choices=VERSIONS, default=VERSIONS[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()

    def judged(folder: Path, ends: ExitStack) -> bool:
        pair = Pair(given.version, folder, ends, synchronous=not given.asynchronous)
        failovers = Failovers(folder, given.seed, pair)
        ends.callback(failovers.end)
        failovers.start()
        failovers.fail_over(given.failovers)
        failovers.drain()
        return failovers.judge()

    return run_in_folder("failovers", judged)


if __name__ == "__main__":
    sys.exit(main())
