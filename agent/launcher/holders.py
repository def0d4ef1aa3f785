"""Pipe holders: processes that hold the other end of a pipe or terminal open. Linux only."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from airunner.agent.launcher.child.tree import command_of, name_of, process_ids
from airunner.agent.launcher.contract import Holder

HOLDERS_MAX: Final = 100
_TIOCGPTN: Final = 0x80045430  # ioctl_tty(2): the number of a master's terminal


def holders_of(descriptors: list[int]) -> list[Holder]:
    """List the other processes that hold the other end of any of these open; another user's cannot be seen."""
    wanted = {_other_end(descriptor) for descriptor in descriptors}
    found: list[Holder] = []
    for pid in process_ids():
        if pid != os.getpid() and wanted.intersection(_open_files(pid)):
            found.append(Holder(pid, command_of(pid) or name_of(pid)))
            if len(found) == HOLDERS_MAX:
                break
    return found


def _other_end(descriptor: int) -> str:
    """Return the other end's name, as a link in /proc/PID/fd has it."""
    if os.isatty(descriptor):
        (number,) = struct.unpack("I", fcntl.ioctl(descriptor, _TIOCGPTN, bytes(4)))
        return f"/dev/pts/{number}"
    return f"pipe:[{os.fstat(descriptor).st_ino}]"


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):  # it has ended, or is another user's
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield str(link.readlink())
