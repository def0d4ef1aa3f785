"""`python -m tests.acceptance.suspending FILE …` is airunner on a machine that can be suspended.

FILE holds the seconds that it has slept. The machine that tests run on cannot be suspended, and a time namespace takes
its offsets before the first process is in it. So all processes are stopped for the time of the sleep, and the
monotonic clock, which stands still in a sleep, is behind the kernel's by FILE in this process, its launcher and its
keepers. CLOCK_BOOTTIME and the kernel's timers are as they are.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from inspect import getsource
from typing import Final

MODULE: Final = "tests.acceptance.suspending"
SECONDS: Final = struct.Struct("d")


def stand_still(path: str) -> None:
    """Put the monotonic clock of this process behind; its text also runs in the launcher, before anything else."""
    with open(path, "rb") as file:  # noqa: PTH123 - a launcher imports no more than it needs
        slept = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    monotonic, gettime = time.monotonic, time.clock_gettime

    def slept_s() -> float:
        return float(struct.unpack_from("d", slept)[0])

    vars(time).update(
        monotonic=lambda: monotonic() - slept_s(),
        monotonic_ns=lambda: int((monotonic() - slept_s()) * 1e9),
        clock_gettime=lambda clock: gettime(clock) - (slept_s() if clock == time.CLOCK_MONOTONIC else 0.0),
    )


def main() -> None:
    path = sys.argv.pop(1)
    stand_still(path)
    from airunner.__main__ import main as airunner
    from airunner.agent.launcher import launcherprocess

    clock = f"import mmap, struct, time\n{getsource(stand_still)}stand_still({path!r})\n"
    vars(launcherprocess)["_BOOTSTRAP"] = clock + vars(launcherprocess)["_BOOTSTRAP"]
    airunner()


if __name__ == "__main__":
    main()
