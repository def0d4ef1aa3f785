"""Saving of a batch's changes, in one round trip together with COMMIT.

Each statement writes a set of rows, given as arrays. Of a job only the columns that some job of the batch has changed
in the same way are written. The version of each job is compared, though its row is locked: if fewer rows are changed
than should be, a division by zero fails the transaction on the server, before its COMMIT is reached (`Moved`).

No statement here waits for a lock that another batch may hold until its own next trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import is_not, itemgetter
from typing import Any, Final

from msgspec.structs import astuple

from airunner.broker.store.postgres.arrays import COLUMN_OF, Column, bigints, byteas, columns, texts
from airunner.broker.store.postgres.batches import Batch, Log, Memory
from airunner.broker.store.postgres.loading import ANY_JOB, CLAIM, claims
from airunner.broker.store.postgres.places import place_of
from airunner.broker.store.postgres.schema import needs_key
from airunner.broker.store.postgres.trips import Trips
from airunner.broker.store.rows import Changes, JobRow, Segment, Version

FIELDS: Final = JobRow.__struct_fields__
CHECKED: Final = ("number", *Version._fields)  # columns that show that a job's row is still as it was loaded
COUNTED: Final = "WITH done AS ({} RETURNING 1) SELECT 1 / (CASE WHEN count(*) = %b THEN 1 ELSE 0 END) FROM done"
_AS_LOADED: Final = " AND ".join(f"job.{column} = old.{column}" for column in CHECKED)
_OLD: Final = ", ".join(CHECKED)


def _unnest(count: int) -> str:
    return f"unnest({', '.join(['%b'] * count)})"


def _delete(table: str, *key: str) -> str:
    """Build the statement that removes the rows with these columns."""
    own, old = (", ".join(f"{name}.{column}" for column in key) for name in (table, "old"))
    return f"DELETE FROM airunner.{table} USING {_unnest(len(key))} AS old({', '.join(key)}) WHERE ({own}) = ({old})"


ADD_JOBS: Final = f"INSERT INTO airunner.job ({', '.join(FIELDS)}) SELECT * FROM {_unnest(len(FIELDS))}"
REMOVE_JOBS: Final = COUNTED.format(_delete("job", *CHECKED))
REMOVE_FACTS: Final = "DELETE FROM airunner.metadata WHERE number = ANY(%b)"
ADD_PENDING: Final = f"INSERT INTO airunner.pending_deletion (number, tenant) SELECT * FROM {_unnest(2)}"
_WAITING: Final = ("tenant", "queue", "needs", "place", "number")
ADD_WAITING: Final = f"INSERT INTO airunner.waiting ({', '.join(_WAITING)}) SELECT * FROM {_unnest(5)}"
REMOVE_WAITING: Final = _delete("waiting", *_WAITING)
_SEGMENT: Final = Segment.__struct_fields__
ADD_SEGMENTS: Final = f"INSERT INTO airunner.segment ({', '.join(_SEGMENT)}) SELECT * FROM {_unnest(len(_SEGMENT))}"
ADD_FACTS: Final = (
    f"INSERT INTO airunner.metadata (tenant, fact, number) SELECT * FROM {_unnest(3)} ON CONFLICT DO NOTHING"
)
REMOVE_RECORDS: Final = _delete("record", "tenant", "request_id")
_COUNTS: Final = ("waiting", "delayed", "running", "size_bytes")
COUNT: Final = (
    f"INSERT INTO airunner.tally AS own (broker, tenant, queue, {', '.join(_COUNTS)}) SELECT %b, * FROM {_unnest(6)}"
    f" ON CONFLICT (tenant, queue, broker) DO UPDATE SET {', '.join(f'{c} = own.{c} + excluded.{c}' for c in _COUNTS)}"
)
COUNT_KINDS: Final = (
    f"INSERT INTO airunner.kind AS own (broker, tenant, queue, needs, words, jobs) SELECT %b, * FROM {_unnest(5)}"
    " ON CONFLICT (tenant, queue, needs, broker) DO UPDATE SET jobs = own.jobs + excluded.jobs"
)
# Rows that are locked and add up to nothing may be removed, whatever rows of the same key others are changing.
FORGET_KINDS: Final = (
    f"WITH own AS (SELECT kind.* FROM {_unnest(3)} AS key(tenant, queue, needs) JOIN airunner.kind"
    " USING (tenant, queue, needs) FOR UPDATE OF kind SKIP LOCKED),"
    " none AS (SELECT tenant, queue, needs FROM own GROUP BY 1, 2, 3 HAVING sum(jobs) = 0)"
    " DELETE FROM airunner.kind USING own JOIN none USING (tenant, queue, needs)"
    " WHERE (kind.tenant, kind.queue, kind.needs, kind.broker) = (own.tenant, own.queue, own.needs, own.broker)"
)
FORGET_TALLIES: Final = (
    f"WITH own AS (SELECT tally.* FROM {_unnest(2)} AS key(tenant, queue) JOIN airunner.tally"
    " USING (tenant, queue) FOR UPDATE OF tally SKIP LOCKED), none AS (SELECT tenant, queue FROM own GROUP BY 1, 2"
    " HAVING (sum(waiting), sum(delayed), sum(running), sum(size_bytes)) = (0, 0, 0, 0))"
    " DELETE FROM airunner.tally USING own JOIN none USING (tenant, queue)"
    " WHERE (tally.tenant, tally.queue, tally.broker) = (own.tenant, own.queue, own.broker)"
)
SET_SECRETS: Final = (
    f"INSERT INTO airunner.secret (tenant, queue, name, box, set_ms) SELECT * FROM {_unnest(5)}"
    " ON CONFLICT (tenant, queue, name) DO UPDATE SET box = excluded.box, set_ms = excluded.set_ms"
)
REMOVE_SECRETS: Final = _delete("secret", "tenant", "queue", "name")
SET_MODES: Final = (
    f"UPDATE airunner.queue SET mode = new.mode FROM {_unnest(3)} AS new(tenant, name, mode)"
    " WHERE queue.tenant = new.tenant AND queue.name = new.name"
)
FORGET_QUEUES: Final = f"{_delete('queue', 'tenant', 'name')} AND mode = 'open' AND {ANY_JOB} IS NULL"
REMOVE_SEGMENTS: Final = _delete("segment", "number", "first_sequence")
REMOVE_PENDING: Final = "DELETE FROM airunner.pending_deletion WHERE number = ANY(%b)"
REMOVE_BROKERS: Final = "DELETE FROM airunner.broker WHERE broker = ANY(%b)"
SKIP_NUMBERS: Final = "SELECT setval('airunner.job_number', greatest(last_value, %b)) FROM airunner.job_number"
READY: Final = "UPDATE airunner.broker SET ready_seq = ready_seq + 1 WHERE broker = %b"
NEXT_DUE: Final = " UNION ALL ".join(
    f"SELECT * FROM (SELECT {column} FROM airunner.job WHERE broker = %b AND {column} >= %b AND job_id != ALL(%b)"
    f" ORDER BY {column} LIMIT 1) AS {column}"
    for column in ("deadline_ms", "due_ms")
)


class Removals:
    """Removals that a step of retention has asked for, of rows that were loaded and locked for it."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, int]] = []  # number of the job, first sequence
        self.logs: list[int] = []  # jobs whose last segment is among these
        self.records: list[tuple[str, bytes]] = []
        self.brokers: list[str] = []

    def remove_logs(self, logs: list[Log], segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        """Remove a part of the first of these logs; see `contract.Engine`."""
        if not logs:
            return {}, False
        log, freed = logs[0], 0
        for _ in range(min(segments_max, len(log.sizes))):
            if freed >= bytes_max:
                break
            first_sequence, size_bytes = log.sizes.pop(0)
            self.segments.append((log.number, first_sequence))
            freed += size_bytes
        if not log.sizes:
            del logs[0]
            if log.whole:
                self.logs.append(log.number)
        return {log.tenant: freed}, True


def ask(trips: Trips, changes: Changes, batch: Batch, removals: Removals) -> None:
    """Queue the statements that save a batch."""
    _ask_changed(trips, changes)
    if changes.added:
        trips.add("add", ADD_JOBS, *columns(changes.added, FIELDS, tuple(COLUMN_OF.values())))
        if batch.keys.new_jobs < len(changes.added):  # a copy brings its numbers with it
            trips.add("skip_numbers", SKIP_NUMBERS, max(job.number for job in changes.added))
    ready, unready = moved(changes)
    for name, statement, jobs in (("unready", REMOVE_WAITING, unready), ("ready", ADD_WAITING, ready)):
        if jobs:
            trips.add(name, statement, *_places(jobs))
    if changes.segments:
        kinds: list[Column] = [*[bigints] * 5, byteas]
        trips.add("segments", ADD_SEGMENTS, *columns(changes.segments, _SEGMENT, kinds))
    if changes.facts:
        trips.add("facts", ADD_FACTS, *_transposed(changes.facts, texts, byteas, bigints))
    _ask_records(trips, changes, batch, removals)
    _ask_counts(trips, changes)
    if changes.secrets:
        rows = list(map(astuple, changes.secrets))
        trips.add("secrets", SET_SECRETS, *_transposed(rows, texts, texts, texts, byteas, bigints))
    if changes.secrets_removed:
        trips.add("no_secrets", REMOVE_SECRETS, *_transposed(changes.secrets_removed, texts, texts, texts))
    _ask_queues(trips, changes, batch)
    if removals.segments:
        trips.add("remove_segments", REMOVE_SEGMENTS, *_transposed(removals.segments, bigints, bigints))
    if removals.brokers:
        trips.add("remove_brokers", REMOVE_BROKERS, texts(removals.brokers))
    if removals.logs:
        trips.add("remove_pending", REMOVE_PENDING, bigints(removals.logs))


def _ask_records(trips: Trips, changes: Changes, batch: Batch, removals: Removals) -> None:
    """Queue the removal of records of refused requests; that of a request's first copy may give way to another's."""
    answered = {(record.tenant, record.request_id): record for record in changes.records}
    assert answered.keys() <= batch.claimed, "a record that the keys of the batch did not name"
    others = {key: record for key, record in answered.items() if record != batch.keys.records[key]()}
    if unanswered := [*sorted(batch.claimed - (answered.keys() - others)), *removals.records]:
        trips.add("records", REMOVE_RECORDS, *_transposed(unanswered, texts, byteas))
    if others:
        trips.add("other_records", CLAIM, *claims([*others.values()]))


def _ask_changed(trips: Trips, changes: Changes) -> None:
    updates: dict[tuple[bool, ...], list[tuple[Any, ...]]] = {}
    for old, new in changes.changed:
        loaded, values = astuple(old), astuple(new)
        differs = tuple(map(is_not, loaded, values))
        if True in differs:
            updates.setdefault(differs, []).append((*compress(values, differs), *_as_loaded(loaded)))
    for at, (differs, rows) in enumerate(updates.items()):
        changed = tuple(compress(FIELDS, differs))
        kinds = [COLUMN_OF[name] for name in (*changed, *CHECKED)]
        trips.add(f"change {at}", _update(changed), *_transposed(rows, *kinds), len(rows))
    if changes.removed:
        kinds = [COLUMN_OF[name] for name in CHECKED]
        trips.add("remove", REMOVE_JOBS, *columns(changes.removed, CHECKED, kinds), len(changes.removed))
        numbers = bigints([job.number for job in changes.removed])
        trips.add("no_facts", REMOVE_FACTS, numbers)
        trips.add("pending", ADD_PENDING, numbers, texts([job.tenant for job in changes.removed]))


_as_loaded: Final = itemgetter(*map(FIELDS.index, CHECKED))


def _update(changed: Sequence[str]) -> str:
    """Build the statement that changes these columns of jobs that are as they were loaded."""
    new = ", ".join(f"new_{name}" for name in changed)
    sets = ", ".join(f"{name} = old.new_{name}" for name in changed)
    arrays = _unnest(len(changed) + len(CHECKED))
    return COUNTED.format(f"UPDATE airunner.job SET {sets} FROM {arrays} AS old({new}, {_OLD}) WHERE {_AS_LOADED}")


def moved(changes: Changes) -> tuple[list[JobRow], list[JobRow]]:
    """List the jobs that may be leased after a batch and could not be before, and the other way round."""
    ready = [job for job in changes.added if not job.gate]
    ready += [new for old, new in changes.changed if old.gate and not new.gate]
    unready = [new for old, new in changes.changed if new.gate and not old.gate]
    return ready, unready


def instants_of(changes: Changes) -> list[int]:
    """List the instants at which the saved jobs are due."""
    rows = (*changes.added, *(new for _, new in changes.changed))
    return [at for row in rows for at in (row.deadline_ms, row.due_ms) if at is not None]


def _places(jobs: Sequence[JobRow]) -> list[bytes]:
    rows = [(job.tenant, job.queue, needs_key(job.needs), *place_of(job)) for job in jobs]
    return _transposed(rows, texts, texts, byteas, bigints, bigints)


def _ask_counts(trips: Trips, changes: Changes) -> None:
    counts = [(*key[:2], *added, 0) for key, added in changes.counts.items() if any(added)]
    counts += [(tenant, "", usage.waiting, 0, 0, usage.size_bytes) for tenant, usage in changes.usage.items()]
    if counts:
        trips.add("count", COUNT, trips.broker, *_transposed(sorted(counts), texts, texts, *[bigints] * 4))
    if changes.kinds:
        kinds = [(*key[:2], needs_key(key.needs), key.needs, added) for key, added in sorted(changes.kinds.items())]
        trips.add("count_kinds", COUNT_KINDS, trips.broker, *_transposed(kinds, texts, texts, byteas, texts, bigints))
    if ended := [(*key[:2], needs_key(key.needs)) for key, added in changes.kinds.items() if added < 0]:
        trips.add("forget_kinds", FORGET_KINDS, *_transposed(ended, texts, texts, byteas))


def _ask_queues(trips: Trips, changes: Changes, batch: Batch) -> None:
    """Queue changes of modes, and the removal of locked queues that are open and have no job."""
    if changes.modes:
        modes = [(*key[:2], mode) for key, mode in changes.modes.items()]
        trips.add("modes", SET_MODES, *_transposed(modes, texts, texts, texts))
    gone = {job.key[:2] for job in changes.removed} & batch.emptied
    unused = {key[:2] for key in batch.opened if key not in changes.counts}
    if empty := sorted(gone | unused | {key[:2] for key in changes.modes}):
        trips.add("forget_queues", FORGET_QUEUES, *_transposed(empty, texts, texts))
        trips.add("forget_tallies", FORGET_TALLIES, *_transposed(empty, texts, texts))


def ask_end(trips: Trips, memory: Memory, *, ready: bool) -> None:
    """Queue what ends a batch: its number if jobs may be leased after it, the next due instant, and COMMIT."""
    if ready:
        trips.add("ready_seq", READY, trips.broker)
    one = (trips.broker, memory.due_from_ms, texts(sorted(memory.aside)))
    trips.add("next_due", NEXT_DUE, *one, *one)
    trips.add("commit", "COMMIT")


def _transposed(rows: Sequence[Sequence[Any]], *kinds: Column) -> list[bytes]:
    return [kind(column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)]
