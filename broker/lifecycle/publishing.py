"""Publications: PublishJobEvents appends events to jobs' logs, exactly once and in order, and completes attempts."""

from __future__ import annotations

from collections import Counter
from typing import Final

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.lifecycle.ending import complete, load_complete
from airunner.broker.lifecycle.quota import require_log
from airunner.broker.lifecycle.world import World
from airunner.broker.store.room import Room
from airunner.broker.store.rows import JobRow, Keys
from airunner.protocol.coding import refusal
from airunner.protocol.compression import content_bytes, is_compressed
from airunner.protocol.errors import BadRequest, IndexGap, NoSpace, PeerError, Quota, StaleToken
from airunner.protocol.events import AgentBody, Output, check_batch, without_first
from airunner.protocol.job import JobState
from airunner.protocol.message import LeaseRef
from airunner.protocol.names import JobId
from airunner.protocol.replies import BatchStored, JobCompleted, JobEventsPublished, Refused
from airunner.protocol.requests import LAST_BYTES_MAX, CompleteJob, EventBatch, PublishJobEvents

CONTENT_BYTES_A_POINT: Final = 2_048  # bytes of compressed events that are checked in a point: fields of a byte each
OUTPUT_BYTES_A_POINT: Final = 16_384  # bytes of output among these, which are copied at once


def load_publish(keys: Keys, command: TenantRequest, request: PublishJobEvents) -> None:
    """Request the rows on which a PublishJobEvents is decided."""
    keys.jobs.update([(command.tenant, batch.lease.job_id) for batch in request.batches])
    for completion in request.completions:
        load_complete(keys, command, completion)
    if command.quotas.bytes_max is not None:
        keys.tenants.add(command.tenant)


def publish(world: World, command: TenantRequest, request: PublishJobEvents) -> JobEventsPublished:
    """Store batches of events and complete attempts; each batch and completion is accepted or refused by itself."""
    scarce = command.room < Room.RUNNING or command.quotas.bytes_max is not None
    lasts = _lasts(request) if scarce else None
    batches = tuple([_batch(world, command, batch, lasts) for batch in request.batches])
    completions = tuple([_completion(world, command, completion) for completion in request.completions])
    return JobEventsPublished(batches=batches, completions=completions)


def _batch(world: World, command: TenantRequest, batch: EventBatch, lasts: set[LeaseRef] | None) -> BatchStored:
    code: str | None = None
    try:
        next_index = _store(world, command, batch, lasts)
    except PeerError as error:
        next_index, code = error.expected_index or 0, error.code
    return BatchStored(job_id=JobId(batch.lease.job_id), attempt=batch.lease.attempt, next_index=next_index, code=code)


def _completion(world: World, command: TenantRequest, completion: CompleteJob) -> JobCompleted | Refused:
    try:
        return complete(world, command, completion)
    except PeerError as error:
        return refusal(error)


def _store(world: World, command: TenantRequest, batch: EventBatch, lasts: set[LeaseRef] | None) -> int:
    """Store the events of `batch` that are not stored yet; return the attempt's next index.

    `lasts`: see `_lasts`; the events of these attempts are stored even with little room. None: there is room for all.

    Raises `NotFound`, `StaleToken`, `IndexGap`, `BadRequest`, `NoSpace`, `Quota`, `CorruptLog`.
    """
    job = world.job_of(command.tenant, batch.lease)
    next_index = batch.first_index + batch.count
    if batch.first_index > job.next_index:
        raise IndexGap(expected_index=job.next_index)
    if next_index <= job.next_index:
        return job.next_index
    if job.state != JobState.RUNNING:
        raise StaleToken
    if lasts is not None:
        _require_room(world, command, job, last=batch.lease in lasts)
    bodies = _checked(world, batch.events)
    if len(bodies) != batch.count:
        raise BadRequest(f"a batch is said to have {batch.count} events, but has {len(bodies)}")
    known = job.next_index - batch.first_index
    raw = without_first(batch.events, known) if known else batch.events
    world.change(job)
    job.next_index = next_index
    world.append(job, batch.count - known, raw, max([body.timestamp_ms for body in bodies[known:]]))
    return next_index


def _require_room(world: World, command: TenantRequest, job: JobRow, *, last: bool) -> None:
    """Require room for events of a running job. Raises `NoSpace`, `Quota`, with the index to go on at."""
    if command.room < Room.RUNNING and not last:
        raise NoSpace(expected_index=job.next_index)
    try:
        require_log(world, command.tenant, command.quotas, last=last)
    except Quota as refused:
        refused.expected_index = job.next_index
        raise


def _checked(world: World, raw: bytes) -> list[AgentBody]:
    """Decode a batch, and charge for a compressed one what it is when decompressed. Raises `BadRequest`."""
    if not is_compressed(raw):
        return check_batch(raw)
    # First as if it held no output, also if it turns out to be invalid; then the output costs less than that.
    world.add_work(content_bytes(raw) // CONTENT_BYTES_A_POINT)
    bodies = check_batch(raw)
    output_bytes = sum([len(body.data) for body in bodies if isinstance(body, Output)])
    world.add_work(output_bytes // OUTPUT_BYTES_A_POINT - output_bytes // CONTENT_BYTES_A_POINT)
    return bodies


def _lasts(request: PublishJobEvents) -> set[LeaseRef]:
    """Find the attempts that this request completes and of which it has at most `LAST_BYTES_MAX` of events."""
    size_bytes: Counter[LeaseRef] = Counter()
    for batch in request.batches:
        size_bytes[batch.lease] += len(batch.events)
    ending = {completion.lease for completion in request.completions}
    return {lease for lease in ending if size_bytes[lease] <= LAST_BYTES_MAX}
