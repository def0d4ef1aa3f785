"""Listening socket of a workspace, through which processes of a job reach their agent (`agent/jobsocket`).

It is made with the workspace, and kept with it: most short jobs have no use for it, and making one for each would take
as long as such a command. Its folder is the agent's, or the job's own user's; only this user and root can connect.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from airunner.agent.workspace.jobuser import JobUser

NAME: Final = "socket"
BACKLOG: Final = 64  # connections that wait; those of further processes wait in connect(2)
_MODE: Final = 0o600
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def listen(root: Path, user: JobUser | None) -> socket.socket | None:
    """Make the socket of the workspace `root`; None: this disk can hold none, so that its jobs have none."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        folder = os.open(root, _FOLDER)
        try:
            path = f"/proc/self/fd/{folder}/{NAME}"  # short enough for an address, wherever the agent's home is
            made.bind(path)
            Path(path).chmod(_MODE)
            if user is not None:
                os.chown(path, user.uid, user.gid)
        finally:
            os.close(folder)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        return None
    return made
