"""Another broker at work: an engine in which batches are first decided on rows that have been changed since."""

from __future__ import annotations

from typing import Any, Final

import apsw

from airunner.broker.store.contract import Changes
from airunner.broker.store.sqlite import engine
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import prepare

WRITES_OVER: Final = {
    "_AS_LOADED": "number = ? AND 0 IN (0, ?, ?, ?, ?)",
    "_ADD_SEGMENT": engine._ADD_SEGMENT.replace("INSERT", "INSERT OR REPLACE"),
}
"""Statements of an engine that does not look whether another broker has changed what it saves."""


class Conflicting(SqliteEngine):
    """Every other batch is loaded as all was before the last commit, as if that were another broker's since."""

    def __init__(self, saved: bytes = b"") -> None:
        self._newest = self._db = opened(saved)
        super().__init__(self._newest)
        self.saved = self._before = saved or self._newest.serialize("main")
        self.stale = False
        self.conflicts = 0

    def is_stale(self) -> bool:
        """Whether the batch that begins is loaded so."""
        return not self.stale

    def begin(self) -> None:
        self._look_at(self._newest)
        self.stale = self.is_stale()
        if self.stale:
            self._look_at(opened(self._before))
        super().begin()

    def save(self, changes: Changes) -> None:
        if self.stale:
            self._look_at(self._newest)
            super().begin()
            self.conflicts += 1
            if not self.moved(changes):
                raise self._moved()  # for what was read and is not changed
        super().save(changes)

    def moved(self, changes: Changes) -> bool:
        """Whether a job that is changed is not as it was loaded."""
        versions = "SELECT state, attempt, next_index, last_sequence FROM job WHERE number = ?"
        changed = [old for old, new in changes.changed if old != new]
        return any(self._run(versions, ((old.number,),)) != [old.version] for old in changed)

    def commit(self) -> None:
        super().commit()
        self._before, self.saved = self.saved, self._newest.serialize("main")

    def _look_at(self, database: Any) -> None:
        self._undo()
        self._db, self._next_number = database, 0


def opened(saved: bytes = b"") -> Any:
    """A database in memory, as it was saved."""
    database = apsw.Connection(":memory:")
    if saved:
        database.deserialize("main", saved)
    prepare(database)
    return database
