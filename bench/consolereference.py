"""References for a console: one process reads, compresses, encrypts and writes what a job writes, with no airunner."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from nacl.secret import SecretBox
from nacl.utils import random

MB: Final = 1_000_000
READ_BYTES: Final = 65_536
LEVEL: Final = 1


def _zstd() -> Any:  # noqa: ANN401 - its module depends on Python's version
    """Import zstd: only when it is needed, since this module is also imported beside revisions without it."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def stored_rate(written: Path, times: int, *, terminal: bool = False) -> float:
    """Measure the MB/s from `cat FILE …` through a pipe or a terminal, zstd and a SecretBox into a file with fsync."""
    zstd, box = _zstd(), SecretBox(random(SecretBox.KEY_SIZE))
    reads, writes = pty.openpty() if terminal else os.pipe()
    began_s = time.perf_counter()
    process = subprocess.Popen(("cat", *[str(written)] * times), stdout=writes)
    os.close(writes)
    with tempfile.TemporaryFile() as file:
        while piece := _read(reads):
            file.write(box.encrypt(zstd.compress(piece, LEVEL)))
        file.flush()
        os.fsync(file.fileno())
    os.close(reads)
    process.wait()
    return written.stat().st_size * times / MB / (time.perf_counter() - began_s)


def replayed_rate(written: Path, times: int) -> float:
    """Measure the MB/s from sealed and compressed pieces of a file through a SecretBox and zstd into another file."""
    zstd, box = _zstd(), SecretBox(random(SecretBox.KEY_SIZE))
    content = written.read_bytes()
    pieces = [content[start : start + READ_BYTES] for start in range(0, len(content), READ_BYTES)]
    sealed = [box.encrypt(zstd.compress(piece, LEVEL)) for piece in pieces]
    began_s = time.perf_counter()
    with tempfile.TemporaryFile() as file:
        for piece in sealed * times:
            file.write(zstd.decompress(box.decrypt(piece)))
    return len(content) * times / MB / (time.perf_counter() - began_s)


def _read(descriptor: int) -> bytes:
    """Read what is there; empty at the end, which Linux reports on a terminal as an error."""
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError:
        return b""
