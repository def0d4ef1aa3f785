"""A disk of dicts: an engine without SQL, beside which another broker seems to be at work."""

from __future__ import annotations

from collections import Counter
from random import Random

import apsw

from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import Changes, Keys, Loaded
from airunner.protocol.errors import NoSpace
from tests.conformance.conflicts import Conflicting
from tests.conformance.memory import Tables
from tests.simulation.disk import COMMIT_BYTES, Disk

CONFLICTS_SHARE = 0.2  # of the batches


class DictDisk(Disk):
    """Keeps a batch whole, or loses it whole."""

    def __init__(self, random: Random, rare: Counter[str]) -> None:
        super().__init__(random, rare)
        self.tables = Tables()

    def engine(self) -> Engine:
        return _Engine(self)

    def lose_power(self) -> None:
        """A commit is a commit."""


class _Engine(Conflicting):
    """The engine of one life of the broker; each thing that it does to the tables is a step."""

    def __init__(self, disk: DictDisk) -> None:
        super().__init__(disk.tables)
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
        if self.stale and self.moved(changes):
            self._disk.rare["a batch was decided on a job that had moved"] += 1
        super().save(changes)

    def commit(self) -> None:
        self._step(writes=self._writes)
        super().commit()
        self._disk.tables = self._now
        self._step()  # what is kept need not have been told

    def _step(self, *, writes: bool = False) -> None:
        try:
            self._disk.step(self._life, writes=writes, grows_bytes=COMMIT_BYTES if writes else 0)
        except apsw.FullError as full:
            self._now = self._saved
            raise NoSpace from full
