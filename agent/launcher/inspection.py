"""Inspection of running jobs in /proc: their processes and memory, and which processes hold their pipes open.

Runs in the agent, on Linux. Only root can see which files another user's process has open.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from airunner.agent.launcher.child.tree import command_of, descendants, name_of, process_ids, status_of
from airunner.agent.launcher.contract import Holder, Vitals

HOLDERS_MAX: Final = 100  # most processes that `holders_of` lists
_TIOCGPTN: Final = 0x80045430  # ioctl_tty(2): the N in /dev/pts/N, by the descriptor of its master


def vitals_of(command: int) -> Vitals | None:
    """Count the living descendants of the keeper of process `command`, and their memory; None: no such process."""
    status = status_of(command)
    if status is None:
        return None
    alive = [process.pid for process in descendants(status.parent) if process.alive]
    return Vitals(len(alive), sum(map(_resident_bytes, alive)))


def holders_of(descriptors: list[int]) -> list[Holder]:
    """List the processes, except the agent, that hold the other end of any of these pipes or terminals open."""
    wanted = {_other_end(descriptor) for descriptor in descriptors}
    found: list[Holder] = []
    for pid in process_ids():
        if pid != os.getpid() and wanted.intersection(_open_files(pid)):
            found.append(Holder(pid, command_of(pid) or name_of(pid)))
            if len(found) == HOLDERS_MAX:
                break
    return found


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _other_end(descriptor: int) -> str:
    """Return the name of the other end in the links of /proc/PID/fd."""
    if os.isatty(descriptor):
        (number,) = struct.unpack("I", fcntl.ioctl(descriptor, _TIOCGPTN, bytes(4)))
        return f"/dev/pts/{number}"
    return f"pipe:[{os.fstat(descriptor).st_ino}]"


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):  # the process has ended, or is another user's
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # the file was closed meanwhile
                yield str(link.readlink())
