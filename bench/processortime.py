"""Processor time of a running process, such as a broker, and of its children."""

from __future__ import annotations

import time
from pathlib import Path


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that a process and its running children have used, threads included."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return sum(time.clock_gettime(_clock(each)) for each in pids)


def _clock(pid: int) -> int:
    """Return the clock that counts a process's processor time in ns: what C's `clock_getcpuclockid` returns."""
    return ~pid << 3 | 2
