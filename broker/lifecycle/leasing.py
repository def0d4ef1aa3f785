"""Leases: DequeueJob grants leases, UpdateJob renews them and says what SendInput has sent; `ending` ends them."""

from __future__ import annotations

from typing import Final

import msgspec

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.lifecycle.ending import expire_waiting, is_late
from airunner.broker.lifecycle.world import World
from airunner.broker.store.needs import facts_of
from airunner.broker.store.room import Room
from airunner.broker.store.rows import JobRow, Keys, QueueKey, Wanted
from airunner.protocol.errors import Conflict, CorruptLog, NoSpace, PeerError, StaleToken
from airunner.protocol.events import JobLeased, encode_bodies
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.job import JobState
from airunner.protocol.message import LeaseRef
from airunner.protocol.names import JobId, task_token, token_hash
from airunner.protocol.replies import InputSent, JobLease, JobsLeased, JobsUpdated, LeaseVerdict, QueueMode, Verdict
from airunner.protocol.requests import DequeueJob, SendInput, UpdateJob
from airunner.protocol.states import TRANSITIONS, Change

LATE_MAX: Final = 4  # expired jobs that a DequeueJob ends in passing; if there are more, they take the place of leases
_sizes = msgspec.msgpack.Decoder(TerminalSize)
_LEASED: Final = TRANSITIONS[JobState.SCHEDULED, Change.LEASE]


def load_dequeue(keys: Keys, command: TenantRequest, request: DequeueJob) -> None:
    """Request the rows on which a DequeueJob is decided, except for the waiting jobs, which the Store loads later."""
    keys.grants.add((command.tenant, command.request_id))
    queues = [QueueKey(command.tenant, queue) for queue in dict.fromkeys(request.queues)]
    keys.queues.update(queues)
    keys.kinds.update(queues)
    keys.boxes.update(queues)
    facts = facts_of(request)
    keys.wanted += [Wanted(command.tenant, queue, facts, request.slots) for _, queue, _ in queues]


def load_update(keys: Keys, command: TenantRequest, request: UpdateJob) -> None:
    """Request the rows on which an UpdateJob is decided."""
    keys.jobs.update([(command.tenant, lease.job_id) for lease in request.leases])


def dequeue(world: World, command: TenantRequest, request: DequeueJob) -> JobsLeased:
    """Lease waiting jobs to an agent; a repeated request gets the leases that were granted to it before.

    Raises `Conflict`: they were granted for another seed; `StaleToken`: all have ended, so this is a late copy of the
    request; `NoSpace`; `CorruptLog`: a secret cannot be read.
    """
    granted = _granted(world, command, request)
    if granted:
        world.news.repeated = bool(world.broker)
        return JobsLeased(leases=granted)
    if command.room < Room.RUNNING:
        raise NoSpace
    taken: list[JobRow] = []
    late: list[JobRow] = []
    exhausted: set[QueueKey] = set()
    facts = facts_of(request)
    for queue in dict.fromkeys(request.queues):
        room = request.slots - len(taken)
        if late and len(late) > LATE_MAX:
            room -= len(late) - LATE_MAX
        if not room:
            break
        paused = world.mode(command.tenant, queue) is QueueMode.PAUSED
        jobs, was_all = ([], True) if paused else world.take_waiting(command.tenant, queue, facts, room)
        if was_all:
            exhausted.add(QueueKey(command.tenant, queue))
        for job in jobs:
            (late if job.deadline_ms is not None and is_late(world, job) else taken).append(job)
    try:
        leases = tuple([_lease(world, command, request, job, job.attempt + 1, request.visibility_ms) for job in taken])
    except CorruptLog:
        world.put_back([*late, *taken])
        raise
    for job in late:
        expire_waiting(world, job)
        world.news.ready.add(job.key)  # there may be more jobs behind it: the agent's request is tried again
    leased = encode_bodies([JobLeased(timestamp_ms=world.now_ms, agent=request.agent)])
    for job, lease in zip(taken, leases, strict=True):
        _grant(world, command, request, job, lease)
        world.append(job, 1, leased, world.now_ms, by_broker=True)
    world.news.exhausted |= exhausted
    world.news.deadline_ms = world.now_ms + request.visibility_ms if world.broker else None
    return JobsLeased(leases=leases)


def update(world: World, command: TenantRequest, request: UpdateJob) -> JobsUpdated:
    """Renew leases; the reply has a verdict for each."""
    return JobsUpdated(leases=tuple(_renewed(world, command.tenant, ref, request) for ref in request.leases))


def load_send(keys: Keys, command: TenantRequest, request: SendInput) -> None:
    """Request the rows on which a SendInput is decided."""
    keys.add_job(command.tenant, request.job_id)


def send_input(world: World, command: TenantRequest, request: SendInput) -> InputSent:
    """Note the size of a running job's terminal, and nudge its agent, which learns of it as of a cancel.

    Raises `NotFound`, `CorruptLog`.
    """
    job = world.job(command.tenant, request.job_id)
    if job.state == JobState.RUNNING:
        size = msgspec.msgpack.encode(request.resize)
        if size != job.terminal:
            world.change(job)
            job.terminal = size
        world.news.nudged.append(job.job_id)
    return InputSent(state=JobState(job.state))


def ready_ms(job: JobRow, spec: JobSpec) -> int:
    """Return the instant from which a job could be leased for the first time."""
    not_before_ms, unblocked_ms = spec.not_before_ms, job.unblocked_ms
    ready_ms = job.submitted_ms if unblocked_ms is None else unblocked_ms
    return ready_ms if not_before_ms is None or not_before_ms < ready_ms else not_before_ms


def _granted(world: World, command: TenantRequest, request: DequeueJob) -> tuple[JobLease, ...]:
    """Return the running leases that were granted to this request before; extend each by a full visibility timeout.

    They are in the order of submission; in the first reply they were in the order of the request's queues.
    """
    granted = world.granted(command.tenant, command.request_id)
    running = [job for job in granted if job.state == JobState.RUNNING]
    if granted and not running:
        raise StaleToken
    leases = tuple(_lease(world, command, request, job, job.attempt, job.visibility_ms or 0) for job in running)
    if any(token_hash(lease.task_token) != job.token_hash for lease, job in zip(leases, running, strict=True)):
        raise Conflict
    for job in running:
        _extend(world, job, job.visibility_ms or 0)
    return leases


def _grant(world: World, command: TenantRequest, request: DequeueJob, job: JobRow, lease: JobLease) -> None:
    before = world.change(job)
    job.state = _LEASED
    job.attempt = lease.attempt
    job.next_index = 0
    job.agent = request.agent
    job.token_hash = token_hash(lease.task_token)
    job.visibility_ms = request.visibility_ms
    job.deadline_ms = world.now_ms + request.visibility_ms
    job.broker = world.broker
    if job.started_ms is None:
        job.started_ms = world.now_ms
        world.timings.waited_ms += [world.now_ms - ready_ms(job, lease.spec)]
    job.settled = job.terminal = None
    world.lease(job, command.request_id)
    world.update_standing(job, before)


def _lease(
    world: World, command: TenantRequest, request: DequeueJob, job: JobRow, attempt: int, visibility_ms: int
) -> JobLease:
    """Make the lease; its token is derived from the request's seed, so each repeat gets the same token."""
    spec = world.spec(job)
    sealed: dict[str, bytes] = {}
    if spec.secrets or spec.secret_files:
        boxes = world.boxes(job.tenant, job.queue)
        sealed = {name: boxes[name].box for name in spec.secret_names if name in boxes and name not in spec.environment}
    return JobLease(
        job_id=job.job_id,
        attempt=attempt,
        task_token=task_token(request.token_seed, job.job_id, attempt),
        visibility_ms=visibility_ms,
        spec=spec,
        sealed=sealed,
        zstd=True,
        signed=True,
        workspace_key=command.workspace_key if spec.caches else b"",
    )


def _renewed(world: World, tenant: str, ref: LeaseRef, request: UpdateJob) -> LeaseVerdict:
    try:
        job = world.job_of(tenant, ref)
    except PeerError:
        job = None
    terminal: bytes | None = None
    if job is None or job.state != JobState.RUNNING:
        verdict = Verdict.LOST
    else:
        _extend(world, job, request.visibility_ms)
        job.visibility_ms = request.visibility_ms
        verdict = Verdict.KEPT if job.cancel_requested_ms is None else Verdict.CANCEL
        terminal = job.terminal
    size = None if terminal is None else _sizes.decode(terminal)
    return LeaseVerdict(job_id=JobId(ref.job_id), attempt=ref.attempt, verdict=verdict, terminal=size)


def _extend(world: World, job: JobRow, visibility_ms: int) -> None:
    """Extend the lease: its deadline is at least `visibility_ms` from now.

    Another broker's deadline is an instant of its clock, which is not compared with this one's: it is set.
    """
    world.change(job)
    before_ms = job.deadline_ms if job.broker == world.broker else None
    job.deadline_ms = max(before_ms or 0, world.now_ms + visibility_ms)
    job.broker = world.broker
