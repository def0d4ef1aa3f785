"""Filled stores: with jobs that wait, or that have ended, in a fraction of the time that living them takes.

Jobs that wait are submitted through the Store, without an fsync. Of jobs that have ended, a few live their whole life
through the Store. Of what the engine saved of them, the finished rows are then saved again and again, with other
numbers, ids, keys, requests and instants: a store as a broker leaves it, whatever its schema is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw
from msgspec import Struct
from msgspec.structs import replace

from airunner.broker.lifecycle.commands import MintedJob, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.rows import Changes, JobRow, Keys, QueueCounts, QueueKey, Record, Segment, Usage
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import prepare
from airunner.protocol.events import AgentBody, Output, ProcessEnd, ProcessStart, Stream, encode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Result
from airunner.protocol.names import JOB_ID_RANDOM_BYTES, SEED_BYTES, WatchKey, new_job_id
from airunner.protocol.replies import JobsLeased
from airunner.protocol.requests import (
    ENQUEUE_MAX,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    EventBatch,
    PublishJobEvents,
    StoreRequest,
)
from airunner.transport.ports import SYSTEM
from bench.requests import request_id

TENANT: Final = "default"
QUEUE: Final = "default"
LINE: Final = b"building module %d of many: ok, 123 tests have passed in 4.5 s\n"
OUTPUTS: Final = 5  # of a job: with the events of its states and its process, ten events
EVENTS_A_JOB: Final = OUTPUTS + 5
TEMPLATES: Final = 8  # jobs that are lived
BATCH: Final = 4_096  # jobs saved in a transaction
APART_MS: Final = 1_000  # between two jobs; a million have then been submitted within 12 days
VISIBILITY_MS: Final = 300_000


class _Recorder(SqliteEngine):
    """Engine that remembers what it has saved."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - apsw's own types need Python 3.12
        super().__init__(connection)
        self.saved: list[Changes] = []

    def save(self, changes: Changes) -> None:
        self.saved.append(changes)
        super().save(changes)


class _Lived(Struct, frozen=True):
    """What a store has of one finished job, and by how much its tenant's usage has grown."""

    job: JobRow
    segments: list[Segment]
    facts: list[tuple[str, bytes, int]]
    records: list[Record]
    size_bytes: int


class Filled(Struct, frozen=True):
    """Size of a filled store, and the ids of some of its jobs."""

    bytes_a_job: float
    job_ids: list[str]


def fill_finished(path: Path, jobs: int) -> Filled:
    """Fill a store with finished jobs of `EVENTS_A_JOB` events each, the latest submitted now."""
    connection = opened_store(path)
    connection.execute("PRAGMA journal_mode = off; PRAGMA cache_size = -524288")
    engine = SqliteEngine(connection)
    copies = _copies(_lived(), jobs, SYSTEM.wall_ms())
    ids: list[str] = []
    while changes := _together(islice(copies, BATCH)):
        engine.begin()
        engine.load(Keys())  # reads the next number
        engine.save(changes)
        engine.commit()
        ids.append(changes.added[-1].job_id)
    size_bytes = engine.store_bytes()
    engine.close()
    return Filled(size_bytes / jobs, ids)


def fill_waiting(path: Path, jobs: int) -> None:
    """Fill a store with waiting jobs, as a broker does, but without an fsync."""
    store = Store(SqliteEngine(opened_store(path)))
    left = jobs
    while left:
        asked: list[TenantRequest] = []
        while left and len(asked) < store.batch_max:
            count = min(left, ENQUEUE_MAX)
            left -= count
            now_ms = SYSTEM.wall_ms()
            request = EnqueueJob(jobs=(JobSpec(command="true"),) * count)
            minted = tuple(minted_job() for _ in range(count))
            asked.append(TenantRequest(tenant=TENANT, request_id=request_id(now_ms), request=request, minted=minted))
        store.apply(asked, SYSTEM.wall_ms())
    store.close()


def opened_store(path: Path) -> Any:  # noqa: ANN401 - apsw's own types need Python 3.12
    """Open the file of a store, without an fsync for each commit."""
    path.parent.mkdir(exist_ok=True)
    connection: Any = apsw.Connection(str(path))
    prepare(connection)
    connection.execute("PRAGMA synchronous = off")
    return connection


def minted_job() -> MintedJob:
    """Mint an id and a watch key for a job."""
    return MintedJob(new_job_id(os.urandom(JOB_ID_RANDOM_BYTES)), WatchKey(os.urandom(32)))


def _together(lived: Iterator[_Lived]) -> Changes | None:
    """Gather the changes that add these jobs; None: there are none."""
    changes = Changes(counts={QueueKey(TENANT, QUEUE): QueueCounts(0, 0, 0)})
    size_bytes = 0
    for job in lived:
        changes.added.append(job.job)
        changes.segments += job.segments
        changes.facts += job.facts
        changes.records += job.records
        size_bytes += job.size_bytes
    changes.usage[TENANT] = Usage(size_bytes, 0)
    return changes if changes.added else None


def _copies(templates: list[_Lived], jobs: int, now_ms: int) -> Iterator[_Lived]:
    for number in range(1, jobs + 1):
        template = templates[number % len(templates)]
        shift_ms = now_ms - (jobs - number) * APART_MS - (template.job.finished_ms or 0)
        job_id = new_job_id(os.urandom(JOB_ID_RANDOM_BYTES))
        old = template.job
        yield _Lived(
            replace(
                old,
                number=number,
                job_id=job_id,
                watch_key=WatchKey(os.urandom(32)),
                lease_request=request_id((old.started_ms or 0) + shift_ms),
                token_hash=old.token_hash and os.urandom(len(old.token_hash)),
                submitted_ms=old.submitted_ms + shift_ms,
                started_ms=(old.started_ms or 0) + shift_ms,
                finished_ms=(old.finished_ms or 0) + shift_ms,
            ),
            [
                replace(segment, number=number, last_timestamp_ms=segment.last_timestamp_ms + shift_ms)
                for segment in template.segments
            ],
            [(tenant, fact, number) for tenant, fact, _ in template.facts],
            [
                replace(
                    record,
                    request_id=request_id(record.answered_ms + shift_ms),
                    answered_ms=record.answered_ms + shift_ms,
                    job_ids=job_id,
                )
                for record in template.records
            ],
            template.size_bytes,
        )


def _lived() -> list[_Lived]:
    """Live some jobs, which differ in how they end and in their metadata."""
    connection: Any = apsw.Connection(":memory:")
    prepare(connection)
    engine = _Recorder(connection)
    store = Store(engine)
    now_ms = SYSTEM.wall_ms()

    def ask(request: StoreRequest, minted: tuple[MintedJob, ...] = ()) -> Any:  # noqa: ANN401 - of many kinds
        asked = TenantRequest(tenant=TENANT, request_id=request_id(now_ms), request=request, minted=minted)
        return store.apply([asked], now_ms).done[0].reply

    lived: list[_Lived] = []
    for number in range(TEMPLATES):
        engine.saved.clear()
        minted = minted_job()
        spec = JobSpec(command="make test", queue=QUEUE, metadata={"branch": f"branch-{number}"})
        ask(EnqueueJob(jobs=(spec,)), (minted,))
        leased: JobsLeased = ask(
            DequeueJob(
                agent=f"agent-{number}",
                queues=(QUEUE,),
                visibility_ms=VISIBILITY_MS,
                token_seed=os.urandom(SEED_BYTES),
            )
        )
        (lease,) = leased.leases
        exit_code = int(number == 0)
        bodies: list[AgentBody] = [
            ProcessStart(timestamp_ms=now_ms, pid=1, started_at=now_ms),
            *(Output(timestamp_ms=now_ms, stream=Stream.STDOUT, data=LINE % at) for at in range(OUTPUTS)),
            ProcessEnd(timestamp_ms=now_ms, pid=1, exit_code=exit_code, duration_ms=1),
        ]
        events = EventBatch(lease=lease.ref, first_index=0, count=len(bodies), events=encode_bodies(bodies))
        completion = CompleteJob(lease=lease.ref, event_count=len(bodies), result=Result(exit_code=exit_code))
        ask(PublishJobEvents(batches=(events,), completions=(completion,)))
        keys = Keys()
        keys.add_job(TENANT, minted.job_id, spec=True)
        (job,) = engine.load(keys).jobs
        saved = engine.saved
        lived.append(
            _Lived(
                job,
                [segment for changes in saved for segment in changes.segments],
                [fact for changes in saved for fact in changes.facts],
                [record for changes in saved for record in changes.records],
                sum(usage.size_bytes for changes in saved for usage in changes.usage.values()),
            )
        )
    store.close()
    return lived
