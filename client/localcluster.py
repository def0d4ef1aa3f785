"""Local cluster of a home, which `airunner up` starts: its lock, which names who holds it, and its log."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = "cluster"
_FLOCK: Final = "hhqqi"  # struct flock of fcntl(2): type, whence, start, length, process


class Running(NamedTuple):
    """Running cluster: its supervisor's process id, the broker's endpoint, and the web server's URL, if it has one."""

    pid: int
    broker: str
    web: str = ""


class State:
    """State of a home's cluster on the disk; the supervisor holds the lock for as long as it lives."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / FOLDER
        self.lock = self.folder / "lock"
        self.log = self.folder / "log"

    def running(self) -> Running | None:
        """Find the running cluster; None: none runs. Nobody who looks holds the lock, so looking disturbs no start."""
        try:
            with self.lock.open("rb") as lock:
                asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                held, *_, pid = struct.unpack_from(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
                if held == fcntl.F_UNLCK:
                    return None
                named = json.loads(lock.read())
                return Running(pid, named["broker"], named.get("web", ""))
        except (OSError, ValueError, KeyError):
            return None
