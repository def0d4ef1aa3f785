"""Pages of lists and logs. All reads of a batch are in one transaction, and so see the store at one instant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from airunner.broker.store.contract import ABOVE_ALL_CHARACTERS, JobFilter, Page
from airunner.broker.store.postgres.arrays import text, texts
from airunner.broker.store.postgres.batches import Batch
from airunner.broker.store.postgres.loading import ANY_JOB, BRIEF, JOB, KINDS
from airunner.broker.store.postgres.pipeline import Value
from airunner.broker.store.postgres.trips import Trips
from airunner.broker.store.rows import (
    STDIN_SEQUENCE,
    BrokerRow,
    JobRow,
    Keys,
    QueueCounts,
    QueueKey,
    QueueRow,
    Record,
    SecretRow,
    Segment,
)
from airunner.protocol.names import JobId, RequestId

PIECE_BYTES: Final = 1_048_576  # bytes of a log that are read in one round trip
PIECE_SEGMENTS: Final = 512  # segments read in one round trip
_ABOVE_ALL: Final = 2**62  # larger than the number of any job
NAMED: Final = (
    f"SELECT {BRIEF}, CASE WHEN job.job_id = ANY(%b) THEN job.spec ELSE '' END FROM unnest(%b, %b)"
    " AS key(tenant, job_id) JOIN airunner.job USING (tenant, job_id)"
)
LOOKED: Final = (
    "WITH looked AS (SELECT number FROM airunner.job WHERE {} AND number < %b ORDER BY {} LIMIT %b)"
    " SELECT count(*), min(number), (SELECT job_id FROM airunner.job WHERE number = (SELECT min(number) FROM looked))"
    " FROM looked"
)
QUEUES: Final = (
    "SELECT queue.name, queue.mode, coalesce(sum(waiting), 0)::bigint, coalesce(sum(delayed), 0)::bigint,"
    " coalesce(sum(running), 0)::bigint, (SELECT submitted_ms FROM airunner.job WHERE number = (SELECT number"
    " FROM airunner.waiting WHERE waiting.tenant = queue.tenant AND waiting.queue = queue.name"
    " ORDER BY number LIMIT 1))"
    " FROM (SELECT tenant, name, mode FROM airunner.queue WHERE tenant = %b AND name > %b AND {} AND {}"
    " ORDER BY name LIMIT %b) AS queue LEFT JOIN airunner.tally ON tally.tenant = queue.tenant"
    " AND tally.queue = queue.name GROUP BY queue.tenant, queue.name, queue.mode ORDER BY queue.name"
)
_STORED: Final = f"(mode != 'open' OR {ANY_JOB} IS NOT NULL)"
READY: Final = (
    "SELECT %b, queue, words, (SELECT count(*) FROM (SELECT FROM airunner.waiting WHERE tenant = %b"
    " AND waiting.queue = found.queue AND waiting.needs = found.needs LIMIT %b) AS some_of_them)"
    f" FROM (SELECT name AS queue, ''::bytea AS needs, '' AS words FROM airunner.queue WHERE tenant = %b AND {_STORED}"
    " UNION ALL SELECT queue, needs, words FROM airunner.kind WHERE tenant = %b GROUP BY queue, needs, words"
    " HAVING sum(jobs) > 0 ORDER BY 1, 3 LIMIT %b) AS found"
)
TOTALS: Final = (
    "SELECT coalesce(sum(waiting), 0)::bigint, coalesce(sum(delayed), 0)::bigint, coalesce(sum(running), 0)::bigint"
    " FROM (SELECT sum(waiting) AS waiting, sum(delayed) AS delayed, sum(running) AS running FROM airunner.tally"
    " WHERE queue != '' GROUP BY tenant, queue LIMIT %b) AS found"
)
SECRETS: Final = (
    "SELECT tenant, queue, name, ''::bytea, set_ms FROM airunner.secret WHERE tenant = %b AND (queue, name) > (%b, %b)"
    " AND {} ORDER BY queue, name LIMIT %b"
)
BOXES: Final = "SELECT tenant, queue, name, box, set_ms FROM airunner.secret WHERE tenant = %b AND queue = %b"
BROKERS: Final = (
    "SELECT broker, epoch, beat, ready_seq, requests, events, version, dead, (SELECT count(*) FROM airunner.job"
    " WHERE job.broker = broker.broker AND deadline_ms IS NOT NULL AND tenant = %b AND agent IS NOT NULL AND {})"
    " FROM airunner.broker ORDER BY broker"
)
JOBS_AFTER: Final = f"SELECT {JOB} FROM airunner.job WHERE number > %b ORDER BY number LIMIT %b"
RECORDS_AFTER: Final = (
    "SELECT tenant, request_id, body_hash, answered_ms, job_ids FROM airunner.record WHERE tenant = %b"
    " AND request_id > %b ORDER BY request_id LIMIT %b"
)
LEASES: Final = (
    "SELECT agent, count(*) FROM airunner.job WHERE deadline_ms IS NOT NULL AND tenant = %b AND agent IS NOT NULL"
    " GROUP BY agent"
)
SEGMENTS: Final = (
    "SELECT number, first_sequence, count, attempt, last_timestamp_ms, CASE WHEN size_bytes = 0 THEN '' ELSE events END"
    " FROM (SELECT *, sum(size_bytes) OVER (ORDER BY first_sequence) - size_bytes AS before_bytes FROM (SELECT *,"
    " CASE WHEN last_timestamp_ms < %b THEN 0 ELSE length(events) END AS size_bytes FROM airunner.segment"
    " WHERE number = %b AND first_sequence >= coalesce((SELECT max(first_sequence) FROM airunner.segment"
    " WHERE number = %b AND first_sequence <= %b), 0) ORDER BY first_sequence LIMIT %b) AS piece) AS summed"
    " WHERE before_bytes < %b ORDER BY first_sequence"
)
PREFIXED: Final = "(SELECT * FROM airunner.job WHERE job_id >= %b AND job_id < %b OFFSET 0) AS job"
_HAS_FACT: Final = (  # counted, for each job: of EXISTS the planner may make a join that reads all metadata
    "(SELECT count(*) FROM airunner.metadata WHERE tenant = %b AND fact = %b AND metadata.number = job.number) = 1"
)
T = TypeVar("T")
_Condition = tuple[Any, ...]  # SQL, and its values


class PageReader:
    """Reader of pages; see `contract.Engine`."""

    def __init__(self, trips: Trips) -> None:
        self._trips = trips
        self._batch = Batch()

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        found, ordered, values, last = self._found(wanted, before, looked_max, bounded=skip + limit > looked_max)
        rows = self._page(
            list[JobRow], f"SELECT {JOB} {found} ORDER BY {ordered} LIMIT %b OFFSET %b", *values, limit, skip
        )
        if last is None or len(rows) == limit:
            return Page(jobs=rows)
        if skip and not rows:
            ((skip,),) = self._rows(f"SELECT count(*) {found}", *values)
        return Page(jobs=rows, stopped_at=last, skipped=skip)

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        found, _, values, last = self._found(wanted, None, looked_max)
        ((jobs,),) = self._rows(f"SELECT count(*) FROM (SELECT {found} LIMIT %b) AS found", *values, limit + 1)
        return min(jobs, limit), last is not None or jobs > limit

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        which, *chosen = _within("name", names)
        return self._page(list[QueueRow], QUEUES.format(which, _STORED), tenant, after, *chosen, limit)

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        asked = [_within("queue", names), *([] if queue is None else [("queue = %b", queue)])]
        where, values = _joined(asked)
        return self._page(list[SecretRow], SECRETS.format(where), tenant, *after, *values, limit)

    def ready(self, tenant: str, limit: int, counted_max: int) -> dict[QueueKey, int]:
        rows = self._rows(READY, tenant, tenant, counted_max, tenant, tenant, limit)
        return {QueueKey(*key): jobs for *key, jobs in rows}

    def totals(self, queues_max: int) -> QueueCounts:
        return self._page(list[QueueCounts], TOTALS, queues_max)[0]

    def brokers(self, tenant: str, queues: frozenset[str] | None) -> list[BrokerRow]:
        which, *chosen = _within("queue", queues)
        return self._page(list[BrokerRow], BROKERS.format(which), tenant, *chosen)

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        """Load the first jobs with higher numbers, with their specs."""
        return self._page(list[JobRow], JOBS_AFTER, number, limit)

    def records_after(self, tenant: str, request_id: RequestId, limit: int) -> list[Record]:
        """Load the first idempotency records of a tenant after a request id."""
        return self._page(list[Record], RECORDS_AFTER, tenant, request_id, limit)

    def leases(self, tenant: str) -> dict[str, int]:
        return dict(self._rows(LEASES, tenant))

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        if self._batch.rows:
            assert sequence == STDIN_SEQUENCE, "a batch reads only standard inputs"
            yield from (segment for segment in self._batch.read("stdin", list[Segment]) if segment.number == number)
            return
        from_ms, first = from_timestamp_ms or 0, 0
        while True:
            values = (from_ms, number, number, max(sequence, first), PIECE_SEGMENTS, PIECE_BYTES)
            rows = self._page(list[Segment], SEGMENTS, *values)
            piece = [segment for segment in rows if segment.first_sequence >= first]
            yield from piece
            is_last = len(rows) < PIECE_SEGMENTS and sum(len(segment.events) for segment in rows) < PIECE_BYTES
            if not piece or is_last:
                return
            first = piece[-1].first_sequence + piece[-1].count

    def _boxes(self, tenant: str, queue: str) -> list[SecretRow]:
        return self._page(list[SecretRow], BOXES, tenant, queue)

    def _kinds(self, keys: Keys) -> dict[QueueKey, int]:
        if not keys.kinds:
            return {}
        queues = sorted(key[:2] for key in keys.kinds)
        rows = self._rows(KINDS, *(texts(column) for column in zip(*queues, strict=True)), texts([]), texts([]))
        return {QueueKey(*key): jobs for *key, jobs in rows}

    def _named(self, keys: Keys) -> list[JobRow]:
        if not keys.jobs:
            return []
        pairs = sorted(keys.jobs)
        specs = texts([job_id for _, job_id in keys.specs])
        return self._page(
            list[JobRow], NAMED, specs, texts([key[0] for key in pairs]), texts([key[1] for key in pairs])
        )

    def _rows(self, statement: str, *values: Value) -> list[tuple[Any, ...]]:
        self._trips.add("page", statement, *(text(value) if isinstance(value, str) else value for value in values))
        return self._trips.send()["page"]

    def _page(self, kind: type[list[T]], statement: str, *values: Value) -> list[T]:
        return msgspec.convert(self._rows(statement, *values), kind)

    def _found(
        self, wanted: JobFilter, before: int | None, looked_max: int, *, bounded: bool = False
    ) -> tuple[str, str, list[Any], JobId | None]:
        """Build FROM and WHERE for a filter; return both, the order, the values, and the last job to search.

        Jobs are read from the index of the first fact, if any; further facts are looked up for each job. The last job
        is the last of `looked_max` if no index has the matching jobs in order, or with `bounded`; otherwise None.
        """
        tenant, facts = wanted.tenant, wanted.facts
        (state,) = wanted.states if len(wanted.states) == 1 else (None,)
        equal = {"queue": wanted.queue, "state": state, "owner": wanted.owner}
        given = {name: value for name, value in equal.items() if value is not None}
        prefixed = wanted.prefix is not None
        both = {*given} == {"queue", "state"} and not facts and not prefixed
        # A prefix, a fact or one column leads to the jobs; the rest is compared.
        led: dict[str, Any]
        first = "state" if both else next(iter(given), None)
        if prefixed:  # few jobs have it: they are searched, whatever else is asked, and then sorted
            source, rows, led = PREFIXED, "job", {}
        elif facts:
            source, rows = "airunner.metadata AS found JOIN airunner.job USING (number)", "found"
            led = {"fact": facts[0]}
        else:
            source, rows, led = "airunner.job", "job", {first: given.pop(first)} if first else {}
        asked, ordered = _led(rows, {"tenant": tenant, **led})
        asked += [(f"job.{name} = %b", value) for name, value in given.items()]
        if wanted.owner is not None:
            asked.append(("job.owner != ''",))  # as the partial index `job_by_owner` has it
        asked.append(_within("job.queue", wanted.queues))
        if len(wanted.states) > 1:
            asked.append(_within("job.state", frozenset(wanted.states)))
        asked += [(_HAS_FACT, tenant, fact) for fact in (facts if prefixed else facts[1:])]
        if before is not None:
            asked.append((f"{rows}.number < %b", before))
        things = (wanted.queue is not None or state is not None) + (wanted.owner is not None) + len(facts)
        scoped = wanted.queues is not None and wanted.queue is None
        last: JobId | None = None
        if not prefixed and (bounded or both or things > 1 or len(wanted.states) > 1 or scoped):
            last, lowest = self._last(tenant, state if both else None, before, looked_max)
            asked += [(f"{rows}.number >= %b", lowest)] if last is not None else []
        where, values = _joined(asked)
        if wanted.prefix is not None:
            values = [wanted.prefix, wanted.prefix + ABOVE_ALL_CHARACTERS, *values]
        return f"FROM {source} WHERE {where}", ordered, values, last

    def _last(self, tenant: str, state: str | None, before: int | None, looked_max: int) -> tuple[JobId | None, int]:
        """Find the last of `looked_max` jobs, newest first; None: there are fewer. All of them count as searched."""
        asked, ordered = _led("job", {"tenant": tenant, **({} if state is None else {"state": state})})
        where, values = _joined(asked)
        below = _ABOVE_ALL if before is None else before
        ((looked, lowest, job_id),) = self._rows(LOOKED.format(where, ordered), *values, below, looked_max)
        self._trips.rows += looked
        return (job_id, lowest) if looked == looked_max else (None, 0)


def _led(rows: str, equal: dict[str, Any]) -> tuple[list[_Condition], str]:
    """Build the conditions of columns that an index begins with, and the order by number, newest first.

    They are written as ranges: of equal ones PostgreSQL would know that they do not matter for the order, and might
    read all tenants' jobs in the order of their numbers.
    """
    asked: list[_Condition] = [(f"{rows}.{name} >= %b AND {rows}.{name} <= %b", at, at) for name, at in equal.items()]
    return asked, ", ".join(f"{rows}.{name} DESC" for name in (*equal, "number"))


def _within(column: str, names: frozenset[str] | None) -> _Condition:
    """Build the condition that `column` is one of `names` (None: any)."""
    return ("TRUE",) if names is None else (f"{column} = ANY(%b)", texts(sorted(names)))


def _joined(asked: list[_Condition]) -> tuple[str, list[Any]]:
    return " AND ".join(condition for condition, *_ in asked), [value for _, *some in asked for value in some]
