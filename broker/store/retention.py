"""Retention in SQL: finished jobs are removed, the oldest first, in steps that stall nobody.

A job goes at once and whole, as far as anybody can see: its row first. Its log, which may be large, follows a
bounded piece at a time; `doomed` remembers whose. Numbers are never given twice, so nothing can be confused.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from airunner.broker.store.contract import Outcome, Retain
from airunner.broker.store.rows import Database, fetch_all, fetch_one
from airunner.broker.store.usage import Usage

JOBS_PER_STEP: Final = 64  # of those that are too old; for their size they go one by one, as each may be large
PAIRS_PER_STEP: Final = 1_024  # of metadata; a step ends with the job that reaches this
RUNS_PER_STEP: Final = 256
BYTES_PER_STEP: Final = 8 * 1_048_576  # of logs; some milliseconds
ANSWERS_KEPT_MS: Final = 86_400_000  # a day at least: however short jobs stay, a repeat must not submit twice
_OLDEST: Final = (
    "SELECT number, tenant, length(spec) FROM job WHERE finished_ms IS NOT NULL AND finished_ms < ?"
    " ORDER BY finished_ms LIMIT ?"
)
_NO_INSTANT: Final = 2**62  # later than any job finishes


class _Oldest(NamedTuple):
    number: int
    tenant: str
    size_bytes: int


class _Doomed(NamedTuple):
    number: int
    tenant: str | None


class _Run(NamedTuple):
    rowid: int
    size_bytes: int


class Retention:
    """Removes over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, usage: Usage) -> None:
        self._connection = connection
        self._usage = usage

    def step(self, command: Retain, now_ms: int) -> Outcome:
        """One step; `more` when the next would find something too."""
        if self._remove_logs():
            return Outcome(more=True)
        removed = self._remove_jobs(command.finished_before_ms, JOBS_PER_STEP)
        if not removed and command.store_bytes_max is not None and self._store_bytes() > command.store_bytes_max:
            removed = self._remove_jobs(_NO_INSTANT, 1)
            self._remove_logs()
        answers = self._remove_answers(min(command.finished_before_ms, now_ms - ANSWERS_KEPT_MS))
        return Outcome(more=removed or answers)

    def _remove_jobs(self, finished_before_ms: int, jobs_max: int) -> bool:
        found = fetch_all(self._connection, _Oldest, _OLDEST, (finished_before_ms, jobs_max))
        pairs = 0
        for job in found:
            self._usage.add(job.tenant, -job.size_bytes)
            self._connection.execute("INSERT INTO doomed (number, tenant) VALUES (?, ?)", (job.number, job.tenant))
            self._connection.execute("DELETE FROM metadata WHERE number = ?", (job.number,))
            pairs += self._connection.changes()
            self._connection.execute("DELETE FROM job WHERE number = ?", (job.number,))
            if pairs >= PAIRS_PER_STEP:
                break
        return bool(found)

    def _remove_logs(self) -> bool:
        """Go on with what is doomed; whether there was anything."""
        doomed = fetch_one(
            self._connection,
            _Doomed,
            "SELECT number, tenant FROM doomed WHERE number = (SELECT min(number) FROM doomed)",
            (),
        )
        if doomed is None:
            return False
        runs = fetch_all(
            self._connection,
            _Run,
            "SELECT rowid, length(events) FROM event WHERE number = ? ORDER BY first_sequence LIMIT ?",
            (doomed.number, RUNS_PER_STEP),
        )
        left_bytes = BYTES_PER_STEP
        for run in runs:
            self._connection.execute("DELETE FROM event WHERE rowid = ?", (run.rowid,))
            left_bytes -= run.size_bytes
            if doomed.tenant is not None:
                self._usage.add(doomed.tenant, -run.size_bytes)
            if left_bytes <= 0:
                return True
        if len(runs) < RUNS_PER_STEP:
            self._connection.execute("DELETE FROM doomed WHERE number = ?", (doomed.number,))
        return True

    def _remove_answers(self, answered_before_ms: int) -> bool:
        """A request that is repeated after so long is another one."""
        self._connection.execute(
            "DELETE FROM answer WHERE (tenant, request_id) IN"
            " (SELECT tenant, request_id FROM answer WHERE answered_ms < ? LIMIT ?)",
            (answered_before_ms, RUNS_PER_STEP),
        )
        return self._connection.changes() == RUNS_PER_STEP

    def _store_bytes(self) -> int:
        """What the store takes, less what it has free inside."""
        pages = self._connection.execute(
            "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
        )
        size = self._connection.execute("SELECT page_size FROM pragma_page_size").get
        used = pages.get
        assert isinstance(used, int), "a count of pages"
        assert isinstance(size, int), "a page has a size"
        return used * size
