"""Extents of requests: bounds of what each may write in a transaction, for an engine whose transactions are bounded.

A row is an item of such a database. These are counted:

| | rows |
|---|---|
| a job that is added or changed | 1 |
| a segment | 1 for each `SEGMENT_BYTES_MAX`; the first event of a new job is in the job's row |
| a standard input | 1 for each `SEGMENT_BYTES_MAX` |
| an idempotency record, the grants of a request, a queue's mode, a secret, the revision of a queue's secrets | 1 each |
| counters of a tenant | 1 a queue, but at most `COUNTERS_MAX` of this broker; 1 for the tenant |
| a mode's copies in the counters of all brokers | `BROKERS_MAX` |
| the broker | 1 |

Bytes are those of a request's contents, and `ROW_BYTES_MAX` for each job that it changes: a large spec is stored apart,
before the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from airunner.broker.lifecycle.dependencies import nearest
from airunner.broker.lifecycle.leasing import LATE_MAX
from airunner.protocol.fields import STDIN_BYTES_MAX
from airunner.protocol.requests import (
    BOX_BYTES_MAX,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    EnqueueJobWithStdin,
    EventBatch,
    PublishJobEvents,
    RetryJob,
    UpdateJob,
)

SEGMENT_BYTES_MAX: Final = 380_000  # bytes of a segment in one row: an item has up to 400 KB, and other fields
COUNTERS_MAX: Final = 16  # rows into which a broker divides the counters of a tenant, by queue
BROKERS_MAX: Final = 32  # brokers of a fleet
ROW_BYTES_MAX: Final = 16_384  # bytes of a job's row: a small spec, facts, a result, and small segments
_encoder: Final = msgspec.msgpack.Encoder()


class Extent(NamedTuple):
    """Extent of a request: rows but those of counters and broker, queues whose counters change, and bytes."""

    rows: int
    queues: int = 1
    size_bytes: int = ROW_BYTES_MAX


END: Final = Extent(rows=2)  # of the end of a job or an attempt: the job, and a segment
SETTING: Final = Extent(rows=3, size_bytes=BOX_BYTES_MAX)  # of a secret, the revision of its queue's, and the record
MODE: Final = Extent(rows=2 + BROKERS_MAX, size_bytes=0)  # of a queue's mode: the mode and its copies, and the record
RELEASE: Final = Extent(rows=3)  # of a release: an end, and grants that are forgotten
SIZE: Final = Extent(rows=1)  # of a terminal's size: the job


def nothing_written(_request: object) -> Extent:
    """Return the extent of a request that only reads."""
    return Extent(0, 0, 0)


def _pieces(size_bytes: int) -> int:
    return -(-size_bytes // SEGMENT_BYTES_MAX)


def extent_of_enqueue(request: EnqueueJob) -> Extent:
    """Bound a submission: jobs, those to which they are attached, and a record."""
    rows = len(request.jobs) + len(nearest(request.jobs)) + 1
    return Extent(rows, len({job.queue for job in request.jobs}), len(_encoder.encode(request)))


def extent_of_stdin(request: EnqueueJobWithStdin) -> Extent:
    """Bound a submission with a standard input."""
    return Extent(2 + len(nearest(request.jobs)) + _pieces(len(request.stdin)), 1, ROW_BYTES_MAX + len(request.stdin))


def extent_of_retry(_request: RetryJob) -> Extent:
    """Bound a submission of a job that has ended, whose standard input is not known yet."""
    return Extent(2 + _pieces(STDIN_BYTES_MAX), 1, ROW_BYTES_MAX + STDIN_BYTES_MAX)


def extent_of_dequeue(request: DequeueJob) -> Extent:
    """Bound a lease: jobs and their events, those that have expired too, and the grants."""
    jobs = request.slots + LATE_MAX
    return Extent(2 * jobs + 1, min(jobs, len(request.queues)), jobs * ROW_BYTES_MAX)


def extent_of_update(request: UpdateJob) -> Extent:
    """Bound a heartbeat."""
    return extent_of_leases(len(request.leases))


def extent_of_leases(leases: int) -> Extent:
    """Bound so many leases of a heartbeat."""
    return Extent(leases, leases, leases * ROW_BYTES_MAX)


def extent_of_publish(request: PublishJobEvents) -> Extent:
    """Bound a publication."""
    return extent_of_events(request.batches, request.completions)


def extent_of_events(batches: Sequence[EventBatch], completions: Sequence[CompleteJob]) -> Extent:
    """Bound some of a publication's batches and completions: jobs, segments, and an end for each completed job."""
    completed = {completion.lease.job_id for completion in completions}
    jobs = len(completed | {batch.lease.job_id for batch in batches})
    sizes_bytes = [len(batch.events) for batch in batches]
    segments = sum(map(_pieces, sizes_bytes)) + len(completed)
    return Extent(jobs + segments, jobs, jobs * ROW_BYTES_MAX + sum(sizes_bytes))
