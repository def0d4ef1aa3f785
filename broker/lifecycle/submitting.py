"""Submissions: EnqueueJob and EnqueueJobWithStdin add jobs, RetryJob adds a copy of an ended job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import BlobsAsked, MintedJob, TenantRequest
from airunner.broker.lifecycle.dependencies import (
    attach_new,
    awaited_by,
    load_dependencies,
    nearest,
    require_dependencies,
)
from airunner.broker.lifecycle.ending import skip
from airunner.broker.lifecycle.idempotency import answered, load_answer, note_answer
from airunner.broker.lifecycle.quota import require
from airunner.broker.lifecycle.world import World
from airunner.broker.store.needs import NEEDS_MAX, TENANT_NEEDS_MAX, needs_of
from airunner.broker.store.room import Room
from airunner.broker.store.rows import JobRow, Keys, QueueKey
from airunner.protocol.caches import permitted
from airunner.protocol.errors import BadRequest, CorruptLog, Draining, NoSpace, NotFinished, NotFound
from airunner.protocol.events import JobScheduled
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, check_new, encode_spec
from airunner.protocol.names import JobId, JobName
from airunner.protocol.replies import JobsEnqueued, QueueMode
from airunner.protocol.requests import EnqueueJob, EnqueueJobWithStdin, RetryJob

FACT_BYTES: Final = 16  # size of a fact: long enough that no two pairs of metadata have the same hash


def facts_of(metadata: Mapping[str, str], name: str) -> tuple[bytes, ...]:
    """Hash the pairs of a job's metadata, and its name, for the index; the name's pair has an empty first part."""
    pairs = [*metadata.items(), *([("", name)] if name else [])]
    # No first part has an equals sign.
    return tuple(blake2b(f"{key}={value}".encode(), digest_size=FACT_BYTES).digest() for key, value in pairs)


def load_enqueue(keys: Keys, command: TenantRequest, request: EnqueueJob | EnqueueJobWithStdin) -> None:
    """Request the rows on which a submission is decided."""
    load_answer(keys, command, request)
    keys.new_jobs += len(request.jobs)
    for queue, needs in {(job.queue, needs_of(job)) for job in request.jobs}:
        keys.add_queue(command.tenant, queue, needing=bool(needs))
    for job in request.jobs:
        if job.continues is not None:
            keys.add_job(command.tenant, job.continues.job_id)
        if job.after:
            load_dependencies(keys, command.tenant, job)


def enqueue(
    world: World, command: TenantRequest, request: EnqueueJob | EnqueueJobWithStdin
) -> JobsEnqueued | BlobsAsked:
    """Submit all of the jobs; a repeat of the request only returns their ids again.

    Raises `Conflict`, `BadRequest`, `Draining`, `NoSpace`, `Quota`; `NotFound`, `NotFinished`: of a job that one of
    these continues; `CorruptLog`: of one that these wait for.
    """
    if (before := answered(world, command, request)) is not None:
        reply = JobsEnqueued(job_ids=before)
    else:
        for job in request.jobs:
            if job.continues is not None:
                _require_ended(world, command, job.continues.job_id)
            if job.after:
                require_dependencies(world, command, job)
        stdin = request.stdin if isinstance(request, EnqueueJobWithStdin) else b""
        reply = _submit(world, command, request, request.jobs, None, stdin)
    for job in request.jobs:
        if job.tree is not None or job.continues is not None:
            return BlobsAsked(request, reply)
    return reply


def _require_ended(world: World, command: TenantRequest, job_id: JobName) -> None:
    """Require that a job has ended, whose workspace another one begins in. Raises `NotFound`, `NotFinished`."""
    origin = world.job(command.tenant, job_id)
    if command.queues is not None and origin.queue not in command.queues:
        raise NotFound
    if not JobState(origin.state).terminal:
        raise NotFinished


def load_retry(keys: Keys, command: TenantRequest, request: RetryJob) -> None:
    """Request the rows on which a RetryJob is decided, including the queue of the job that is submitted again."""
    load_answer(keys, command, request)
    keys.add_job(command.tenant, request.job_id, spec=True)
    keys.retried.add((command.tenant, request.job_id))
    keys.new_jobs += 1


def retry(world: World, command: TenantRequest, request: RetryJob) -> JobsEnqueued | BlobsAsked:
    """Submit an ended job again. A repeat of the request gets the same reply, even if the job has been removed since.

    Raises `NotFound`, `NotFinished`, `BadRequest`, `Conflict`, `CorruptLog`, `Draining`, `NoSpace`, `Quota`. A sender
    bound to queues gets `NotFound` for such a repeat too: `decide` looks for the job first.
    """
    if (before := answered(world, command, request)) is not None:
        return _with_tree(world, command, request, JobsEnqueued(job_ids=before))
    ended = world.job(command.tenant, request.job_id)
    if not JobState(ended.state).terminal:
        raise NotFinished
    spec = world.spec(ended)
    if spec.expires is not None and spec.expires.is_past(world.now_ms):
        spec = replace(spec, expires=None)  # the job is wanted after that instant
    if spec.after:
        spec = replace(spec, after=())  # and whatever the jobs before it have become
    try:
        check_new(spec)
    except ValueError as error:
        raise BadRequest(f"the job cannot be submitted again as it is: {error}") from error
    stdin = world.stdin(ended) if spec.stdin_bytes else b""
    return _with_tree(world, command, request, _submit(world, command, request, [spec], ended.job_id, stdin))


def _with_tree(
    world: World, command: TenantRequest, request: RetryJob, reply: JobsEnqueued
) -> JobsEnqueued | BlobsAsked:
    """Have the new job get the claims of the first one before the reply, if that began with files and still exists."""
    try:
        spec = world.spec(world.job(command.tenant, request.job_id))
    except (NotFound, CorruptLog):
        return reply
    return reply if spec.tree is None and spec.continues is None else BlobsAsked(request, reply)


def _submit(
    world: World,
    command: TenantRequest,
    request: EnqueueJob | EnqueueJobWithStdin | RetryJob,
    jobs: Sequence[JobSpec],
    origin: JobId | None,
    stdin: bytes,
) -> JobsEnqueued:
    """Add the jobs; `stdin` is the standard input of the only one, or empty."""
    tenant = command.tenant
    if command.room < Room.AMPLE:
        raise NoSpace
    require(world, tenant, len(jobs), command.quotas)
    for queue in {job.queue: None for job in jobs}:
        if world.mode(tenant, queue) is QueueMode.DRAINING:
            raise Draining(f"queue {queue} is being drained and accepts no new jobs; open it with `airunner resume`")
    needs = [needs_of(job) for job in jobs]
    if any(needs):
        keys = (QueueKey(tenant, job.queue, need) for job, need in zip(jobs, needs, strict=True) if need)
        _require_kinds(world, tenant, keys)
    for job in jobs:
        if job.caches:
            jobs = [_with_rights(job, command) for job in jobs]
            break
    try:
        specs = [encode_spec(job) for job in jobs]
    except ValueError as error:
        raise BadRequest(str(error)) from error
    assert len(command.minted) == len(jobs), "not an id for each job"
    world.require_sound(command.minted)
    near: frozenset[str] | None = None
    for minted, job, spec, need in zip(command.minted, jobs, specs, needs, strict=True):
        if job.after and near is None:
            near = nearest(jobs)
        job_row = _add(world, tenant, minted, job, spec, need, origin, near)
        if stdin:
            world.add_stdin(job_row, stdin)
    job_ids = tuple([minted.job_id for minted in command.minted])
    note_answer(world, command, request)
    return JobsEnqueued(job_ids=job_ids)


def _with_rights(job: JobSpec, command: TenantRequest) -> JobSpec:
    """Limit the caches that a job saves to those whose labels its submitter's token has."""
    return replace(job, caches=permitted(job.caches, command.cache_labels))


def _add(
    world: World,
    tenant: str,
    minted: MintedJob,
    spec: JobSpec,
    raw: bytes,
    needs: str,
    origin: JobId | None,
    near: frozenset[str] | None,
) -> JobRow:
    now_ms = world.now_ms
    due_ms = spec.not_before_ms if spec.not_before_ms is not None and spec.not_before_ms > now_ms else None
    awaited = awaited_by(world, tenant, spec) if spec.after else {}
    job = JobRow(
        number=0,
        job_id=minted.job_id,
        tenant=tenant,
        queue=spec.queue,
        needs=needs,
        gate=0,
        state=JobState.SCHEDULED if awaited == {} else JobState.BLOCKED,
        priority=spec.priority,
        owner=spec.owner,
        watch_key=minted.watch_key,
        submitted_ms=now_ms,
        due_ms=due_ms,
        deadline_ms=None if spec.expires is None else spec.expires.deadline_ms(now_ms),
        max_attempts=spec.max_attempts,
        origin=origin,
        broker=world.broker,
        unmet=len(awaited if awaited is not None else spec.after) if spec.after else 0,
        spec=raw,
    )
    world.add_job(job, facts_of(spec.metadata, spec.name) if spec.metadata or spec.name else ())
    scheduled = JobScheduled(
        timestamp_ms=now_ms, queue=spec.queue, not_before_ms=due_ms, origin=origin, unmet=job.unmet
    )
    world.write(job, [scheduled])
    if awaited is None:
        skip(world, job)
    elif awaited:
        attach_new(world, job, awaited, near or frozenset())
    return job


def _require_kinds(world: World, tenant: str, wanted: Iterable[QueueKey]) -> None:
    """Require room for new kinds of jobs. Raises `BadRequest`: there would be more kinds than a lease may search."""
    new = [key for key in dict.fromkeys(wanted) if key.needs not in world.kinds(tenant, key.queue)]
    for queue, count in Counter(key.queue for key in new).items():
        if len(world.kinds(tenant, queue)) + count > NEEDS_MAX:
            raise BadRequest(
                f"the jobs of queue {queue} may have {NEEDS_MAX} different sets of required tags, counting jobs that "
                "have not ended; use another queue, or fewer sets"
            )
    if new and world.kinds_of(tenant) + len(new) > TENANT_NEEDS_MAX:
        raise BadRequest(
            f"this tenant's jobs may have {TENANT_NEEDS_MAX} different sets of required tags in all queues together, "
            "counting jobs that have not ended; use fewer sets, or fewer queues with them"
        )
