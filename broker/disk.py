"""Disk of the store: measures its free space, and manages the ballast, a reserve for when the disk is full.

The ballast is a file beside the store, allocated in advance. When the disk is full, because other processes have filled
it or it has reported more free space than it has, the ballast is freed piece by piece for commands that end a job or
renew its lease. Once there is enough free space, the ballast is allocated again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from airunner.broker.health import Health
from airunner.broker.store.room import JOURNAL_BYTES, TIGHT_JOURNAL_BYTES, Inside, Room, Space, ballast_bytes, room_of

BALLAST_SUFFIX: Final = "-ballast"
PIECE_BYTES: Final = 1_048_576  # ballast freed in a step: other processes on this disk should not get more than needed
PLENTY_BYTES: Final = 256 * 1_048_576  # bytes free beyond the reserve with which the store need not be measured
LOOK_S: Final = 0.01  # seconds between two measurements while there is plenty: no disk is filled with 256 MiB so soon
WANTED_BYTES: Final = PLENTY_BYTES // 8  # bytes that a batch may want: while there is plenty, there is room for so many
CONDITION: Final = "disk"  # name of the condition in /health
NO_EVENTS: Final = "new jobs, leases and output are refused; running jobs can still end and renew their leases"
NOTHING: Final = "nothing can be stored, and only read requests are answered; no lease expires meanwhile"
_MIB: Final = 1_048_576
_GIB: Final = 1_024 * _MIB


class Measured(Protocol):
    """Store in a file, as the disk sees it."""

    def inside(self) -> Inside:
        """Measure the size that the store has once its journal is written back."""
        ...

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        """Limit the journal to its short length (`tight`) or its usual one; `shorten`: truncate it now."""
        ...


class Disk(Protocol):
    """Disk port, which the Ledger calls."""

    def look(self) -> Space:
        """Measure the free space; only between two batches, because it reads the store."""
        ...

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """Decide what may be stored, given that `wanted_bytes` of `space` will be used."""
        ...

    def free_ballast(self) -> bool:
        """Free a piece of the ballast; False: nothing could be freed."""
        ...

    def record_full(self, *, ends_stored: bool) -> None:
        """Record that a batch found no room; `ends_stored`: its ends of jobs and renewals of leases were stored."""
        ...

    def record_fit(self) -> None:
        """Record that a batch was stored without restrictions."""
        ...


class Boundless:
    """Disk without a limit: for a store in memory, or a test."""

    def look(self) -> Space:
        """Report no free space, which `room` ignores."""
        return Space(free_bytes=0)

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """Allow everything."""
        del space, wanted_bytes
        return Room.AMPLE

    def free_ballast(self) -> bool:
        """Return False: there is no ballast."""
        return False

    def record_full(self, *, ends_stored: bool) -> None:
        """Do nothing."""
        del ends_stored

    def record_fit(self) -> None:
        """Do nothing."""


class ServerDisk(Boundless):
    """Disk of a database server, which this broker cannot measure: `health` says that it is full while batches fail.

    size_bytes: size of the store, as it was at the last beat
    bytes_max: what the store may take (--store-gib): `reserve_bytes` before it new jobs are rejected; None: no bound
    """

    def __init__(
        self, health: Health, size_bytes: Callable[[], int], bytes_max: int | None, reserve_bytes: int
    ) -> None:
        self._health = health
        self._size_bytes = size_bytes
        self._bytes_max = bytes_max
        self._reserve_bytes = reserve_bytes
        self._full = ""  # what a full disk makes the broker refuse, for /health
        health.watch(self._judge)

    def look(self) -> Space:
        """See `Disk`."""
        return Space(free_bytes=0 if self._bytes_max is None else max(0, self._bytes_max - self._size_bytes()))

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """See `Disk`."""
        return Room.AMPLE if self._bytes_max is None else room_of(space, self._reserve_bytes, wanted_bytes)

    def record_full(self, *, ends_stored: bool) -> None:
        """See `Disk`."""
        self._full = NO_EVENTS if ends_stored else NOTHING
        self._judge()

    def record_fit(self) -> None:
        """See `Disk`."""
        if self._full:
            self._full = ""
            self._judge()

    def _judge(self) -> None:
        """Report in /health that the disk is full, or the store as large as it may be."""
        room = self.room(self.look(), 0)
        if self._full:
            words = f"the disk of the database server is full: {self._full}; free disk space there, or enlarge the disk"
        elif room is not Room.AMPLE:
            sizes = f"{self._size_bytes() / _GIB:.2f} of {(self._bytes_max or 0) / _GIB:.2f} GiB (--store-gib)"
            words = f"the store takes {sizes}: {NO_EVENTS if room is Room.ENDING else 'new jobs are refused'}"
        else:
            self._health.clear(CONDITION)
            return
        self._health.degrade(CONDITION, f"{words}, or start the brokers with a lower --retain-days")


class StoreDisk:
    """Disk of the store at `path`; with less than `reserve_bytes` free, new jobs are rejected and `health` says so."""

    def __init__(
        self,
        path: Path,
        store: Measured,
        reserve_bytes: int,
        health: Health,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._folder = str(path.parent)
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._health = health
        self._ballast = path.with_name(path.name + BALLAST_SUFFIX)
        self._journal = path.with_name(path.name + "-wal")
        self._space = Space(free_bytes=0)
        self._tight = False
        self._steady_s = steady_s
        self._plenty = False  # True: while plenty is free, only the disk's free space is measured, not the store
        self._look_s = 0.0  # when it is measured again
        self._refused = ""  # what a full disk makes the broker refuse, for /health
        health.watch(self._judge)

    def look(self) -> Space:
        """See `Disk`."""
        now_s = self._steady_s()
        if self._plenty and now_s < self._look_s:
            return self._space
        self._look_s = now_s + LOOK_S
        free_bytes = self._free_bytes()
        if self._plenty and free_bytes >= self._reserve_bytes + PLENTY_BYTES:
            self._space = self._space._replace(free_bytes=free_bytes)
            return self._space
        self._plenty = False
        self._space = self._measure()
        tight = self.room(self._space, JOURNAL_BYTES) is not Room.AMPLE
        if tight is not self._tight:
            self._tight = tight
            self._store.tighten(tight=tight, shorten=self._space.journal_bytes > TIGHT_JOURNAL_BYTES)
            self._space = self._measure()
        wanted_bytes = ballast_bytes(self._reserve_bytes)
        with_it = self._space._replace(free_bytes=self._space.free_bytes - wanted_bytes)
        if self._space.ballast_bytes < wanted_bytes and self.room(with_it, 0) is Room.AMPLE:
            self._make_ballast(wanted_bytes)
        self._judge()
        self._plenty = not self._tight and not self._refused and self._space.ballast_bytes >= wanted_bytes
        return self._space

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """See `Disk`."""
        if self._plenty and space is self._space and wanted_bytes <= WANTED_BYTES:
            return Room.AMPLE
        return room_of(space, self._reserve_bytes, wanted_bytes)

    def free_ballast(self) -> bool:
        """See `Disk`."""
        left_bytes = _size(self._ballast) - PIECE_BYTES
        self._plenty = False
        if left_bytes <= -PIECE_BYTES:
            return False
        with suppress(OSError):
            os.truncate(self._ballast, max(0, left_bytes))
            return True
        return False

    def record_full(self, *, ends_stored: bool) -> None:
        """See `Disk`."""
        self._refused = NO_EVENTS if ends_stored else NOTHING
        self._plenty = False
        self._judge()

    def record_fit(self) -> None:
        """See `Disk`."""
        self._refused = ""

    def _measure(self) -> Space:
        inside = self._store.inside()
        return Space(
            free_bytes=self._free_bytes(),
            ballast_bytes=_size(self._ballast),
            reusable_bytes=inside.reusable_bytes,
            journal_bytes=_size(self._journal),
            owed_bytes=max(0, inside.store_bytes - _size(self._path)),
        )

    def _judge(self) -> None:
        """Report the disk in /health, which calls this at any time: so the store's size is that of the last `look`."""
        space = self._space._replace(free_bytes=self._free_bytes())
        room = self.room(space, 0)
        left = f"{space.free_bytes / _MIB:.1f} MiB of the store's disk are free"
        mend = "; free disk space, enlarge the disk, or start the broker with a lower --retain-days"
        if self._refused or room is Room.ENDING:
            self._health.degrade(CONDITION, f"{left}: {self._refused or NO_EVENTS}{mend}")
        elif room is Room.RUNNING:
            least = f"{self._reserve_bytes // _MIB} (--reserve-mib)"
            self._health.degrade(CONDITION, f"{left}, less than {least}: new jobs are refused{mend}")
        else:
            self._health.clear(CONDITION)

    def _make_ballast(self, size_bytes: int) -> None:
        """Allocate the ballast, or as much of it as fits."""
        with suppress(OSError):
            descriptor = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size_bytes)
            finally:
                os.close(descriptor)

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize


def _size(path: Path) -> int:
    """Return the size of a file; 0: it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
