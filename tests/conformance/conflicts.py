"""Another broker at work: an engine in which batches are first decided on rows that have been changed since."""

from __future__ import annotations

from airunner.broker.store.contract import Moved
from airunner.broker.store.rows import Changes
from tests.conformance.memory import MemoryEngine, Tables


class Conflicting(MemoryEngine):
    """Every other batch is loaded as all was before the last commit, as if that were another broker's since."""

    def __init__(self, tables: Tables | None = None) -> None:
        super().__init__(tables)
        self._before = self._saved
        self.stale = False
        self.conflicts = 0

    def is_stale(self) -> bool:
        """Whether the batch that begins is loaded so."""
        return not self.stale

    def begin(self) -> None:
        super().begin()
        self.stale = self.is_stale()
        if self.stale:
            self._now = self._before.copy()

    def save(self, changes: Changes) -> None:
        if not self.stale:
            super().save(changes)
            return
        self._now = self._saved.copy()
        self.conflicts += 1
        if not self.moved(changes):
            self._now = self._saved
            raise Moved  # for what was read and is not changed
        super().save(changes)

    def moved(self, changes: Changes) -> bool:
        """Whether a job that is changed is not as it was loaded."""
        jobs = self._saved.jobs
        return any(
            before.number not in jobs or jobs[before.number].version != before.version for before, _ in changes.changed
        )

    def commit(self) -> None:
        self._before = self._saved
        super().commit()


class Unchecked(Conflicting):
    """A mutant: saves without the version check."""

    def require_unmoved(self, changes: Changes) -> None:
        """Nothing is compared."""
