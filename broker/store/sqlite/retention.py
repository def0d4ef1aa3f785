"""Retention in SQL: finished jobs are removed, the oldest first, in steps that stall nobody.

Where it is the store's size that demands it, they are those of the tenants that take more than their share.

A job goes at once and whole, as far as anybody can see: its row first. Its log, which may be large, follows a
bounded piece at a time; `doomed` remembers whose. Numbers are never given twice, so nothing can be confused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from airunner.broker.store.contract import Outcome, Retain
from airunner.broker.store.sqlite.damage import Aside, about
from airunner.broker.store.sqlite.rows import Database, fetch_all, fetch_one
from airunner.broker.store.sqlite.schema import ANSWER_BYTES
from airunner.broker.store.sqlite.usage import Usage

JOBS_PER_STEP: Final = 64  # of those that are too old; for their size they go one by one, as each may be large
PAIRS_PER_STEP: Final = 1_024  # of metadata; a step ends with the job that reaches this
RUNS_PER_STEP: Final = 256
BYTES_PER_STEP: Final = 8 * 1_048_576  # of logs; some milliseconds
ANSWERS_KEPT_MS: Final = 86_400_000  # a day at least: however short jobs stay, a repeat must not submit twice
_OLDEST: Final = (
    "SELECT number, tenant, length(spec) FROM job WHERE finished_ms IS NOT NULL AND finished_ms < ?"
    " AND {others} ORDER BY finished_ms LIMIT ?"
)
_OLDEST_OF: Final = (
    "SELECT number, tenant, length(spec) FROM job WHERE tenant = ? AND finished_ms IS NOT NULL"
    " AND {others} ORDER BY finished_ms LIMIT 1"
)
_TAKEN: Final = "SELECT coalesce(sum(bytes), 0), count(*) FROM usage WHERE bytes > 0"
_LARGE: Final = "SELECT tenant FROM usage WHERE bytes > ? ORDER BY bytes DESC, tenant"


class _Oldest(NamedTuple):
    number: int
    tenant: str
    size_bytes: int


class _Taken(NamedTuple):
    size_bytes: int
    tenants: int


class _Doomed(NamedTuple):
    number: int
    tenant: str | None


class _Run(NamedTuple):
    rowid: int
    size_bytes: int


class Retention:
    """Removes over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, usage: Usage, aside: Aside) -> None:
        self._connection = connection
        self._usage = usage
        self._aside = aside

    def step(self, command: Retain, now_ms: int) -> Outcome:
        """One step; `more` when the next would find something too."""
        if self._remove_logs():
            return Outcome(more=True)
        removed = self._remove_jobs(
            fetch_all(
                self._connection,
                _Oldest,
                _OLDEST.format(others=self._aside.others),
                (command.finished_before_ms, JOBS_PER_STEP),
            )
        )
        if not removed and command.store_bytes_max is not None:
            store_bytes = self._store_bytes()
            if store_bytes > command.store_bytes_max:
                removed = self._remove_jobs(self._oldest_of_the_largest(command.store_bytes_max / store_bytes))
                self._remove_logs()
        answers = self._remove_answers(min(command.finished_before_ms, now_ms - ANSWERS_KEPT_MS))
        return Outcome(more=removed or answers)

    def _oldest_of_the_largest(self, kept: float) -> list[_Oldest]:
        """The next to go when of all that is stored only `kept` (a part of 1) may stay.

        It is one of whoever takes most, of those that take more than an equal share of it and have any that has ended.
        There is always one that takes more; when what it has still runs, nobody else pays for that.
        """
        taken = fetch_one(self._connection, _Taken, _TAKEN, ())
        assert taken is not None, "a sum"
        if not taken.tenants:
            return []
        share_bytes = int(kept * taken.size_bytes / taken.tenants)
        for (tenant,) in self._connection.execute(_LARGE, (share_bytes,)):
            oldest = _OLDEST_OF.format(others=self._aside.others)
            found = fetch_all(self._connection, _Oldest, oldest, (str(tenant),))
            if found:
                return found
        return []

    def _remove_jobs(self, found: Sequence[_Oldest]) -> bool:
        pairs = 0
        for job in found:
            self._usage.add(job.tenant, -job.size_bytes)
            with about(job.number):
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
            "SELECT number, tenant FROM doomed"
            f" WHERE number = (SELECT min(number) FROM doomed WHERE {self._aside.others})",
            (),
        )
        if doomed is None:
            return False
        with about(doomed.number):
            self._remove_log(doomed)
        return True

    def _remove_log(self, doomed: _Doomed) -> None:
        """Remove a bounded piece of one log; with the last of it, what remembers it."""
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
                return
        if len(runs) < RUNS_PER_STEP:
            self._connection.execute("DELETE FROM doomed WHERE number = ?", (doomed.number,))

    def _remove_answers(self, answered_before_ms: int) -> bool:
        """A request that is repeated after so long is another one."""
        removed = Counter(
            str(tenant)
            for (tenant,) in self._connection.execute(
                "DELETE FROM answer WHERE (tenant, request_id) IN"
                " (SELECT tenant, request_id FROM answer WHERE answered_ms < ? LIMIT ?) RETURNING tenant",
                (answered_before_ms, RUNS_PER_STEP),
            )
        )
        for tenant, answers in removed.items():
            self._usage.add(tenant, -answers * ANSWER_BYTES)
        return removed.total() == RUNS_PER_STEP

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
