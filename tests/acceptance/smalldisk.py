"""`python -m tests.acceptance.smalldisk …` is airunner with a small disk of its own, which nobody else sees.

The folder that `FOLDER_VARIABLE` names is a tmpfs of `SIZE_VARIABLE`; it is gone with the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import which

import pytest

from tests.acceptance.running import Process

FOLDER_VARIABLE = "TEST_FOLDER"
SIZE_VARIABLE = "TEST_SIZE"
MODULE = "tests.acceptance.smalldisk"
_PRIVATE = ("unshare", "--mount", "--propagation", "private")


def _can_mount() -> bool:
    if os.geteuid() != 0 or which("unshare") is None:
        return False
    trial = (*_PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="no disk can be mounted here: that takes root, and unshare")


def variables(folder: Path, size: str) -> dict[str, str]:
    """Say where the small disk is to be."""
    return {FOLDER_VARIABLE: str(folder), SIZE_VARIABLE: size}


def on_small_disk(home: Path, folder: Path, size: str, arguments: list[str], more: Mapping[str, str]) -> Process:
    folder.mkdir(exist_ok=True, mode=0o700)
    return Process(home, arguments, {**more, **variables(folder, size)}, module=MODULE)


if __name__ == "__main__":
    mount = f'mount -t tmpfs -o size="${SIZE_VARIABLE}",mode=700 tmpfs "${FOLDER_VARIABLE}" && exec "$@"'
    words = (*_PRIVATE, "sh", "-c", mount, "sh", sys.executable, "-m", "airunner", *sys.argv[1:])
    os.execvp(words[0], words)
