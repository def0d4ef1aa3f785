"""A small disk of its own for a test: a tmpfs, which is as full as it looks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PIECE = bytes(65_536)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """An empty file system of so many MiB at `folder`; who may not mount skips the test."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here (root may): {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left of a disk; the file that does."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        piece = _PIECE
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]
    assert os.statvfs(disk).f_bavail == 0
    return filler
