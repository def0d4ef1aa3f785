"""Agent home: the agent's own folder, locked by one process.

```
$AIRUNNER_HOME/agent/
├── 1/            the first agent of this home
│   ├── lock      held as long as the agent lives; the kernel lets go of it when the agent dies
│   ├── running   held as long as the launcher or a keeper of a job lives, however the agent died
│   ├── mark      borne by every process of a job, see `launcher.mark`
│   ├── groups    the control groups of its launchers
│   ├── spool/    one file an attempt
│   └── workspaces/
└── 2/            a second agent started beside it
```
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

from msgspec import Struct

from airunner.agent.launcher.child.cgroup import PREFIX, end_groups
from airunner.agent.launcher.mark import commands_of, end_marked, marked, new_home_mark
from airunner.agent.output.spool import SPOOL_FOLDER
from airunner.certs.secretfile import make_folder
from airunner.protocol.errors import OperatorError

AGENTS_MAX: Final = 64  # processes on one home; use --spawn for more slots
KEEPERS_S: Final = 5.0  # for the keepers of a killed agent to end its jobs: a moment, unless one is stopped
MARK_FILE: Final = "mark"
END_S: Final = 10.0  # for processes to die of SIGKILL; only those that hang in the kernel take longer


class LockedHome(Struct, frozen=True):
    """Locked home: the folder that is ours while `descriptor` is open; the launcher holds `running` open.

    Its jobs' processes carry the `mark`; launchers note their control groups in the file `groups`. `ended` names the
    processes of the last agent's jobs that still ran.
    """

    number: int
    folder: Path
    descriptor: int
    running: int
    mark: str
    groups: Path
    ended: str


def lock_home(agents: Path) -> LockedHome:
    """Lock the first home that no living agent holds, once no process of its last agent's jobs runs any more.

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
        fresh = not (folder / MARK_FILE).exists()  # nothing bears a mark that is drawn now
        mark, groups = _mark(folder / MARK_FILE), folder / "groups"
        keepers = Thread(target=fcntl.flock, args=(running, fcntl.LOCK_EX), daemon=True)
        keepers.start()
        keepers.join(KEEPERS_S)
        ended = "" if fresh else _end_left(mark, groups)
        keepers.join(END_S)
        if keepers.is_alive():
            raise OperatorError(f"something of the last agent's still holds {folder / 'running'}: end it, see fuser(1)")
        make_folder(folder / SPOOL_FOLDER)
        return LockedHome(number, folder, descriptor, running, mark, groups, ended)
    raise OperatorError(f"{AGENTS_MAX} agents run on {agents} already; give one more slots with --spawn")


def _end_left(mark: str, groups: Path) -> str:
    """End the processes that a killed agent's jobs and keepers have left, and return their names.

    Where its launcher and keepers were killed with it, nothing else has ended them.

    Raises `OperatorError`: they cannot be ended, and no other may run these jobs.
    """
    found = marked(mark)
    named = commands_of(found)
    left: list[int] = []
    with suppress(FileNotFoundError):
        for group in map(Path, groups.read_text().splitlines()):
            if group.name.startswith(PREFIX) and mark in group.name:
                left += end_groups(group, END_S)
        groups.unlink()
    left += end_marked(mark, END_S)
    if left:
        raise OperatorError(
            f"these of the last agent's jobs run on, though they were killed: {commands_of(left)}; "
            "end them before another agent is started in this home"
        )
    return named


def _mark(path: Path) -> str:
    """Read the mark of this home, or make one.

    The file's inode is part of it: a copy of the home has another mark, and ends none of this home's processes.

    Raises `OperatorError`.
    """
    try:
        with os.fdopen(_open(path), "r+") as file:
            drawn = file.read().strip()
            if not drawn:
                drawn = new_home_mark()
                file.write(drawn)
            return f"{drawn}-{os.fstat(file.fileno()).st_ino:x}"
    except OSError as error:
        raise OperatorError(f"cannot use {path}: {error.strerror}") from error


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
