"""Temporary folders of `airunner run`: the agent's files for one job, removed afterwards.

```
$TMPDIR/airunner-run-<16 hex digits>/   0700
├── lock                                held as long as its `airunner run` lives; the kernel lets go of it
└── agent/                              spool and workspace
```

An `airunner run` that was killed with SIGKILL leaves its folder: the next one of the same user removes it.
While its lock is held it lives; a folder of another name, of another user's, or without a lock is not touched.
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

LAST_S: Final = 5.0  # for what a killed agent ran; only what hangs in the kernel takes longer
_NAME: Final = re.compile("airunner-run-[0-9a-f]{16}")
_LOCK: Final = "lock"
_LOCK_TO_BE: Final = "lock.new"


@contextmanager
def temporary_home() -> Generator[Path]:
    """A folder that is removed afterwards; those that were left by killed runs of this user are removed first."""
    # Ctrl-C may come after any step: what is to be removed has its name before it is made. Not by `tempfile`: it tries
    # folders out with a file that it would then leave.
    temporary = Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 - what is made there is 0700
    _sweep(temporary)
    home = temporary / f"airunner-run-{secrets.token_hex(8)}"
    lock: int | None = None
    try:
        home.mkdir(0o700)
        lock = os.open(home / _LOCK_TO_BE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (home / _LOCK_TO_BE).rename(home / _LOCK)  # by that name it is held from the first moment on
        yield home
    finally:
        _remove(home)
        if lock is not None:
            os.close(lock)


def _sweep(temporary: Path) -> None:
    """Remove the homes of those that were killed."""
    with suppress(OSError):
        for folder in temporary.iterdir():
            if _NAME.fullmatch(folder.name):
                with suppress(OSError):
                    _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    """Raises `OSError`: it cannot be looked at, or somebody lives in it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(lock)


def agents_folder(home: Path) -> Path:
    """The part of it that is the agent's."""
    return home / "agent"


def _remove(home: Path) -> None:
    agents = agents_folder(home)
    if agents.is_dir():
        clearing = Thread(target=_clear, args=(agents,), daemon=True)
        clearing.start()
        clearing.join(LAST_S)
    shutil.rmtree(home, ignore_errors=True)


def _clear(agents: Path) -> None:
    """See what a killed agent ran to its end, and remove what is not easily removed of it."""
    from airunner.agent.home import lock_home
    from airunner.agent.workspace.workspace import remove_workspaces

    with suppress(OperatorError):  # what hangs in the kernel stays
        remove_workspaces(lock_home(agents).folder)
