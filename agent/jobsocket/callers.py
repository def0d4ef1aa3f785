"""Callers of a job's socket: which process is at the other end, by the kernel's word, and whether it may ask.

A process of the job descends from the job's keeper, also if its parents have ended: the keeper then is its parent
(`launcher/child`). Another job has another keeper. The user alone would not tell jobs of one user apart.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from airunner.agent.launcher.child.tree import status_of

ANCESTORS_MAX: Final = 1_024
LOOKS: Final = 5  # an ancestor that ends between two steps hides those above it: look again, now without it
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred, see unix(7)


def keeper_of(command: int) -> int | None:
    """Return the process id of the keeper that has started a command; None: the command is gone."""
    status = status_of(command)
    return None if status is None else status.parent


def refusal_of(connection: socket.socket, uid: int, keeper: int | None) -> str | None:
    """Return why the process at the other end may not ask; None: it may."""
    pid, caller, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if caller not in (0, uid):
        return "this process runs as another user than the job"
    if keeper is None or not any(_descends(pid, keeper) for _ in range(LOOKS)):
        return "this process is none of the job's"
    return None


def _descends(pid: int, ancestor: int) -> bool:
    for _ in range(ANCESTORS_MAX):
        status = status_of(pid)
        if status is None:
            return False
        pid = status.parent
        if pid == ancestor:
            return True
    return False
