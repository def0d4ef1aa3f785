"""The agent's own folder, locked by one process.

```
$AIRUNNER_HOME/agent/
├── 1/            the first agent of this home
│   ├── lock      held as long as the agent lives; the kernel lets go of it when the agent dies
│   ├── spool/    one file an attempt
│   └── work/     one folder an attempt
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
    """The folder that is ours while `descriptor` is open."""

    number: int
    folder: Path
    descriptor: int


def take_place(agents: Path) -> Place:
    """The first folder that no living agent holds.

    Raises `OperatorError`.
    """
    for number in range(1, AGENTS_MAX + 1):
        folder = agents / str(number)
        try:
            make_folder(folder)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OperatorError(
                f"cannot use {folder}: {error.strerror}; set AIRUNNER_HOME to a folder of yours"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        make_folder(folder / SPOOL_FOLDER)
        return Place(number, folder, descriptor)
    raise OperatorError(f"{AGENTS_MAX} agents run on {agents} already; give one more slots with --spawn")
