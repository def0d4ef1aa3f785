"""SQLite engine: transactions, loading the rows of a batch, and saving its changes.

The file is locked as long as the engine is open: only one broker uses it. Of a changed job only the changed columns are
written, so that only their indexes are touched. Rows are read and written in sets; a set that meets damage, row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import suppress
from itertools import compress
from operator import is_not, itemgetter
from typing import Final

import apsw
from msgspec.structs import astuple

from airunner.broker.store.contract import Moved, Waiting
from airunner.broker.store.embedded import Embedded
from airunner.broker.store.room import TIGHT_JOURNAL_BYTES, TIGHT_JOURNAL_PAGES, Inside
from airunner.broker.store.rows import Changes, JobRow, Keys, Loaded, QueueKey, Record, Segment, Usage
from airunner.broker.store.sqlite.copying import StoreCopy
from airunner.broker.store.sqlite.pages import PageReader
from airunner.broker.store.sqlite.rows import CHECKED, FIELDS, Damaged, Owner, Values, select
from airunner.protocol.errors import NoSpace
from airunner.protocol.names import RequestId
from airunner.protocol.replies import QueueMode

CHECKPOINT_PAGES: Final = 4_096  # pages of WAL between two checkpoints: 16 MiB
JOURNAL_BYTES_MAX: Final = 2 * CHECKPOINT_PAGES * 4_096  # length to which a longer WAL is truncated
_INSIDE: Final = (
    "SELECT page_count * page_size, freelist_count * page_size"
    " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_WAITING: Final = "tenant = ? AND queue = ? AND needs = ? AND gate = 0 ORDER BY priority DESC, number LIMIT ?"
_BY_ID, _BY_ID_WITH_SPEC = (select("job_id = ? AND tenant = ?", spec=spec) for spec in (False, True))
_EXPIRED: Final = "deadline_ms <= ? ORDER BY deadline_ms LIMIT ?"
_DELAYED: Final = "due_ms <= ? ORDER BY due_ms LIMIT ?"
_FINISHED: Final = "finished_ms < ? ORDER BY finished_ms LIMIT ?"
_FINISHED_OF: Final = "tenant = ? AND finished_ms IS NOT NULL ORDER BY finished_ms LIMIT 1"
_USAGE: Final = "SELECT tenant, size_bytes, waiting FROM queue WHERE name = ''"
_AS_LOADED: Final = " AND ".join(f"{column} = ?" for column in CHECKED)
_as_loaded: Final = itemgetter(*map(FIELDS.index, CHECKED))
_RENEWED: Final = "UPDATE job SET deadline_ms = ifnull(?2 + visibility_ms, deadline_ms) WHERE number = ?1"
_RETRIED: Final = "UPDATE job SET due_ms = min(due_ms, ?2 + pause_ms) WHERE number = ?1 AND pause_ms IS NOT NULL"
_REMOVE_SEGMENTS: Final = (
    "WITH piece AS (SELECT rowid, first_sequence, length(events) AS size_bytes FROM segment WHERE number = ?"
    " ORDER BY first_sequence LIMIT ?), summed AS (SELECT rowid, sum(size_bytes) OVER (ORDER BY first_sequence)"
    " - size_bytes AS before_bytes FROM piece) DELETE FROM segment WHERE rowid IN"
    " (SELECT rowid FROM summed WHERE before_bytes < ?) RETURNING length(events)"
)
_LOG_REMOVED: Final = (
    "DELETE FROM pending_deletion WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM segment WHERE number = ?1)"
)
_FORGET: Final = (
    "DELETE FROM record WHERE (tenant, request_id) IN"
    " (SELECT tenant, request_id FROM record WHERE answered_ms < ? LIMIT ?) RETURNING tenant"
)
_RECORD: Final = f"SELECT {', '.join(Record.__struct_fields__)} FROM record WHERE tenant = ? AND request_id = ?"
_RECORDS: Final = _RECORD.replace("request_id = ?", "request_id > ? ORDER BY request_id LIMIT ?")
_DROP_QUEUE: Final = (
    "DELETE FROM queue WHERE tenant = ?1 AND name = ?2 AND mode = 'open' AND waiting = 0 AND running = 0"
    " AND NOT EXISTS (SELECT 1 FROM job WHERE tenant = ?1 AND queue = ?2)"
)


def _insert(table: str, columns: tuple[str, ...], **otherwise: str) -> str:
    """Build a statement that inserts a row of all columns; or, if the row exists, sets those in `otherwise`."""
    named = f" ({', '.join(columns)})" if otherwise else ""  # else short: apsw hashes each; a test holds the order
    conflict = ", ".join(f"{column} = {value.format(column)}" for column, value in otherwise.items())
    insert = f"INSERT INTO {table}{named} VALUES ({', '.join('?' * len(columns))})"
    return f"{insert} ON CONFLICT DO UPDATE SET {conflict}" if conflict else insert


_SET: Final = "excluded.{0}"
_ADD: Final = "{0} + excluded.{0}"
_ADD_JOB: Final = _insert("job", FIELDS)
_ADD_SEGMENT: Final = _insert("segment", Segment.__struct_fields__)
_ADD_FACT: Final = _insert("metadata", ("tenant", "fact", "number")).replace("INSERT", "INSERT OR IGNORE")
_ADD_RECORD: Final = _insert("record", Record.__struct_fields__)
_SET_MODE: Final = _insert("queue", ("tenant", "name", "mode"), mode=_SET)
_SET_SECRET: Final = _insert("secret", ("tenant", "queue", "name", "box", "set_ms"), box=_SET, set_ms=_SET)
_COUNTS: Final = ("waiting", "delayed", "running", "size_bytes")
_COUNT_QUEUE: Final = _insert("queue", ("tenant", "name", *_COUNTS), **dict.fromkeys(_COUNTS, _ADD))
_COUNT_KIND: Final = _insert("kind", ("tenant", "queue", "needs", "jobs"), jobs=_ADD)

_FIRST: Final = itemgetter(0)
_Write = tuple[str, Collection[Values], Callable[[Values], Owner] | None]
"""Write statement, run for each of the rows; the function finds the job or request that a row belongs to, if any."""


class SqliteEngine(PageReader, Embedded):
    """See `contract.Engine`."""

    batch_max = 256  # commands in one transaction, which share one fsync
    alone = True

    def begin(self) -> None:
        self._undo()
        self._run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._run("COMMIT")

    def load(self, keys: Keys) -> Loaded:
        if not self._next_number:
            # A removed job's number may still be in its log. Both tables are read: the end of one may be damaged.
            last = [number for table in ("segment", "job") for (number,) in self._last(table)]
            self._next_number = 1 + max((number or 0 for number in last), default=2**62)
        found = Loaded(numbers=range(self._next_number, 2**63))
        for some, by_id in ((keys.jobs - keys.specs, _BY_ID), (keys.specs, _BY_ID_WITH_SPEC)) if keys.jobs else ():
            found.jobs += self._fetch_each(list[JobRow], by_id, [key[::-1] for key in some], _FIRST)
        if keys.grants:
            by_grant = select(f"{self._others} AND tenant = ? AND lease_request = ?")
            if granted := self._fetch_each(list[JobRow], by_grant, keys.grants, tuple):
                found.jobs = list({row.number: row for row in (*found.jobs, *granted)}.values())
        keys.add_retried(found.jobs)
        found.records = self._fetch_each(list[Record], _RECORD, keys.records, tuple)
        if keys.queues:
            sql = "SELECT tenant, name, mode FROM queue WHERE tenant = ? AND name = ?"
            modes = self._fetch(list[tuple[str, str, QueueMode]], sql, {key[:2] for key in keys.queues})
            found.modes = {QueueKey(tenant, name): mode for tenant, name, mode in modes}
        if keys.kinds:
            sql = "SELECT tenant, queue, needs, jobs FROM kind WHERE tenant = ? AND queue = ?"
            kinds = self._fetch(list[tuple[str, str, str, int]], sql, {key[:2] for key in keys.kinds})
            found.kinds = {QueueKey(*key): jobs for *key, jobs in kinds}
        if keys.tenants:
            tenants = [(tenant,) for tenant in keys.tenants]
            sql = "SELECT tenant, count(*) FROM kind WHERE tenant = ? GROUP BY tenant"
            found.kinds_of = dict(self._fetch(list[tuple[str, int]], sql, tenants))
            found.usage = self._usage(f"{_USAGE} AND tenant = ?", tenants)
        if self._aside:
            found.damaged = {owner for owner in self._aside if isinstance(owner, str)}
            found.damaged |= {row.job_id for row in found.jobs if row.number in self._aside}
            found.unreadable = keys.grants.union(keys.records) & self._aside
        return found

    def _last(self, table: str) -> list[Values]:
        return self._fetch_each(list[Values], f"SELECT max(number) FROM {table}", ((),), lambda _: (table,))

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        return Waiting(self._fetch_sound(_WAITING, [(*key, how_many) for key, how_many in wanted.items()]))

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        return [job for where in (_EXPIRED, _DELAYED) for job in self._fetch_sound(where, ((now_ms, limit),))]

    def next_due_ms(self) -> int | None:
        first = "SELECT * FROM (SELECT {0} FROM job WHERE {0} IS NOT NULL AND {1} ORDER BY {0} LIMIT 1)"
        both = " UNION ALL ".join(first.format(column, self._others) for column in ("deadline_ms", "due_ms"))
        return min((at_ms for (at_ms,) in self._run(both)), default=None)

    def save(self, changes: Changes) -> None:
        try:
            self._write(lambda: self._changes(changes), changes.added)
            self._next_number += len(changes.added)
        except apsw.ConstraintError as error:  # a number or a request id that exists already, stored by another broker
            raise self._moved() from error

    def renew_all(self, now_ms: int) -> None:
        self._write(lambda: self._renew_all(now_ms))

    def _write(self, writes: Callable[[], Iterable[_Write]], added: Iterable[JobRow] = ()) -> None:
        """Run statements on sets of rows; after damage row by row. Raises `Moved`: owners of rows were set aside."""
        try:
            for sql, rows, _ in writes():
                if rows:
                    self._run(sql, rows)
        except Damaged as error:
            self.begin()
            ids: dict[object, Owner] = {row.number: row.job_id for row in added}  # their numbers are not stored yet
            owners: list[Owner | None] = []
            with suppress(Moved):  # a damaged row is not changed, so `_changed` counts too few
                for sql, rows, owner_of in writes():
                    for row in rows:
                        try:
                            self._run(sql, (row,))
                        except Damaged:
                            owners.append(owner_of and ids.get(owner := owner_of(row), owner))
                            self.begin()
            if not owners or None in owners:
                raise
            raise self._moved(*owners) from error

    def _changes(self, changes: Changes) -> Generator[_Write]:
        """List the statements of a batch. Raises `Moved` after the statements that change jobs."""
        if changes.changed or changes.removed:
            yield from self._changed(changes)
        yield _ADD_JOB, list(map(astuple, changes.added)), _FIRST
        yield _ADD_SEGMENT, list(map(astuple, changes.segments)), _FIRST
        yield _ADD_FACT, changes.facts, itemgetter(2)
        yield _ADD_RECORD, list(map(astuple, changes.records)), itemgetter(slice(2))
        counts = [(*key[:2], *counts, 0) for key, counts in changes.counts.items()]
        usages = [(tenant, "", usage.waiting, 0, 0, usage.size_bytes) for tenant, usage in changes.usage.items()]
        yield _COUNT_QUEUE, counts + usages, None
        if changes.kinds:
            yield _COUNT_KIND, [(*key, jobs) for key, jobs in changes.kinds.items()], None
            ended = [key for key, jobs in changes.kinds.items() if jobs < 0]
            yield "DELETE FROM kind WHERE tenant = ? AND queue = ? AND needs = ? AND jobs <= 0", ended, None
        yield _SET_SECRET, list(map(astuple, changes.secrets)), None
        yield "DELETE FROM secret WHERE tenant = ? AND queue = ? AND name = ?", changes.secrets_removed, None
        if changes.modes or changes.removed:
            yield _SET_MODE, [(*key[:2], mode) for key, mode in changes.modes.items()], None
            yield _DROP_QUEUE, {row.key[:2] for row in changes.removed} | {key[:2] for key in changes.modes}, None

    def _changed(self, changes: Changes) -> Generator[_Write]:
        """Update and remove jobs. Raises `Moved`: a job's row has changed since it was loaded."""
        updates: dict[tuple[bool, ...], list[Values]] = {}
        for old, new in changes.changed:
            loaded, values = astuple(old), astuple(new)
            differs = tuple(map(is_not, loaded, values))
            if True in differs:
                updates.setdefault(differs, []).append((*compress(values, differs), *_as_loaded(loaded)))
        expected = self._db.total_changes() + sum(map(len, updates.values())) + len(changes.removed)
        for differs, rows in updates.items():
            columns = "=?,".join(compress(FIELDS, differs))
            yield f"UPDATE job SET {columns}=? WHERE {_AS_LOADED}", rows, itemgetter(-len(CHECKED))
        removed = [_as_loaded(astuple(row)) for row in changes.removed]
        yield f"DELETE FROM job WHERE {_AS_LOADED}", removed, _FIRST
        if self._db.total_changes() != expected:
            raise self._moved()
        if removed:
            yield "DELETE FROM metadata WHERE number = ?", [row[:1] for row in removed], _FIRST
            pending = [(row.number, row.tenant) for row in changes.removed]
            yield "INSERT INTO pending_deletion (number, tenant) VALUES (?, ?)", pending, None

    def _renew_all(self, now_ms: int) -> Generator[_Write]:
        for sql, column in ((_RENEWED, "deadline_ms"), (_RETRIED, "due_ms")):
            numbers = self._run(f"SELECT number FROM job WHERE {column} IS NOT NULL AND {self._others}")
            yield sql, [(number, now_ms) for (number,) in numbers], _FIRST

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        return self._fetch_sound(_FINISHED, ((before_ms, limit),))

    def finished_of(self, tenant: str) -> JobRow | None:
        return next(iter(self._fetch_sound(_FINISHED_OF, ((tenant,),))), None)

    def store_bytes(self) -> int:
        return self.inside().store_bytes - self.inside().reusable_bytes

    def usages(self) -> dict[str, Usage]:
        return self._usage(_USAGE)

    def _usage(self, sql: str, tenants: Iterable[Values] = ((),)) -> dict[str, Usage]:
        return {tenant: Usage(*usage) for tenant, *usage in self._fetch(list[tuple[str, int, int]], sql, tenants)}

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        pending = f"SELECT number, tenant FROM pending_deletion WHERE {self._others} ORDER BY number LIMIT 1"
        for number, tenant in self._run(pending):
            try:
                freed = self._run(_REMOVE_SEGMENTS, ((number, segments_max, bytes_max),))
                self._run(_LOG_REMOVED, ((number,),))
            except Damaged as error:
                raise self._moved(number) from error
            return {tenant: sum(size_bytes for (size_bytes,) in freed)}, True
        return {}, False

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        if (_FORGET,) in self._aside:
            return {}
        try:
            return Counter(tenant for (tenant,) in self._run(_FORGET, ((answered_before_ms, limit),)))
        except Damaged as error:
            raise self._moved((_FORGET,)) from error

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        return self._page(list[JobRow], select("number > ? ORDER BY number LIMIT ?"), (number, limit))

    def records_after(self, tenant: str, request_id: RequestId, limit: int) -> list[Record]:
        return self._page(list[Record], _RECORDS, (tenant, request_id, limit))

    def faults(self, limit: int) -> list[str]:
        """List the faults that SQLite finds in the file."""
        try:
            return [line for (line,) in self._run(f"PRAGMA integrity_check({limit})") if line != "ok"]
        except Damaged as error:
            return [str(error.__cause__)]

    def inside(self) -> Inside:
        """Measure the size that the file has once the journal is written back."""
        return self._fetch(list[Inside], _INSIDE)[0]

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        """Set the journal's length: short (`tight`), and so written back early, or the usual one.

        `shorten`: truncate the journal now, because it is longer than the short length.
        """
        pages = TIGHT_JOURNAL_PAGES if tight else CHECKPOINT_PAGES
        size_bytes = TIGHT_JOURNAL_BYTES if tight else JOURNAL_BYTES_MAX
        self._run(f"PRAGMA wal_autocheckpoint = {pages}")
        self._run(f"PRAGMA journal_size_limit = {size_bytes}")
        if tight:
            self._checkpoint("TRUNCATE" if shorten else "RESTART")

    def write_back(self) -> None:
        """Write the journal back into the store, as far as there is room, so that the journal can be reused."""
        self._checkpoint("RESTART")  # the journal keeps its disk space, and is overwritten from its start

    def _checkpoint(self, mode: str) -> None:
        with suppress(NoSpace):
            self._run(f"PRAGMA wal_checkpoint({mode})")

    def copy_to(self, descriptor: int) -> StoreCopy:
        """Start a copy of the store into an open file; see `StoreCopy`."""
        return StoreCopy(self._db, descriptor)

    def close(self) -> None:
        self._db.close()
