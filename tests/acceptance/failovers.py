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
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from tests.acceptance.chaos_processes import run_in_folder
from tests.acceptance.running import environment, run
from tests.acceptance.underload import WORK_JOBS, WORK_S_MAX, FleetUnderLoad, tell
from tests.postgresql.serving import VERSIONS
from tests.postgresql.standby import Pair, part

PARTED_S: Final = 1.0  # without a standby, before the primary is killed
WARNING: Final = "a standby is attached asynchronously"
UNSEEN: Final = "faults never seen"
GONE: Final = "was acknowledged and is gone"  # says the law that every job survives of which a client was told


class Failovers(FleetUnderLoad):
    """Fleet on a primary and its standby, and what is done to these."""

    def __init__(self, folder: Path, seed: int, pair: Pair) -> None:
        super().__init__(folder, seed, pair.url(pair.primary.database()))
        self._pair = pair

    def fail_over(self, failovers: int) -> None:
        """Let the standby take over, again and again, while clients are told of jobs."""
        for number in range(failovers):
            self.work(WORK_JOBS)
            if number == 0 and not self._pair.synchronous:
                self._require_warnings()
            part(self._pair.standby)
            if self._pair.synchronous:
                self.wait(PARTED_S)  # nothing is acknowledged meanwhile
            else:
                self.work(WORK_JOBS)  # which the standby has not got
            self._pair.fail_over()
            self._pair.mend()
            tell(f"{number + 1} of {failovers} failovers, {self.accepted} jobs accepted")
        self.work(WORK_JOBS)

    def _require_warnings(self) -> None:
        """Require that operators are warned of an asynchronous standby in three places."""
        run(environment(self.home), "queues", "--broker", self.endpoints[-1], "--connect-timeout", f"{WORK_S_MAX}s")
        with urlopen(self.http) as answer:  # of a broker that has answered, and so has its pages
            seen = {"/health": answer.read().decode()}
        seen["doctor"] = run(environment(self.home), "doctor", "--store", self.url).stdout.decode()
        seen["log"] = (self.folder / "broker-0.log").read_text()
        self.findings.add(UNSEEN, [f"no warning: {place}" for place in seen if WARNING not in seen[place]])

    def judge(self) -> bool:
        """Judge what is left; return whether that is as it has to be."""
        clean = super().judge()
        return clean if self._pair.synchronous else self._lost_as_warned()

    def _lost_as_warned(self) -> bool:
        """Check that the loss was found of which operators were warned."""
        return any(GONE in law for law in self.findings.found("laws broken")) and not self.findings.found(UNSEEN)


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
