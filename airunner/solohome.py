"""Temporary folders of `airunner run`: the agent's files for one job, removed afterwards.

```
$TMPDIR/airunner-run-<16 hex digits>/   0700
├── lock                                locked while its `airunner run` lives; the kernel unlocks it
└── agent/                              spool and workspace
```

An `airunner run` that was killed with SIGKILL leaves its folder, and the next `airunner run` of the same user removes
it. A folder that is locked, has another name or owner, or has no lock is not touched.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Final

from airunner.protocol.errors import OperatorError

LAST_S: Final = 5.0  # seconds to wait for the end of a killed agent's processes; one that hangs in the kernel stays
AGENT: Final = "agent"  # name of the agent's folder
_NAME: Final = re.compile("airunner-run-[0-9a-f]{16}")
_LOCK: Final = "lock"
_LOCK_TO_BE: Final = "lock.new"


@contextmanager
def temporary_home() -> Generator[Path]:
    """Make a temporary folder and remove it afterwards; folders left by killed runs of this user are removed first."""
    # Ctrl-C may come after any step, so the folder is named before it is made. `tempfile` is not used: it tests a
    # folder with a file that an interrupt would leave there.
    temporary = Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 - the folder made there is 0700
    _sweep(temporary)
    home = temporary / f"airunner-run-{secrets.token_hex(8)}"
    lock: int | None = None
    try:
        _make(home)
        lock = os.open(home / _LOCK_TO_BE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (home / _LOCK_TO_BE).rename(home / _LOCK)  # a file of this name is locked from the start
        yield home
    finally:
        _remove(home)
        if lock is not None:
            os.close(lock)


def _make(home: Path) -> None:
    try:
        home.mkdir(0o700)
    except OSError as error:
        raise OperatorError(
            f"cannot make a folder in {home.parent}: {error.strerror}; set TMPDIR to a folder that you may write"
        ) from error


def _sweep(temporary: Path) -> None:
    """Remove the folders of killed runs."""
    with suppress(OSError):
        for folder in temporary.iterdir():
            if _NAME.fullmatch(folder.name):
                with suppress(OSError):
                    _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of a killed run. Raises `OSError`: the folder cannot be examined, or its run still lives."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(lock)


def _remove(home: Path) -> None:
    agents = home / AGENT
    if agents.is_dir():
        clearing = Thread(target=_clear, args=(agents,), daemon=True)
        clearing.start()
        clearing.join(LAST_S)
    shutil.rmtree(home, ignore_errors=True)


def _clear(agents: Path) -> None:
    """End the processes of a killed agent, and remove its workspaces."""
    from airunner.agent.home import lock_home
    from airunner.agent.workspace.shortpaths import bases_of
    from airunner.agent.workspace.workspace import remove_workspaces

    with suppress(OperatorError):  # a process that hangs in the kernel stays
        remove_workspaces(lock_home(agents).folder, bases_of(os.environ))
