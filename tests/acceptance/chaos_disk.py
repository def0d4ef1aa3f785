"""The disk of a chaos run: a small tmpfs under the home of its broker and agents, which can be filled for a while."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE_MIB: Final = 192
RESERVE_MIB: Final = 16  # the broker's, of that
_PIECE: Final = bytes(65_536)


class SmallDisk:
    """Mounted at `folder`; where that is not possible `why_not` says so, and it is never filled."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.fills = 0
        self._folder = folder
        self._filler = folder / "filler"
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=700", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.why_not = f"no small disk can be mounted here (root may): {done.stderr.strip()}" if done.returncode else ""

    def fill(self) -> None:
        """Take all that is left."""
        self.fills += 1
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            disk = os.statvfs(self._folder)
            with suppress(OSError):
                os.posix_fallocate(descriptor, 0, max(1, disk.f_bavail * disk.f_frsize))
            with suppress(OSError):
                while True:
                    os.write(descriptor, _PIECE)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """Unmount it; `keep` copies what is on it to beside it."""
        if self.why_not:
            return
        if keep:
            with suppress(shutil.Error, OSError):
                shutil.copytree(self._folder, self._folder.with_suffix(".kept"), symlinks=True)
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False)
