"""A disk that keeps whole batches: a database in memory, which another broker seems to write to as well."""

from __future__ import annotations

from collections import Counter
from random import Random

import apsw

from airunner.broker.store.contract import Changes, Engine, Keys, Loaded
from airunner.protocol.errors import NoSpace
from tests.conformance.conflicts import Conflicting
from tests.simulation.disk import COMMIT_BYTES, Disk

CONFLICTS_SHARE = 0.2  # of the batches


class SharedDisk(Disk):
    """Keeps a batch whole, or loses it whole."""

    def __init__(self, random: Random, rare: Counter[str]) -> None:
        super().__init__(random, rare)
        self.saved = b""

    def engine(self) -> Engine:
        return _Engine(self)

    def lose_power(self) -> None:
        """A commit is a commit."""


class _Engine(Conflicting):
    """The engine of one life of the broker; each thing that it does to the database is a step."""

    def __init__(self, disk: SharedDisk) -> None:
        super().__init__(disk.saved)
        self._disk = disk
        self._life = disk.life
        self._writes = False

    def is_stale(self) -> bool:
        return self._disk.random.random() < CONFLICTS_SHARE

    def load(self, keys: Keys) -> Loaded:
        self._step()
        return super().load(keys)

    def save(self, changes: Changes) -> None:
        self._step()
        self._writes = changes != Changes()
        super().save(changes)

    def moved(self, changes: Changes) -> bool:
        moved = super().moved(changes)
        if moved:
            self._disk.rare["a batch was decided on a job that had moved"] += 1
        return moved

    def commit(self) -> None:
        self._step(writes=self._writes)
        super().commit()
        self._disk.saved = self.saved
        self._step()  # what is kept need not have been told

    def _step(self, *, writes: bool = False) -> None:
        try:
            self._disk.step(self._life, writes=writes, grows_bytes=COMMIT_BYTES if writes else 0)
        except apsw.FullError as full:
            self._undo()
            raise NoSpace from full
