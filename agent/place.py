"""The agent's own folder, locked by one process.

```
$AIRUNNER_HOME/agent/
├── 1/            the first agent of this home
│   ├── lock      held as long as the agent lives; the kernel lets go of it when the agent dies
│   ├── running   held as long as the launcher or a keeper of a job lives, however the agent died
│   ├── spool/    one file an attempt
│   └── workspaces/
└── 2/            a second agent started beside it
```
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.slot import SPOOL_FOLDER
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

AGENTS_MAX: Final = 64  # processes on one home; use --spawn for more slots


class Place(Struct, frozen=True):
    """The folder that is ours while `descriptor` is open; `running` is for the launcher to hold."""

    number: int
    folder: Path
    descriptor: int
    running: int


def take_place(agents: Path) -> Place:
    """The first folder that no living agent holds, once nothing runs any more of the last that did.

    Raises `OperatorError`.
    """
    for number in range(1, AGENTS_MAX + 1):
        folder = agents / str(number)
        try:
            make_folder(folder)
            descriptor = _open(folder / "lock")
            running = _open(folder / "running")
        except OSError as error:
            raise OperatorError(
                f"cannot use {folder}: {error.strerror}; set AIRUNNER_HOME to a folder of yours"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            os.close(running)
            continue
        fcntl.flock(running, fcntl.LOCK_EX)  # a killed agent's keepers take a moment to end its jobs
        make_folder(folder / SPOOL_FOLDER)
        return Place(number, folder, descriptor, running)
    raise OperatorError(f"{AGENTS_MAX} agents run on {agents} already; give one more slots with --spawn")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
