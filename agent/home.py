"""Agent home: the folder of one agent process, which locks it, and ends processes that a killed agent has left.

```
$AIRUNNER_HOME/agent/
├── 1/            the first agent of this home
│   ├── lock      locked by the agent; the kernel unlocks it when the agent dies
│   ├── running   locked while the agent, its launcher or a keeper lives
│   ├── mark      random part of the AIRUNNER_MARK in the environment of each job's processes, see `launcher.mark`
│   ├── groups    the control groups that launchers of this home have made, one path per line
│   ├── spool/    one file for each attempt
│   └── blobs/, caches/, mirrors/, workspaces/
└── 2/            a second agent that runs at the same time
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

AGENTS_MAX: Final = 64  # agents that use one AIRUNNER_HOME at the same time; --spawn gives an agent more slots
KEEPERS_S: Final = 5.0  # wait for a killed agent's keepers to end the agent's jobs; only a stopped keeper takes longer
MARK_FILE: Final = "mark"
END_S: Final = 10.0  # wait for processes to die of SIGKILL; only those that hang in the kernel take longer


class LockedHome(Struct, frozen=True):
    """Locked home: `descriptor` holds the lock of `folder`; launcher and keepers inherit the descriptor `running`.

    The AIRUNNER_MARK of jobs' processes starts with `mark`; launchers list their control groups in the file `groups`.
    `ended` names the processes of the previous agent's jobs that were still running and were ended here.
    """

    number: int
    folder: Path
    descriptor: int
    running: int
    mark: str
    groups: Path
    ended: str


def lock_home(agents: Path) -> LockedHome:
    """Lock the first agent home that is free, and end the processes that its last agent's jobs have left.

    Raises `OperatorError`: a folder cannot be used, all homes are locked, or a process cannot be ended.
    """
    for number in range(1, AGENTS_MAX + 1):
        folder = agents / str(number)
        try:
            make_folder(folder)
            descriptor = _open(folder / "lock")
            running = _open(folder / "running")
        except OSError as error:
            raise OperatorError(
                f"cannot use {folder}: {error.strerror}; set AIRUNNER_HOME to a folder that you can write"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            os.close(running)
            continue
        fresh = not (folder / MARK_FILE).exists()  # no process can have a mark that is made only now
        mark, groups = _mark(folder / MARK_FILE), folder / "groups"
        keepers = Thread(target=fcntl.flock, args=(running, fcntl.LOCK_EX), daemon=True)
        keepers.start()
        keepers.join(KEEPERS_S)
        ended = "" if fresh else _end_left(mark, groups)
        keepers.join(END_S)
        if keepers.is_alive():
            raise OperatorError(f"a process of the last agent still holds {folder / 'running'}: end it, see fuser(1)")
        make_folder(folder / SPOOL_FOLDER)
        return LockedHome(number, folder, descriptor, running, mark, groups, ended)
    raise OperatorError(f"{AGENTS_MAX} agents already use {agents}: start fewer agents, with more slots (--spawn)")


def _end_left(mark: str, groups: Path) -> str:
    """End the processes that a killed agent's jobs and keepers have left, and return their names.

    Raises `OperatorError`: a process still runs after SIGKILL.
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
            f"these processes of the last agent's jobs still run after SIGKILL: {commands_of(left)}; "
            "end them before you start another agent in this home"
        )
    return named


def _mark(path: Path) -> str:
    """Read the mark of this home, or make a new mark.

    The mark contains the file's inode number, so a copy of the home has another mark, and an agent in the copy ends no
    process of this home. Raises `OperatorError`.
    """
    try:
        with os.fdopen(_open(path), "r+") as file:
            drawn = file.read().strip()
            if not drawn:
                drawn = new_home_mark()
                file.write(drawn)
            return f"{drawn}-{os.fstat(file.fileno()).st_ino:x}"
    except OSError as error:
        raise OperatorError(f"cannot use {path}: {error.strerror}; make it readable and writable for you") from error


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
