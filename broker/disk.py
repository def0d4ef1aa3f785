"""Disk of the store: measures its free space, and holds a ballast for when it is full.

The ballast is a file beside the store, allocated while there is room. When the disk is full, because other processes
have filled it or it reports more space than it has, the ballast is freed piece by piece for commands that end or keep a
job; once there is room again the ballast is allocated again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from airunner.broker.health import Health
from airunner.broker.store.room import JOURNAL_BYTES, TIGHT_JOURNAL_BYTES, Inside, Room, Space, ballast_bytes, room_of

BALLAST_SUFFIX: Final = "-ballast"
PIECE_BYTES: Final = 1_048_576  # freed at once: other processes on this disk are not to get more than is needed
PLENTY_BYTES: Final = 256 * 1_048_576  # beyond the reserve: more than any journal owes, with a batch on top
CONDITION: Final = "disk"  # of the broker's health
NO_EVENTS: Final = "new jobs, leases and output are refused, and what ends or keeps a job is stored"
NOTHING: Final = "nothing can be stored, and only what changes nothing is answered; no lease expires meanwhile"
_MIB: Final = 1_048_576


class Measured(Protocol):
    """Store in a file, as far as its disk is concerned."""

    def inside(self) -> Inside:
        """Measure the store's size once its journal is written back."""
        ...

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        """Keep the journal short, and `shorten` it at once; or return to the usual length."""
        ...


class Disk(Protocol):
    """Disk port, which the Ledger calls."""

    def look(self) -> Space:
        """Measure the free space; between two batches, for it reads the store."""
        ...

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """Decide how much may be stored after `wanted_bytes` more."""
        ...

    def spare(self) -> bool:
        """Free a piece of the ballast; False when none is left."""
        ...

    def full(self, *, kept: bool) -> None:
        """Record that a write has found no room; `kept`: commands that end or keep a job were stored all the same."""
        ...

    def fits(self) -> None:
        """Record that a whole batch was stored."""
        ...


class Boundless:
    """Disk that is never full: for a store in memory, or a test."""

    def look(self) -> Space:
        """Report no free space, which `room` ignores."""
        return Space(free_bytes=0)

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """Allow everything."""
        del space, wanted_bytes
        return Room.AMPLE

    def spare(self) -> bool:
        """Return False: there is no ballast."""
        return False

    def full(self, *, kept: bool) -> None:
        """Do nothing."""
        del kept

    def fits(self) -> None:
        """Do nothing."""


class StoreDisk:
    """Disk under the store at `path`; below `reserve_bytes` new jobs are rejected, and `health` shows it."""

    def __init__(self, path: Path, store: Measured, reserve_bytes: int, health: Health) -> None:
        self._path = path
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._health = health
        self._ballast = path.with_name(path.name + BALLAST_SUFFIX)
        self._journal = path.with_name(path.name + "-wal")
        self._space = Space(free_bytes=0)
        self._tight = False
        self._plenty = False  # then only the free space on the disk is measured
        self._refused = ""
        health.watch(self._judge)

    def look(self) -> Space:
        """See `Disk`."""
        free_bytes = self._free_bytes()
        if self._plenty and free_bytes >= self._reserve_bytes + PLENTY_BYTES:
            self._space = self._space._replace(free_bytes=free_bytes)
            return self._space
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
        return room_of(space, self._reserve_bytes, wanted_bytes)

    def spare(self) -> bool:
        """See `Disk`."""
        left_bytes = _size(self._ballast) - PIECE_BYTES
        self._plenty = False
        if left_bytes <= -PIECE_BYTES:
            return False
        with suppress(OSError):
            os.truncate(self._ballast, max(0, left_bytes))
            return True
        return False

    def full(self, *, kept: bool) -> None:
        """See `Disk`."""
        self._refused = NO_EVENTS if kept else NOTHING
        self._plenty = False
        self._judge()

    def fits(self) -> None:
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
        """Report the disk to /health, which calls this too: so the store's own size is as last measured."""
        space = self._space._replace(free_bytes=self._free_bytes())
        room = self.room(space, 0)
        left = f"{space.free_bytes / _MIB:.1f} MiB of the store's disk are free"
        mend = "; free some, enlarge it, or start the broker with a lower --retain-days"
        if self._refused or room is Room.KEEPING:
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
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize


def _size(path: Path) -> int:
    """Size of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
