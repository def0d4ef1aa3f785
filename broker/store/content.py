"""Content of a store, the same for every engine: a stream of rows in a fixed order, to save elsewhere or to compare.

```
 source ─► rows ─► chunks of changes ─► target: save, commit
 source ─► rows ─┐
 target ─► rows ─┴─► differences
```

- The order is: jobs by number, each followed by its log; then tenants by name, each with its idempotency records,
  sealed secrets, and modes of queues that are not open.
- Counters and facts are not copied: they follow from the rows, and are compared with what the target counts.
- Logs of removed jobs that are not deleted yet are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import zip_longest
from typing import Final, NamedTuple, Protocol, assert_never

from msgspec.structs import replace

from airunner.broker.lifecycle.submitting import facts_of
from airunner.broker.lifecycle.tallies import ENDED, Tallies, standing_of
from airunner.broker.lifecycle.world import QUEUE_BYTES, RECORD_BYTES
from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import (
    STDIN_SEQUENCE,
    Changes,
    JobRow,
    Keys,
    QueueCounts,
    QueueKey,
    QueueRow,
    Record,
    SecretRow,
    Segment,
    Usage,
)
from airunner.protocol.job import decode_spec
from airunner.protocol.names import RequestId
from airunner.protocol.replies import QueueMode

CHUNK_ROWS: Final = 2_000  # rows of a chunk: one transaction, so that a fsync or a round trip serves many rows
CHUNK_BYTES: Final = 8 * 1_048_576  # of specs and logs in a chunk, at which it ends
NUL_SHOWN: Final = "\u2400"  # what stands for NUL in a name, in a store that has no NUL in texts
PAGE_ROWS: Final = 200  # rows that are read at once, besides those of logs
_NO_REQUEST: Final = RequestId(b"")  # before all others


class ReadableEngine(Engine, Protocol):
    """Engine whose whole content can be read, in pages."""

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        """Load the first jobs with higher numbers, with their specs. Raises `CorruptLog`."""
        ...

    def records_after(self, tenant: str, request_id: RequestId, limit: int) -> list[Record]:
        """Load the first idempotency records of a tenant after a request id. Raises `CorruptLog`."""
        ...


class Mode(NamedTuple):
    """Mode of a queue, other than open."""

    tenant: str
    queue: str
    mode: QueueMode


Row = JobRow | Segment | Record | SecretRow | Mode


def read_rows(engine: ReadableEngine) -> Iterator[Row]:
    """Read the content of a store in its order. Raises `CorruptLog`."""
    number = 0
    while jobs := engine.jobs_after(number, PAGE_ROWS):
        for job in jobs:
            yield job
            yield from engine.segments(job.number, STDIN_SEQUENCE)
        number = jobs[-1].number
    for tenant in sorted(engine.usages()):
        request_id = _NO_REQUEST
        while records := engine.records_after(tenant, request_id, PAGE_ROWS):
            yield from records
            request_id = records[-1].request_id
        queues = list(_queues(engine, tenant))
        for queue in sorted({secret.queue for secret in _secrets(engine, tenant)}):
            yield from (box for _, box in sorted(engine.boxes(tenant, queue).items()))
        yield from (Mode(tenant, queue.name, queue.mode) for queue in queues if queue.mode != QueueMode.OPEN)


def chunks(rows: Iterable[Row], broker: str) -> Iterator[Changes]:
    """Gather rows as changes of a store whose broker is `broker`, with the counters that follow from them."""
    changes, tallies = Changes(), Tallies()
    gathered = size_bytes = 0
    for tenant, row in _with_tenants(rows):
        match row:
            case JobRow():
                changes.added.append(replace(row, broker=broker))
                spec = decode_spec(row.spec)
                changes.facts += [(tenant, fact, row.number) for fact in facts_of(spec.metadata, spec.name)]
            case Segment():
                changes.segments.append(row)
            case Record():
                changes.records.append(row)
            case SecretRow():
                changes.secrets.append(row)
            case Mode():
                changes.modes[QueueKey(tenant, row.queue)] = row.mode
        gathered += 1
        size_bytes += _count(tallies, tenant, row)
        if gathered >= CHUNK_ROWS or size_bytes >= CHUNK_BYTES:
            tallies.save(changes)
            yield changes
            changes, tallies = Changes(), Tallies()
            gathered = size_bytes = 0
    if gathered:
        tallies.save(changes)
        yield changes


def keys_of(changes: Changes, now_ms: int) -> Keys:
    """List the keys that an engine has to load before it saves a chunk."""
    keys = Keys(now_ms=now_ms)
    for job in changes.added:
        keys.add_queue(job.tenant, job.queue, needing=False)
    for record in changes.records:
        keys.records[record.tenant, record.request_id] = partial(_same, record)
    keys.updated |= changes.modes.keys() | {QueueKey(secret.tenant, secret.queue) for secret in changes.secrets}
    return keys


def difference(source: ReadableEngine, target: ReadableEngine, compared: Callable[[Row], object]) -> str:
    """Compare the content of two stores, and the target's counters with its content; return the first difference.

    `compared` is called with each row that is equal. Raises `CorruptLog`.
    """
    tallies = Tallies()
    nothing: tuple[str, Row | None] = ("", None)
    both = zip_longest(_with_tenants(read_rows(source)), _with_tenants(read_rows(target)), fillvalue=nothing)
    for (tenant, row), (_, copied) in both:
        if row is None:
            return f"{_name(copied)} is in the copy only"
        if copied is None:
            return f"{_name(row)} is not in the copy"
        if _comparable(row) != _comparable(copied):
            return f"{_name(row)} is not the same in the copy"
        _count(tallies, tenant, row)
        compared(row)
    counted = Changes()
    tallies.save(counted)
    if {tenant: usage for tenant, usage in target.usages().items() if usage != Usage()} != counted.usage:
        return "the copy does not count what its tenants use"
    for tenant in target.usages():
        for queue in _queues(target, tenant):
            counts = counted.counts.get(QueueKey(tenant, queue.name), QueueCounts())
            if counts != (queue.waiting, queue.delayed, queue.running):
                return f"the copy does not count the jobs of queue {queue.name}"
    return ""


def _with_tenants(rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    """Yield rows with their tenants; a segment follows its job, and belongs to the job's tenant."""
    tenant = ""
    for row in rows:
        if not isinstance(row, Segment):
            tenant = row.tenant
        yield tenant, row


def _count(tallies: Tallies, tenant: str, row: Row) -> int:
    """Count a row; return the bytes that it takes of its tenant's usage."""
    match row:
        case JobRow():
            tallies.update_standing(row, ENDED, standing_of(row))
            size_bytes = len(row.spec)
        case Segment():
            size_bytes = len(row.events)
        case Record():
            size_bytes = RECORD_BYTES
        case SecretRow():
            size_bytes = len(row.box)
        case Mode():
            size_bytes = QUEUE_BYTES
        case _:
            assert_never(row)
    tallies.bytes_added[tenant] += size_bytes
    return size_bytes


def _queues(engine: Engine, tenant: str) -> Iterator[QueueRow]:
    after = ""
    while page := engine.queues(tenant, after, None, PAGE_ROWS):
        yield from page
        after = page[-1].name


def _secrets(engine: Engine, tenant: str) -> Iterator[SecretRow]:
    after = ("", "")
    while page := engine.secrets(tenant, None, after, None, PAGE_ROWS):
        yield from page
        after = (page[-1].queue, page[-1].name)


def _comparable(row: Row) -> Row:
    """Convert a row to what is the same in every engine: PostgreSQL cannot store NUL, which names may have."""
    if not isinstance(row, JobRow):
        return row
    agent = row.agent and row.agent.replace("\0", NUL_SHOWN)
    return replace(row, broker="", agent=agent, owner=row.owner.replace("\0", NUL_SHOWN))


def _same(record: Record) -> Record:
    return record


def _name(row: Row | None) -> str:
    """Name a row for a message."""
    match row:
        case JobRow():
            return f"job {row.job_id}"
        case Segment():
            return f"event {row.first_sequence} of job number {row.number}"
        case Record():
            return f"an idempotency record of tenant {row.tenant}"
        case SecretRow():
            return f"the secret {row.name} of queue {row.queue}"
        case Mode():
            return f"the mode of queue {row.queue}"
        case None:
            return ""
