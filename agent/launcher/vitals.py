"""Vitals of a running job: how many processes it has, and their memory. The agent's half."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from airunner.agent.launcher.child.tree import descendants, status_of
from airunner.agent.launcher.contract import Vitals


def vitals_of(command: int) -> Vitals | None:
    """Count the processes of this command's keeper, and their memory with shared pages; None: it is not seen."""
    status = status_of(command)
    if status is None:
        return None
    alive = [process.pid for process in descendants(status.parent) if process.alive]
    return Vitals(len(alive), sum(map(_resident_bytes, alive)))


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
