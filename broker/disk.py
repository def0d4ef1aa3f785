"""The store's disk: measures what is left of it, and holds a ballast for when it is full.

The ballast is a file beside the store, allocated while there is room. When the disk is full, because others have
filled it or what it says of itself is not so, the ballast is given up piece by piece for what ends or keeps a job; once
there is room again it is made again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from airunner.broker.health import Health
from airunner.broker.store.room import JOURNAL_BYTES, TIGHT_JOURNAL_BYTES, Inside, Room, Space, ballast_bytes, room_of

BALLAST_SUFFIX: Final = "-ballast"
PIECE_BYTES: Final = 1_048_576  # given up at once: others on this disk are not to take more than is needed
PLENTY_BYTES: Final = 256 * 1_048_576  # beyond the reserve: more than any journal owes, with a batch on top
CONDITION: Final = "disk"  # of the broker's health
NO_EVENTS: Final = "new jobs, leases and output are refused, and what ends or keeps a job is stored"
NOTHING: Final = "nothing can be stored, and only what changes nothing is answered; no lease expires meanwhile"
_MIB: Final = 1_048_576


class Measured(Protocol):
    """A store in a file, as far as its disk is concerned."""

    def inside(self) -> Inside:
        """What the store takes once its journal is written back."""
        ...

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        """Have a short journal, which owes little, and `shorten` it at once; or again the usual one."""
        ...


class Disk(Protocol):
    """What the Ledger asks of the disk."""

    def look(self) -> Space:
        """Measure what is left; between two batches, for it asks the store."""
        ...

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """How much may be stored once `wanted_bytes` more are."""
        ...

    def spare(self) -> bool:
        """Give up a piece of the ballast; False when there is none left."""
        ...

    def full(self, *, kept: bool) -> None:
        """Note that a write has found no room; `kept`: what ends or keeps something was stored all the same."""
        ...

    def fits(self) -> None:
        """Note that a whole batch was stored."""
        ...


class Boundless:
    """A disk that is never full: a store in memory, or a test's."""

    def look(self) -> Space:
        """There is always enough."""
        return Space(free_bytes=0)

    def room(self, space: Space, wanted_bytes: int) -> Room:
        """Everything may be stored."""
        del space, wanted_bytes
        return Room.AMPLE

    def spare(self) -> bool:
        """Nothing is held back."""
        return False

    def full(self, *, kept: bool) -> None:
        """Nobody is told."""
        del kept

    def fits(self) -> None:
        """Nothing was wrong."""


class StoreDisk:
    """The disk under the store at `path`; below `reserve_bytes` new jobs are refused. `health` is told how it is."""

    def __init__(self, path: Path, store: Measured, reserve_bytes: int, health: Health) -> None:
        self._path = path
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._health = health
        self._ballast = path.with_name(path.name + BALLAST_SUFFIX)
        self._journal = path.with_name(path.name + "-wal")
        self._space = Space(free_bytes=0)
        self._tight = False
        self._plenty = False  # nothing but what is free on the disk has to be looked at
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
        """Tell the health how the disk stands; from /health too, so what is inside the store is as it was last seen."""
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
        """Allocate the ballast; where it does not fit after all, there is less of it."""
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
    """What a file takes; none takes nothing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
