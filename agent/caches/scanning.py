"""Scanning of a cache: lists its files, folders and links, and reads files in chunks.

The folders that are read are the shelf's, where no process of their job is. But another job may have got a descriptor
of one of them: so each is opened below the one before it, and no link is followed. Sockets, devices and pipes are left
out, and what cannot be read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.artifacts.tree import Tree
from airunner.agent.caches.manifest import FILES_MAX, Entry

_MODE: Final = 0o777
_PATH_BYTES_MAX: Final = 3_072  # a path below an agent's home has to be one that the system takes


class TooManyFiles(Exception):
    """More files than a cache may have; the message says how many those are."""


class Scan(Struct):
    """Scan of folders: their entries, in order; the instants (ns) of their last changes; how many are left out."""

    entries: list[Entry]
    changed_ns: list[int]
    left_out: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.entries)


class Folders(ExitStack):
    """Folders 0, 1, … of `folder`, which no link leads out of. Open them in a block. Methods raise `OSError`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._trees: dict[int, Tree] = {}

    def tree(self, place: int) -> Tree:
        """Return the tree of a folder."""
        if place not in self._trees:
            self._trees[place] = self.enter_context(Tree(self._folder / str(place)))
        return self._trees[place]

    def file(self, entry: Entry) -> int:
        """Return a descriptor of a file to read, which the caller closes."""
        return self.tree(entry.place).file(os.fsdecode(entry.path))

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Read a file in chunks of `PIECE_BYTES_MAX`, of which only the last is shorter."""
        return self.tree(entry.place).chunks(os.fsdecode(entry.path))


def scan(folder: Path, count: int, owner: int | None = None) -> Scan:
    """Look at the folders 0, 1, … of `folder`, of which some may be missing. Raises `TooManyFiles`, `OSError`.

    `owner` is the id of the user whose job has left them, if it is another than the agent's: a file that is neither of
    this user nor without other names may be one that the job itself cannot read.
    """
    found = Scan([], [])
    with Folders(folder) as folders:
        for place in range(count):
            try:
                tree = folders.tree(place)
            except FileNotFoundError:
                continue
            _note(found, place, b"", os.fstat(tree.folder("")))
            waiting = [""]
            while waiting:
                _look(found, place, tree, waiting, owner)
    return found


def _look(found: Scan, place: int, tree: Tree, waiting: list[str], owner: int | None) -> None:
    """Look at what is in the last folder that waits, and replace it by those to look at next."""
    path = waiting.pop()
    try:
        folder = tree.folder(path)
        names = sorted(os.listdir(folder), key=os.fsencode)  # noqa: PTH208 - a descriptor
    except PermissionError:
        found.left_out += 1
        return
    inner: list[str] = []
    for name in names:
        below = f"{path}/{name}" if path else name
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        target = b""
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                inner.append(below)
            case stat.S_IFREG if owner in (None, status.st_uid) or status.st_nlink == 1:
                pass
            case stat.S_IFLNK:
                target = os.fsencode(os.readlink(name, dir_fd=folder))
            case _:
                found.left_out += 1
                continue
        _note(found, place, os.fsencode(below), status, target)
    waiting += reversed(inner)


def _note(found: Scan, place: int, path: bytes, status: os.stat_result, target: bytes = b"") -> None:
    mode = stat.S_IFMT(status.st_mode) | stat.S_IMODE(status.st_mode) & _MODE
    size_bytes = status.st_size if stat.S_ISREG(mode) else 0
    found.entries.append(Entry(place, path, mode, status.st_mtime_ns, size_bytes, target=target))
    found.changed_ns.append(status.st_ctime_ns)
    if len(path) > _PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if len(found.entries) > FILES_MAX:
        raise TooManyFiles(f"it has more than {FILES_MAX:,} files")
