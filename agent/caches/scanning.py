"""Scanning of a cache: lists its files, folders and links, and reads files in chunks.

The folders that are read are the shelf's, where no process of a job is: so paths are used as they are. Sockets, devices
and pipes are left out, and what cannot be read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.agent.caches.manifest import FILES_MAX, Entry
from airunner.protocol.blobs import PIECE_BYTES_MAX

_MODE: Final = 0o777
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


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


def scan(folder: Path, count: int) -> Scan:
    """Look at the folders 0, 1, … of `folder`, of which some may be missing. Raises `TooManyFiles`, `OSError`."""
    found = Scan([], [])
    for place in range(count):
        top = os.fsencode(folder / str(place))
        try:
            status = os.lstat(top)
        except FileNotFoundError:
            continue
        _note(found, place, b"", status)
        waiting = [(top, b"")]
        while waiting:
            _look(found, place, *waiting.pop(), waiting)
    return found


def _look(found: Scan, place: int, folder: bytes, path: bytes, waiting: list[tuple[bytes, bytes]]) -> None:
    """Look at what is in a folder, and add the folders to look at next."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        found.left_out += 1
        return
    inner: list[tuple[bytes, bytes]] = []
    for entry in listed:
        name = path + b"/" + entry.name if path else entry.name
        status = entry.stat(follow_symlinks=False)
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                _note(found, place, name, status)
                inner.append((entry.path, name))
            case stat.S_IFREG:
                _note(found, place, name, status)
            case stat.S_IFLNK:
                _note(found, place, name, status, os.readlink(entry.path))  # noqa: PTH115 - bytes
            case _:
                found.left_out += 1
    waiting += reversed(inner)


def _note(found: Scan, place: int, path: bytes, status: os.stat_result, target: bytes = b"") -> None:
    mode = stat.S_IFMT(status.st_mode) | stat.S_IMODE(status.st_mode) & _MODE
    size_bytes = status.st_size if stat.S_ISREG(mode) else 0
    found.entries.append(Entry(place, path, mode, status.st_mtime_ns, size_bytes, target=target))
    found.changed_ns.append(status.st_ctime_ns)
    if len(found.entries) > FILES_MAX:
        raise TooManyFiles(f"it has more than {FILES_MAX:,} files")


def chunks(folder: Path, entry: Entry) -> Iterator[bytes]:
    """Read a file in chunks of `PIECE_BYTES_MAX`, of which only the last is shorter. Raises `OSError`."""
    place = os.path.join(os.fsencode(folder), b"%d" % entry.place, entry.path)  # noqa: PTH118 - bytes
    descriptor: int = os.open(place, _FILE)
    with open(descriptor, "rb") as file:
        while chunk := file.read(PIECE_BYTES_MAX):
            yield chunk
