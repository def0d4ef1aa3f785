"""Tree of the folders below one folder: opens each by its name alone, and follows no link.

Two descriptors at most are open beside the file that is read, however deep the tree is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from airunner.protocol.blobs import PIECE_BYTES_MAX

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Tree:
    """Tree below the folder `top`. Paths are relative to it, and the empty path is `top`. Methods raise `OSError`."""

    def __init__(self, top: Path) -> None:
        self._top = os.open(top, _FOLDER)
        self._path = ""
        self._folder = self._top

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._top)

    def folder(self, path: str) -> int:
        """Return a descriptor of a folder, which is valid until the next call."""
        if path != self._path:
            rest = path.removeprefix(f"{self._path}/")
            if rest == path:
                self._leave()
            for name in filter(None, rest.split("/")):
                self._enter(name)
        return self._folder

    def chunks(self, path: str) -> Iterator[bytes]:
        """Read a file in chunks of `PIECE_BYTES_MAX`; only the last one is shorter. Raises at once if it is no file."""
        descriptor = self.file(path)
        return _read(descriptor, os.fstat(descriptor).st_size)

    def file(self, path: str) -> int:
        """Return a descriptor of a file to read, which the caller closes."""
        folder, _, name = path.rpartition("/")
        descriptor = os.open(name, _FILE, dir_fd=self.folder(folder))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(0, "it is not a file any more")
        return descriptor

    def _enter(self, name: str) -> None:
        inner = os.open(name, _FOLDER, dir_fd=self._folder)
        path = f"{self._path}/{name}" if self._path else name
        self._leave()
        self._folder, self._path = inner, path

    def _leave(self) -> None:
        """Go back to the top."""
        folder, self._folder, self._path = self._folder, self._top, ""
        if folder != self._top:
            os.close(folder)


def _read(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    room_bytes = min(PIECE_BYTES_MAX, size_bytes + 1)  # a small file needs no MiB
    with open(descriptor, "rb") as file:
        while chunk := file.read(room_bytes):
            if len(chunk) == room_bytes < PIECE_BYTES_MAX:  # it has grown meanwhile
                room_bytes = PIECE_BYTES_MAX
                chunk += file.read(PIECE_BYTES_MAX - len(chunk))
            yield chunk
