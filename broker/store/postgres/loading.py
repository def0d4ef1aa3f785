"""Loading of a batch's rows: all that `Keys` names, in one round trip.

What other brokers may change is locked in one order, so that no two batches wait for each other: the own broker's row,
idempotency records, lease requests, queues, jobs by number. Jobs that are found by what they are (waiting, due, ended)
are locked last, with SKIP LOCKED, which waits for nobody. Each statement sees what was committed while the one before
it waited for a lock.

- A record is inserted before it is known whether its request is answered now; so a second broker that is asked the same
  waits for the first, and then finds its record. `saving` removes the record of a request that is refused.
- The row of a lease request is inserted and removed at once: until the end of the transaction, others wait for it.
- A queue to which jobs are added, or whose mode is changed, has to have a row that can be locked.
- Batches that share a row's lock pass one that waits to have it alone, for ever if there are many. So a batch that
  changes a mode does not wait for the row, but, tried again, for the table, whose locks are given in turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from airunner.broker.store.contract import Moved
from airunner.broker.store.postgres.adopting import FOUND, ask_owned
from airunner.broker.store.postgres.arrays import Column, bigints, byteas, columns, texts
from airunner.broker.store.postgres.batches import Batch, Log, Memory
from airunner.broker.store.postgres.durability import DURABILITY
from airunner.broker.store.postgres.pipeline import Rows, Value
from airunner.broker.store.postgres.trips import Trips
from airunner.broker.store.rows import (
    STDIN_SEQUENCE,
    BrokerRow,
    JobRow,
    Keys,
    Loaded,
    QueueKey,
    Record,
    Sweep,
    Usage,
)
from airunner.protocol.replies import QueueMode

BIG_TENANTS_MAX: Final = 64  # tenants among which a step of retention looks for an ended job, the largest first
JOB: Final = ", ".join(f"job.{name}" for name in JobRow.__struct_fields__)
BRIEF: Final = JOB.removesuffix(", job.spec")
# A job of the row of `queue`; written as EXISTS it would be joined, in whatever order PostgreSQL takes for the best.
ANY_JOB: Final = (
    "(SELECT job.number FROM airunner.job WHERE job.tenant = queue.tenant AND job.queue = queue.name LIMIT 1)"
)
_RECORD: Final = "tenant, request_id, body_hash, answered_ms, job_ids"
CLAIM: Final = (  # a row that was there is locked, and has an xmax
    f"INSERT INTO airunner.record AS own ({_RECORD}) SELECT * FROM unnest(%b, %b, %b, %b, %b)"
    f" ON CONFLICT (tenant, request_id) DO UPDATE SET tenant = own.tenant RETURNING {_RECORD}, xmax != 0"
)
GRANT: Final = (
    "INSERT INTO airunner.lease_grant (tenant, request_id) SELECT * FROM unnest(%b, %b) ON CONFLICT DO NOTHING"
)
UNGRANT: Final = (
    "DELETE FROM airunner.lease_grant AS own USING unnest(%b, %b) AS key(tenant, request_id)"
    " WHERE own.tenant = key.tenant AND own.request_id = key.request_id"
)
_NAMED: Final = (
    "SELECT tenant, name FROM unnest({0}, {1}) AS named(tenant, name) UNION SELECT job.tenant, job.queue FROM"
    " unnest({2}, {3}) AS key(tenant, job_id) JOIN airunner.job ON job.job_id = key.job_id AND job.tenant = key.tenant"
)
OPEN_QUEUES: Final = (
    f"INSERT INTO airunner.queue (tenant, name) {_NAMED.format('%b', '%b', '%b', '%b')} ORDER BY 1, 2"
    " ON CONFLICT DO NOTHING RETURNING tenant, name"
)
_QUEUES: Final = (
    "SELECT queue.tenant, queue.name, queue.mode"
    f" FROM ({_NAMED.format('%b', '%b', '%b', '%b')} ORDER BY 1, 2 OFFSET 0) AS named"
    " JOIN airunner.queue USING (tenant, name) ORDER BY named.tenant, named.name FOR "
)
QUEUES_READ: Final = _QUEUES + "SHARE OF queue"
QUEUES_CHANGED: Final = _QUEUES + "UPDATE OF queue SKIP LOCKED"
QUEUES_ALONE: Final = "LOCK TABLE airunner.queue IN EXCLUSIVE MODE"
NUMBERS: Final = "SELECT nextval('airunner.job_number') FROM generate_series(1, %b)"
JOBS: Final = (
    f"SELECT job.* FROM (SELECT number FROM ({FOUND}) AS named ORDER BY number) AS found, LATERAL (SELECT {BRIEF},"
    " CASE WHEN job.job_id = ANY(%b) OR job.lease_request = ANY(%b) THEN job.spec ELSE '' END"
    " FROM airunner.job WHERE number = found.number FOR UPDATE) AS job"
)
EXPIRED, DELAYED = (
    f"SELECT {JOB} FROM airunner.job WHERE broker = %b AND {column} <= %b AND {column} >= %b AND job_id != ALL(%b)"
    f" ORDER BY {column} LIMIT %b FOR UPDATE SKIP LOCKED"
    for column in ("deadline_ms", "due_ms")
)
KINDS: Final = (
    "SELECT kind.tenant, kind.queue, kind.words, sum(kind.jobs)::bigint"
    f" FROM ({_NAMED.format('%b', '%b', '%b', '%b')}) AS named(tenant, queue)"
    " JOIN airunner.kind USING (tenant, queue) GROUP BY kind.tenant, kind.queue, kind.needs, kind.words"
    " HAVING sum(kind.jobs) > 0"
)
KINDS_OF: Final = (
    "SELECT tenant, count(*) FROM (SELECT tenant FROM airunner.kind WHERE tenant = ANY(%b)"
    " GROUP BY tenant, queue, needs HAVING sum(jobs) > 0) AS found GROUP BY tenant"
)
USAGES: Final = (
    "SELECT tenant, sum(size_bytes)::bigint, sum(waiting)::bigint FROM airunner.tally WHERE queue = '' GROUP BY tenant"
)
USAGE: Final = USAGES.replace("WHERE", "WHERE tenant = ANY(%b) AND")
_WANTED: Final = (
    "WITH asked AS (SELECT tenant, queue, string_to_array(facts, E'\\n') AS facts, jobs FROM unnest(%b, %b, %b, %b)"
    " AS asked(tenant, queue, facts, jobs)), within AS (SELECT DISTINCT kind.tenant, kind.queue, kind.needs, kind.words"
    " FROM (SELECT DISTINCT tenant, queue FROM asked) AS named JOIN airunner.kind USING (tenant, queue)),"
    " fitting AS (SELECT tenant, queue, ''::bytea AS needs, '' AS words, sum(jobs) AS jobs FROM asked GROUP BY 1, 2"
    " UNION ALL SELECT within.tenant, within.queue, needs, words, sum(jobs) FROM asked"
    " JOIN within USING (tenant, queue) WHERE facts IS NULL OR string_to_array(words, E'\\n') <@ facts"
    " GROUP BY 1, 2, 3, 4),"
    " wanted AS (SELECT tenant, queue, needs, words, jobs + %b AS jobs, coalesce(place, -2147483648) AS place,"
    " coalesce(number, 0) AS number FROM fitting LEFT JOIN unnest(%b, %b, %b, %b, %b)"
    " AS kept(tenant, queue, needs, place, number) USING (tenant, queue, needs))"
)
_SEARCH: Final = (
    "SELECT * FROM (SELECT {0} FROM airunner.waiting {1} WHERE waiting.tenant = wanted.tenant"
    " AND waiting.queue = wanted.queue AND waiting.needs = wanted.needs"
    " AND (waiting.place, waiting.number) {3} (wanted.place, wanted.number) {2}) AS part"
)


def _searched(columns: str, join: str, then: str) -> str:
    """Build the search for waiting jobs from a place on; if there are too few, also of those before it.

    A number is drawn before its job is committed, so a job of another broker may appear before the place.
    """
    both = " UNION ALL ".join(_SEARCH.format(columns, join, then, compared) for compared in (">=", "<"))
    return f"({both} LIMIT wanted.jobs)"


_ORDERED: Final = "ORDER BY waiting.place, waiting.number LIMIT wanted.jobs"
_OTHERS: Final = "AND waiting.number != ALL(ARRAY(SELECT number FROM airunner.job WHERE job_id = ANY(%b)))"
SEEN: Final = (
    f"{_WANTED} SELECT tenant, queue, words, array_agg(seen.place), array_agg(seen.number) FROM wanted, LATERAL"
    f" {_searched('waiting.place, waiting.number', '', f'{_OTHERS} {_ORDERED}')} AS seen GROUP BY tenant, queue, words"
)
_JOINED: Final = "JOIN airunner.job ON job.number = waiting.number AND job.gate = 0 AND job.job_id != ALL(%b)"
WAITING: Final = (
    f"{_WANTED} SELECT job.* FROM wanted, LATERAL"
    f" {_searched(JOB, _JOINED, f'{_ORDERED} FOR UPDATE OF job SKIP LOCKED')} AS job"
)
BOXES: Final = (
    "SELECT secret.tenant, secret.queue, name, box, set_ms FROM unnest(%b, %b) AS key(tenant, queue)"
    " JOIN airunner.secret USING (tenant, queue)"
)
STDIN: Final = (
    "SELECT segment.number, first_sequence, count, segment.attempt, last_timestamp_ms, events"
    " FROM unnest(%b, %b) AS key(tenant, job_id) JOIN airunner.job USING (tenant, job_id)"
    f" JOIN airunner.segment ON segment.number = job.number AND first_sequence = {STDIN_SEQUENCE}"
)
_OWNED: Final = (
    "job WHERE deadline_ms IS NOT NULL AND",
    "job WHERE due_ms IS NOT NULL AND",
    "tally WHERE",
    "kind WHERE",
)
_OWNS: Final = " OR ".join(f"EXISTS (SELECT FROM airunner.{table} broker = of.broker)" for table in _OWNED)
BROKERS: Final = (
    "SELECT broker, epoch, beat, ready_seq, requests, events, version, dead,"
    f" (dead AND ({_OWNS}))::int FROM airunner.broker AS of ORDER BY broker"
)
FINISHED: Final = (
    f"SELECT {JOB} FROM airunner.job WHERE finished_ms < %b AND job_id != ALL(%b) ORDER BY finished_ms LIMIT %b"
    " FOR UPDATE SKIP LOCKED"
)
PENDING_LOGS: Final = (
    "SELECT gone.number, tenant, first_sequence, size_bytes FROM (SELECT number, tenant FROM airunner.pending_deletion"
    " ORDER BY number LIMIT %b FOR UPDATE SKIP LOCKED) AS gone LEFT JOIN LATERAL (SELECT first_sequence,"
    " length(events) AS size_bytes FROM airunner.segment WHERE segment.number = gone.number"
    " ORDER BY first_sequence LIMIT %b) AS log ON true"
)
OLD_BROKERS: Final = (
    "SELECT broker FROM airunner.broker AS of"
    f" WHERE dead AND opened_ms < %b AND NOT ({_OWNS}) LIMIT %b FOR UPDATE SKIP LOCKED"
)
OLD_RECORDS: Final = (
    "SELECT tenant, request_id FROM airunner.record WHERE answered_ms < %b ORDER BY answered_ms LIMIT %b"
    " FOR UPDATE SKIP LOCKED"
)
_LARGEST: Final = (
    "SELECT tenant FROM airunner.tally WHERE queue = '' GROUP BY tenant ORDER BY sum(size_bytes) DESC, tenant LIMIT %b"
)
_OF_LARGE: Final = (  # in an order that only the index of tenants has: the one of all jobs could be read to its end
    f"SELECT job.* FROM ({_LARGEST}) AS large, LATERAL (SELECT {{}} FROM airunner.job WHERE finished_ms IS NOT NULL"
    " AND (job.tenant, finished_ms) >= (large.tenant, 0){} ORDER BY job.tenant, finished_ms LIMIT 1{}) AS job"
    " WHERE job.tenant = large.tenant"
)
FINISHED_OF: Final = _OF_LARGE.format(JOB, " AND job_id != ALL(%b)", " FOR UPDATE SKIP LOCKED")
QUEUES_OF_LARGE: Final = (
    "SELECT tenant, name FROM airunner.queue WHERE (tenant, name) IN"
    f" ({_OF_LARGE.format('tenant, queue', '', '')}) FOR UPDATE SKIP LOCKED"
)
ROW_COUNT: Final = (  # as the server estimates it
    "SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class"
    " WHERE oid IN ('airunner.job'::regclass, 'airunner.segment'::regclass)"
)
SIZE: Final = (
    "SELECT coalesce((SELECT sum(size_bytes)::bigint FROM airunner.tally WHERE queue = ''), 0),"
    f" coalesce(({ROW_COUNT}), 0)"
)
_REMOVABLE: Final = "(SELECT tenant, queue FROM airunner.job WHERE finished_ms < %b ORDER BY finished_ms LIMIT %b)"
QUEUES_EMPTIED: Final = (
    f"SELECT tenant, name FROM airunner.queue WHERE (tenant, name) IN ({_REMOVABLE}) FOR UPDATE SKIP LOCKED"
)


def ask(trips: Trips, keys: Keys, memory: Memory, renewed_ms: int | None) -> None:
    """Queue the statements that load a batch; `renewed_ms`: all of the broker's leases are renewed at this instant."""
    _ask_requests(trips, keys)
    _ask_queues(trips, keys, memory)
    if keys.new_jobs:
        trips.add("numbers", NUMBERS, keys.new_jobs)
    named = (*_pairs(keys.jobs), *_pairs(keys.grants, byteas))
    if renewed_ms is not None or keys.adopted:
        ask_owned(trips, keys, named, renewed_ms)
    if keys.jobs or keys.grants:
        specs = texts([job_id for _, job_id in keys.specs])
        requests = byteas([request_id for _, request_id in keys.grants])
        trips.add("jobs", JOBS, *named, specs, requests)
    aside = texts(sorted(memory.aside))
    if keys.due:
        for name, statement in (("expired", EXPIRED), ("delayed", DELAYED)):
            trips.add(name, statement, trips.broker, keys.now_ms, memory.due_from_ms, aside, keys.due)
    if keys.sweep is not None:
        _ask_sweep(trips, keys.sweep, aside)
    if keys.kinds or keys.retried:
        trips.add("kinds", KINDS, *_pairs({key[:2] for key in keys.kinds}), *_pairs(keys.retried))
    if keys.wanted:
        _ask_waiting(trips, keys, memory, aside)
    if keys.tenants or keys.retried:
        tenants = texts(sorted(keys.tenants.union(tenant for tenant, _ in keys.retried)))
        trips.add("kinds_of", KINDS_OF, tenants)
        trips.add("usage", USAGE, tenants)
    if keys.boxes:
        trips.add("boxes", BOXES, *_pairs({key[:2] for key in keys.boxes}))
    if keys.retried:
        trips.add("stdin", STDIN, *_pairs(keys.retried))
    if keys.fleet:
        trips.add("brokers", BROKERS)
        trips.add("durability", DURABILITY)


def _pairs(some: Iterable[tuple[str, Any]], second: Column = texts) -> tuple[bytes, bytes]:
    """Convert pairs, sorted, to two arrays."""
    pairs = sorted(some)
    return texts([first for first, _ in pairs]), second([other for _, other in pairs])


def claims(records: list[Record]) -> list[bytes]:
    """Convert idempotency records to arrays."""
    return columns(records, Record.__struct_fields__, (texts, byteas, byteas, bigints, texts))


def _ask_requests(trips: Trips, keys: Keys) -> None:
    if keys.records:
        records = [make() for _, make in sorted(keys.records.items(), key=itemgetter(0))]
        trips.add("records", CLAIM, *claims(records))
    if keys.grants:
        for name, statement in (("grant", GRANT), ("ungrant", UNGRANT)):
            trips.add(name, statement, *_pairs(keys.grants, byteas))


def _ask_queues(trips: Trips, keys: Keys, memory: Memory) -> None:
    stored = keys.opened | keys.updated
    if keys.updated and memory.tries > 1:
        trips.add("alone", QUEUES_ALONE)
    if stored or keys.retried:
        trips.add("opened", OPEN_QUEUES, *_pairs({key[:2] for key in stored}), *_pairs(keys.retried))
    if keys.queues or keys.updated or keys.retried:
        names = _pairs({key[:2] for key in keys.queues | keys.updated})
        trips.add("queues", QUEUES_CHANGED if keys.updated else QUEUES_READ, *names, *_pairs(keys.retried))


def _ask_waiting(trips: Trips, keys: Keys, memory: Memory, aside: bytes) -> None:
    queues = {(wanted.tenant, wanted.queue) for wanted in keys.wanted}
    facts = [None if wanted.facts is None else "\n".join(sorted(wanted.facts)) for wanted in keys.wanted]
    named = columns(keys.wanted, ("tenant", "queue"), (texts, texts))
    asked = (*named, texts(facts), bigints([wanted.jobs for wanted in keys.wanted]))
    fields = ("tenant", "queue", "needs", "place", "number")
    places = columns(memory.places.of(queues), fields, (texts, texts, byteas, bigints, bigints))
    values: list[Value] = [*asked, keys.ended + 2 * keys.due, *places]
    for name, statement in (("seen", SEEN), ("waiting", WAITING)):
        trips.add(name, statement, *values, aside, aside)


def _ask_sweep(trips: Trips, sweep: Sweep, aside: bytes) -> None:
    trips.add("emptied", QUEUES_EMPTIED, sweep.finished_before_ms, sweep.jobs_max)
    trips.add("finished", FINISHED, sweep.finished_before_ms, aside, sweep.jobs_max)
    trips.add("logs", PENDING_LOGS, sweep.segments_max, sweep.segments_max + 1)
    for name, statement in (("old_brokers", OLD_BROKERS), ("old_records", OLD_RECORDS)):
        trips.add(name, statement, sweep.records_before_ms, sweep.records_max)
    if sweep.measured:
        trips.add("usages", USAGES)
        trips.add("row_count", ROW_COUNT)
        trips.add("emptied_too", QUEUES_OF_LARGE, BIG_TENANTS_MAX)
        trips.add("finished_of", FINISHED_OF, BIG_TENANTS_MAX, aside)


def loaded(batch: Batch, aside: set[str]) -> Loaded:
    """Convert the rows of a batch. Raises `Moved`: a row has gone while another was waited for."""
    keys, rows = batch.keys, batch.rows
    jobs = batch.read("jobs", list[JobRow])
    keys.add_retried(jobs)
    records: list[Record] = msgspec.convert(
        [row for *row, was_there in rows.get("records", ()) if was_there], list[Record]
    )
    found = Loaded(jobs=jobs, records=records, damaged=set(aside))
    batch.claimed = keys.records.keys() - {(record.tenant, record.request_id) for record in records}
    batch.opened = {QueueKey(tenant, name) for tenant, name in rows.get("opened", ())}
    modes = {QueueKey(tenant, name): QueueMode(mode) for tenant, name, mode in rows.get("queues", ())}
    if not modes.keys() >= keys.opened | keys.updated:
        raise Moved
    found.modes = {key: mode for key, mode in modes.items() if key not in batch.opened}
    found.kinds = {QueueKey(*key): jobs for *key, jobs in rows.get("kinds", ())}
    found.kinds_of = dict(rows.get("kinds_of", ()))
    found.usage = {tenant: Usage(*usage) for tenant, *usage in rows.get("usage", ())}
    found.numbers = sorted(number for (number,) in rows.get("numbers", ()))
    found.brokers = batch.read("brokers", list[BrokerRow])
    found.adopted = {broker for (broker,) in rows.get("adopted", ())}
    batch.emptied = {(tenant, name) for tenant, name in (*rows.get("emptied", ()), *rows.get("emptied_too", ()))}
    batch.logs = _logs(rows.get("logs", []), keys.sweep)
    return found


def _logs(rows: Rows, sweep: Sweep | None) -> list[Log]:
    logs: list[Log] = []
    for (number, tenant), pieces in groupby(rows, key=itemgetter(0, 1)):
        sizes = [(first, size_bytes) for _, _, first, size_bytes in pieces if first is not None]
        most = sweep.segments_max if sweep else 0
        logs.append(Log(number, tenant, sorted(sizes)[:most], len(sizes) <= most))
    return logs
