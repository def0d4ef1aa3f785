"""Small disks for tests, that are soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str, uid: int | None = None) -> Iterator[Path]:
    """An empty file system at `folder`, of a size as mount(8) has it; who may not mount skips the test."""
    folder.mkdir()
    owner = os.getuid() if uid is None else uid
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700,uid={owner}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here (root may): {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
