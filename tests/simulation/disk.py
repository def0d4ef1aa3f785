"""The broker's disk, which outlives its process, and what can happen to it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import apsw

from airunner.broker.store.contract import Applied, Command, Store
from airunner.broker.store.sqlite import SqliteStore, store_on


class Crashed(Exception):
    """The process ended here."""


class MemoryDisk:
    """SQLite in memory: a batch is kept whole or lost whole, and may be kept without anybody being told."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._connection = apsw.Connection(":memory:")
        self._generation = 0

    def open(self) -> Store:
        """As a new broker does it."""
        self._generation += 1
        return _Guarded(self, store_on(self._connection), self._generation)

    def crash(self, *, power: bool) -> None:
        """What was committed is there; nothing else can be done through the store that was open."""
        self._generation += 1
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class _Guarded:
    def __init__(self, disk: MemoryDisk, store: SqliteStore, generation: int) -> None:
        self._disk = disk
        self._store = store
        self._generation = generation

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        if self._generation != self._disk._generation:
            raise Crashed
        return self._store.apply(commands, now_ms)

    def close(self) -> None:
        """The connection is the disk's."""
