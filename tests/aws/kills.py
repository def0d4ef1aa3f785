"""SIGKILL of dynoxide and of brokers under load: `make aws-kills`.

Two brokers share a table, two agents, four clients and two monitors work. Again and again dynoxide is killed and
started again, every other time a broker, too. Then everything is drained and judged, as in `chaos`: nothing may be
lost or doubled of which a client was told or that a monitor was shown.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.acceptance.chaos_processes import run_in_folder
from tests.acceptance.underload import WORK_JOBS, FleetUnderLoad, tell
from tests.aws.serving import NO_ACCOUNT, Emulator, emulating


class Kills(FleetUnderLoad):
    """Fleet on a table of dynoxide, and what is killed."""

    def __init__(self, folder: Path, seed: int, emulator: Emulator) -> None:
        super().__init__(folder, seed, f"{emulator.store(emulator.create())}&sqs=none")
        self._emulator = emulator

    def kill(self, kills: int) -> None:
        """Kill dynoxide, and every other time a broker, while clients are told of jobs."""
        for number in range(kills):
            self.work(WORK_JOBS)
            self._emulator.kill()
            if number % 2:
                broker = self.brokers[number // 2 % len(self.brokers)]
                broker.kill()
                self.bury(broker, "killed")
            self._emulator.start()
            tell(f"{number + 1} of {kills} kills, {self.accepted} jobs accepted")
        self.work(WORK_JOBS)


def main() -> int:
    """Run it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.aws.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    os.environ.update(NO_ACCOUNT)

    def judged(folder: Path, ends: ExitStack) -> bool:
        emulator = ends.enter_context(emulating("dynoxide", folder / "dynoxide.log"))
        kills = Kills(folder, given.seed, emulator)
        ends.callback(kills.end)
        kills.start()
        kills.kill(given.kills)
        kills.drain()
        return kills.judge()

    return run_in_folder("kills", judged)


if __name__ == "__main__":
    sys.exit(main())
