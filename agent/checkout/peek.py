"""Peek: reads the beginning of a file that a job could have replaced; follows no link and waits for no pipe."""

from __future__ import annotations

import os
from pathlib import Path


def read_beginning(file: Path, bytes_max: int) -> bytes:
    """Return up to `bytes_max` bytes of a file; of a pipe none. Raises `OSError`."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read(bytes_max) or b""
