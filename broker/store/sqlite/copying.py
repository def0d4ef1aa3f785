"""Online copy of a SQLite store: page by page into a descriptor that another process has opened.

SQLite's backup API copies through the broker's own connection, so that changes made meanwhile are copied too.

The copy is written to a descriptor instead of a path: `airunner backup` opens the file with its own rights, and the
broker, which its service unit may restrict to its own folders, needs no access to the file's folder.

Sources: https://sqlite.org/backup.html, https://sqlite.org/c3ref/backup_finish.html
"""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple, cast

import apsw

from airunner.broker.store.sqlite.rows import Database

PAGES_A_STEP: Final = 128  # pages copied in a step: half a MiB, for some 2 ms in which no request is served


class Progress(NamedTuple):
    """Progress of a copy, in pages of the store; `pages` grows with the store."""

    copied: int
    pages: int


class StoreCopy:
    """Copy of `source` into `descriptor`, which the caller closes; use the copy between transactions only."""

    def __init__(self, source: Database, descriptor: int) -> None:
        self._vfs = _DescriptorVfs(f"descriptor{descriptor}", descriptor)
        self._target = apsw.Connection("/copy", vfs=self._vfs.name)
        for setting in ("journal_mode", "synchronous"):  # an interrupted copy is deleted, so it needs no protection
            cast("Database", self._target).execute(f"PRAGMA {setting} = off")
        self._backup = self._target.backup("main", cast("apsw.Connection", source), "main")
        self.done = False

    def step(self) -> Progress:
        """Copy `PAGES_A_STEP` pages; afterwards `done` is true if they were the last.

        Raises `OSError`: the file cannot be written.
        """
        try:
            done = self._backup.step(PAGES_A_STEP)
            progress = Progress(self._backup.page_count - self._backup.remaining, self._backup.page_count)
            if done:
                self._backup.finish()
        except apsw.Error as error:
            raise self._vfs.failure or OSError(str(error)) from error
        self.done = done
        return progress

    def close(self) -> None:
        """End the copy; unless it is `done`, what was written is no valid store."""
        self._backup.close(force=True)
        self._target.close(force=True)
        self._vfs.unregister()


class _DescriptorVfs(apsw.VFS):
    """VFS of a single file that is already open, without journals; `failure`: why the file could not be written."""

    def __init__(self, name: str, descriptor: int) -> None:
        super().__init__(name, "")
        self.name = name
        self.failure: OSError | None = None
        self.descriptor = descriptor

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        flags[1] = flags[0]
        return cast("apsw.VFSFile", _DescriptorFile(self))

    def xAccess(self, pathname: str, flags: int) -> bool:
        return False

    def xFullPathname(self, name: str) -> str:
        return name


class _DescriptorFile:
    """File of the VFS: `airunner backup` syncs and closes it, and no other process uses it, so it needs no lock."""

    def __init__(self, vfs: _DescriptorVfs) -> None:
        self._vfs = vfs

    def xRead(self, amount: int, offset: int) -> bytes:
        return os.pread(self._vfs.descriptor, amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._vfs.descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            self._vfs.failure = error
            raise apsw.FullError(str(error)) from error

    def xTruncate(self, newsize: int) -> None:
        os.ftruncate(self._vfs.descriptor, newsize)

    def xFileSize(self) -> int:
        return os.fstat(self._vfs.descriptor).st_size

    def xSync(self, *_: int) -> bool:
        return False

    xLock = xUnlock = xCheckReservedLock = xFileControl = xSectorSize = xDeviceCharacteristics = xClose = xSync
