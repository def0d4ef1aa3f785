"""A disk of sectors under real SQLite: what was not synced when the power failed may be there, or not, or torn.

An `apsw.VFS` keeps the files in memory, each as it reads now and as it is on the platter; between the two are the
writes since its last sync. A killed process loses nothing, since the page cache outlives it. When the power fails
each of those writes is kept, dropped, or torn at a sector of 512 bytes; a later one may be kept where an earlier
one was dropped. Files are created and deleted for good, as SQLite syncs its folder.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random
from typing import Any

import apsw
from msgspec import Struct

from airunner.broker.store.contract import Engine
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import STATEMENTS_CACHED, prepare
from tests.simulation.disk import Disk

SECTOR_BYTES = 512
_names = count(1)


class _Write(Struct, frozen=True):
    offset: int
    data: bytes


class _Truncation(Struct, frozen=True):
    size: int


class _File:
    """One file: `now` is what is read, `platter` what a power cut leaves, `unsynced` what lies between."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.platter = bytearray()
        self.unsynced: list[_Write | _Truncation] = []

    def sync(self) -> None:
        for change in self.unsynced:
            _apply(self.platter, change)
        self.unsynced.clear()

    def lose_power(self, random: Random, rare: Counter[str]) -> None:
        for change in self.unsynced:
            fate = random.random()
            if fate < 1 / 3:
                _apply(self.platter, change)
            elif fate < 2 / 3 and isinstance(change, _Write) and len(change.data) > SECTOR_BYTES:
                sectors = random.randrange(1, -(-len(change.data) // SECTOR_BYTES))
                _apply(self.platter, _Write(change.offset, change.data[: sectors * SECTOR_BYTES]))
                rare["a power cut tore a write"] += 1
            else:
                rare["a power cut dropped a write"] += 1
        self.unsynced.clear()
        self.now = bytearray(self.platter)


def _apply(content: bytearray, change: _Write | _Truncation) -> None:
    if isinstance(change, _Truncation):
        del content[change.size :]
        return
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data


class TornDisk(Disk):
    """SQLite on such a disk."""

    def __init__(self, random: Random, rare: Counter[str]) -> None:
        super().__init__(random, rare)
        self.files: dict[str, _File] = {}
        self._vfs = _Vfs(f"torn{next(_names)}", self)

    def engine(self) -> Engine:
        connection = apsw.Connection("/store.db", vfs=self._vfs.name, statementcachesize=STATEMENTS_CACHED)
        prepare(connection)
        return SqliteEngine(connection)

    def lose_power(self) -> None:
        for file in self.files.values():
            file.lose_power(self.random, self.rare)


class _Vfs(apsw.VFS):
    """The folder."""

    def __init__(self, name: str, disk: TornDisk) -> None:
        super().__init__(name, "")
        self.name = name
        self._disk = disk

    def xOpen(self, name: Any, flags: list[int]) -> _Handle:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        flags[1] = flags[0]
        return _Handle(self._disk, self._disk.files.setdefault(path, _File()), self._disk.life)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.step(self._disk.life, writes=False)
        self._disk.files.pop(filename, None)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self._disk.files

    def xFullPathname(self, name: str) -> str:
        return name

    def xRandomness(self, numbytes: int) -> bytes:
        return self._disk.random.randbytes(numbytes)


class _Handle:
    """One file as one life of the broker has it open."""

    def __init__(self, disk: TornDisk, file: _File, life: int) -> None:
        self._disk = disk
        self._file = file
        self._life = life

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._file.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.step(self._life, writes=True, grows_bytes=max(0, offset + len(data) - len(self._file.now)))
        change = _Write(offset, bytes(data))
        _apply(self._file.now, change)
        self._file.unsynced.append(change)

    def xTruncate(self, newsize: int) -> None:
        self._disk.step(self._life, writes=True)
        change = _Truncation(newsize)
        _apply(self._file.now, change)
        self._file.unsynced.append(change)

    def xSync(self, flags: int) -> None:
        self._disk.step(self._life, writes=False)
        self._file.sync()

    def xFileSize(self) -> int:
        return len(self._file.now)

    def xLock(self, level: int) -> None:
        """One process at a time: the life of the broker."""

    def xUnlock(self, level: int) -> None:
        """The same."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xClose(self) -> None:
        """Nothing is held."""
