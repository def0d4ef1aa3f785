"""The broker's disk, which outlives its process, and what may become of what is written to it.

`dicts.DictDisk` keeps a batch whole or loses it whole. `torn.TornDisk` is one of sectors, under real SQLite. Both can
end the broker at any one thing that it does to them, fail once, and be full. Both are also what the Ledger is told of
the disk: how much room there is, and a ballast, which a full disk has for what ends or keeps something.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from random import Random

import apsw

from airunner.broker.disk import PIECE_BYTES
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine
from airunner.broker.store.room import Room, Space

BALLAST_PIECES = 8
COMMIT_BYTES = 16_384  # that the store of dicts counts for a transaction


class Crashed(Exception):
    """The process ended here; nothing that it does from now on has any effect."""


class Disk(ABC):
    """What the world does to a disk. `life` counts the brokers that have opened it."""

    def __init__(self, random: Random, rare: Counter[str]) -> None:
        self.random = random
        self.rare = rare
        self.life = 0
        self.power_fails = False
        self._kept: list[object] = []  # no store of an earlier life is ever closed
        self._crash_in = 0
        self._broken = False
        self._full = self._tells = False
        self._ballast = BALLAST_PIECES
        self._spared_bytes = 0
        self.left = Room.AMPLE

    def open(self) -> Store:
        """As a new broker does it."""
        self.life += 1
        self._crash_in = 0
        store = Store(self.engine())
        self._kept.append(store)
        return store

    @abstractmethod
    def engine(self) -> Engine:
        """The database, as this life of the broker sees it."""

    @abstractmethod
    def lose_power(self) -> None:
        """What was not synced is kept, lost or torn."""

    def crash(self, *, power: bool) -> None:
        """The broker's process has ended, or its machine's power."""
        self.life += 1
        if power or self.power_fails:
            self.lose_power()
        self.power_fails = False

    def crash_at(self, number: int, *, power: bool) -> None:
        """End the broker at the `number`-th thing from now that it does to the disk."""
        self._crash_in, self.power_fails = number, power

    def break_a_write(self) -> None:
        """The next one fails (EIO)."""
        self._broken = True

    def fill(self) -> None:
        """Nothing more can be written (ENOSPC) until it heals."""
        self._full, self._tells = True, self.random.random() < 0.5  # a quota, say, is found out by writing

    def heal(self) -> None:
        """It works."""
        self._broken = self._full = False
        self._ballast, self._spared_bytes, self.left = BALLAST_PIECES, 0, Room.AMPLE
        self._crash_in, self.power_fails = 0, False

    # --- what the Ledger asks: see `airunner.broker.disk.Disk` ----------------------------------------

    def look(self) -> Space:
        return Space(free_bytes=0)

    def room(self, space: Space, wanted_bytes: int) -> Room:
        del space, wanted_bytes
        left = Room.ENDING if self._full and self._tells else self.left
        if left is not Room.AMPLE:
            self.rare["a request found little room on the broker's disk"] += 1
        return left

    def free_ballast(self) -> bool:
        if not self._ballast:
            return False
        self._ballast -= 1
        self._spared_bytes += PIECE_BYTES
        return True

    def record_full(self, *, ends_stored: bool) -> None:
        self.rare["a full disk kept what ends or keeps something" if ends_stored else "a full disk took nothing"] += 1

    def record_fit(self) -> None:  # noqa: B027 - what the Ledger calls, and nobody overrides
        """Health is not simulated."""

    def step(self, life: int, *, writes: bool, grows_bytes: int = 0) -> None:
        """Something is about to be done to the disk; what is written over takes no more of it.

        Raises `Crashed`, `apsw.IOError`, `apsw.FullError`.
        """
        if life != self.life:
            raise Crashed
        if self._crash_in:
            self._crash_in -= 1
            if not self._crash_in:
                self.rare["the broker crashed inside a write"] += 1
                self.life += 1
                raise Crashed
        if writes and self._broken:
            self._broken = False
            self.rare["a write failed"] += 1
            raise apsw.IOError
        if self._full and grows_bytes <= self._spared_bytes:
            self._spared_bytes -= grows_bytes
        elif self._full:
            self.rare["a write found no space"] += 1
            raise apsw.FullError
