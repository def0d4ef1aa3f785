"""Lock of a broker's home: a home has one broker, whose identity in its fleet is there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

LOCK_FILE: Final = "lock"


@contextmanager
def locked_home(folder: Path) -> Generator[None]:
    """Lock the folder of a broker while this block runs; the kernel frees the lock of a process that has ended.

    Raises `OperatorError`: another broker has locked it, or it cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        words = f"cannot use {folder}: {error.strerror}; set AIRUNNER_HOME to a folder that you can write"
        raise OperatorError(words) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        words = f"a broker already runs in {folder}: stop it, or set AIRUNNER_HOME to another folder for this one"
        raise OperatorError(words, exit_code=EXIT_UNAVAILABLE) from error
