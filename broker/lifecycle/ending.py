"""Ends of attempts: completed, retried, released or expired; if no attempt follows, the job ends too. Also cancels.

When the attempt's agent repeats its request, `JobRow.settled` says how the request was answered the first time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from airunner.broker.lifecycle.commands import Attach, FollowEnd, TenantRequest
from airunner.broker.lifecycle.dependencies import attach_to, follow_attach, follow_up_end, take_dependents, unblock
from airunner.broker.lifecycle.world import World
from airunner.broker.store.rows import JobRow, Keys
from airunner.protocol.errors import CorruptLog, IncompleteLog, NotFound, StaleToken
from airunner.protocol.events import BrokerBody, JobCancelRequested, JobExpired, JobFinished, JobReleased, JobScheduled
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import JobCancelled, JobCompleted, JobReleasedReply
from airunner.protocol.requests import CancelJob, CompleteJob, ReleaseJob
from airunner.protocol.states import FINISHING, TRANSITIONS, Change

_CANCELLED: Final = Result(reason=Reason.CANCELLED)
_EXPIRED: Final = Result(reason=Reason.EXPIRED)
_SKIPPED: Final = Result(reason=Reason.SKIPPED)
_LOST: Final = Result(reason=Reason.AGENT_LOST)
_encoder: Final = msgspec.msgpack.Encoder()


class Settled(StrEnum):
    """End of a job's last attempt, stored in `JobRow.settled`."""

    COMPLETED = "completed"
    RETRIED = "retried"
    RELEASED = "released"
    EXPIRED = "expired"


class _End(Struct, frozen=True):
    """End of an attempt, and the next state of its job; `lost`: its agent was lost; `retried`: by its retry policy."""

    state: JobState
    settled: Settled
    events: list[BrokerBody]
    result: Result | None = None
    due_ms: int | None = None
    lost: bool = False
    retried: bool = False


def load_complete(keys: Keys, command: TenantRequest, request: CompleteJob) -> None:
    """Request the rows on which a CompleteJob is decided; a failed job's spec contains its retry policy."""
    keys.add_job(command.tenant, request.lease.job_id, spec=request.result.state is JobState.FAILED)


def load_release(keys: Keys, command: TenantRequest, request: ReleaseJob) -> None:
    """Request the job of a ReleaseJob with its spec: a later DequeueJob of the same batch may lease the job."""
    keys.add_job(command.tenant, request.lease.job_id, spec=True)


def load_cancel(keys: Keys, command: TenantRequest, request: CancelJob) -> None:
    """Request the rows on which a CancelJob is decided; it may end a job that would be leased next."""
    keys.add_job(command.tenant, request.job_id)
    keys.ended += 1


def complete(world: World, command: TenantRequest, request: CompleteJob) -> JobCompleted:
    """End the attempt with the result that its agent reports; end the job too, unless its policy retries it.

    Raises `NotFound`, `StaleToken`, `IncompleteLog`, `CorruptLog`.
    """
    job = world.job_of(command.tenant, request.lease)
    if job.settled == Settled.COMPLETED:
        return JobCompleted(state=JobState(job.state))
    if job.settled == Settled.RETRIED:
        return JobCompleted(state=JobState.SCHEDULED)
    if job.state != JobState.RUNNING:
        raise StaleToken
    if job.next_index != request.event_count:
        raise IncompleteLog(
            f"{job.next_index} events are stored and {request.event_count} are claimed", expected_index=job.next_index
        )
    end = _finish(world, Settled.COMPLETED, request.result, [])
    if end.state is JobState.FAILED and (retry := _retry_of(world, job, request.result)) is not None:
        state = TRANSITIONS[JobState.RUNNING, Change.RETRY]
        end = _End(state, Settled.RETRIED, [retry], due_ms=retry.not_before_ms, retried=True)
    _end(world, job, end)
    return JobCompleted(state=end.state)


def release(world: World, command: TenantRequest, request: ReleaseJob) -> JobReleasedReply:
    """Put the job back in its old place in the queue; end it if it is to be cancelled, or lost too many agents.

    If the request id is that of the DequeueJob that leased the job, the broker itself sends this request, because the
    leases did not reach the agent. Then the grant is forgotten, so that a repeat of the DequeueJob may lease the job.
    It is refused once another broker owns the lease, or has owned it meanwhile, as its deadline shows: there the agent
    has repeated its DequeueJob, and got the lease.

    Raises `NotFound`, `StaleToken`, `CorruptLog`.
    """
    job = world.job_of(command.tenant, request.lease)
    if job.settled == Settled.RELEASED:
        return JobReleasedReply()
    undelivered = job.lease_request == command.request_id
    extended = command.deadline_ms not in (None, job.deadline_ms)
    if job.state != JobState.RUNNING or (undelivered and (extended or job.broker != world.broker)):
        raise StaleToken
    events: list[BrokerBody] = [JobReleased(timestamp_ms=world.now_ms, lost=request.lost)]
    if request.lost:
        end = _end_of_lost(world, job, Settled.RELEASED, Change.RELEASE, events)
    elif job.cancel_requested_ms is None:
        end = _End(TRANSITIONS[JobState.RUNNING, Change.RELEASE], Settled.RELEASED, events)
    else:
        end = _finish(world, Settled.RELEASED, _CANCELLED, events)
    _end(world, job, end)
    if undelivered:
        job.lease_request = None
    return JobReleasedReply()


def cancel(world: World, command: TenantRequest, request: CancelJob) -> JobCancelled:
    """Cancel a job: end a waiting job; nudge the agent of a running job to end it.

    Raises `NotFound`, `CorruptLog`.
    """
    job = world.job(command.tenant, request.job_id)
    state = JobState(job.state)
    if state.terminal:
        return JobCancelled(state=state)
    if job.cancel_requested_ms is not None:
        world.news.nudged.append(job.job_id)
        return JobCancelled(state=state)
    requested: list[BrokerBody] = [JobCancelRequested(timestamp_ms=world.now_ms)]
    if state.waiting:
        _end_waiting(world, job, _CANCELLED, requested)
        job.cancel_requested_ms = world.now_ms
        return JobCancelled(state=JobState.CANCELLED)
    world.change(job)
    job.cancel_requested_ms = world.now_ms
    world.write(job, requested)
    world.news.nudged.append(job.job_id)
    return JobCancelled(state=state)


def expire(world: World) -> None:
    """Expire the leases and the waiting jobs whose deadline has come, and end the delays that are over.

    A job that has ended is due if its dependents have not followed it; a BLOCKED one, if it was not attached.
    """
    now_ms = world.now_ms
    for job in world.due():
        if is_late(world, job):
            expire_waiting(world, job)
        elif job.deadline_ms is not None and job.deadline_ms <= now_ms:
            end = _end_of_lost(world, job, Settled.EXPIRED, Change.EXPIRE, [JobExpired(timestamp_ms=now_ms)])
            _end(world, job, end, forget_token=True)
        elif job.due_ms is not None and job.due_ms <= now_ms:
            _end_delay(world, job)


def _end_delay(world: World, job: JobRow) -> None:
    """End a job's delay, or make the follow-up again for which it is due."""
    if job.state == JobState.SCHEDULED:
        before = world.change(job)
        job.due_ms = None
        world.update_standing(job, before)
    elif job.state == JobState.BLOCKED:
        follow_attach(world, job, world.spec(job))
    else:
        follow_up_end(world, job)


def is_late(world: World, job: JobRow) -> bool:
    """Check whether a waiting job has expired."""
    late = job.deadline_ms is not None and job.deadline_ms <= world.now_ms
    return late and JobState(job.state).waiting


def expire_waiting(world: World, job: JobRow) -> None:
    """Fail a waiting job that has expired."""
    _end_waiting(world, job, _EXPIRED, [])


def follow_end(world: World, command: FollowEnd) -> None:
    """Unblock or skip dependents of a job that has ended."""
    try:
        job = world.job(command.tenant, command.job_id)
    except (NotFound, CorruptLog):
        return
    if not JobState(job.state).terminal:
        return
    for dependent, met in take_dependents(world, job, command):
        if met:
            world.change(dependent)
            dependent.unmet -= 1
            unblock(world, dependent)
        else:
            skip(world, dependent)


def attach(world: World, command: Attach) -> None:
    """Attach a BLOCKED job to jobs that it waits for; unblock or skip it if they have ended."""
    try:
        job = world.job(command.tenant, command.job_id)
    except (NotFound, CorruptLog):
        return
    if job.state != JobState.BLOCKED:
        return
    if attach_to(world, job, command):
        unblock(world, job)
    else:
        skip(world, job)


def skip(world: World, job: JobRow) -> None:
    """Skip a BLOCKED job: one that it waited for has ended otherwise than it had to."""
    _end_waiting(world, job, _SKIPPED, [])


def _end_waiting(world: World, job: JobRow, result: Result, events: list[BrokerBody]) -> None:
    """End a waiting job; JOB_FINISHED follows `events`."""
    before = world.change(job)
    finished = _finished_event(JobState(job.state), result, world.now_ms)
    job.state = finished.state
    job.due_ms = job.deadline_ms = None
    job.result = _encoder.encode(result)
    job.finished_ms = world.now_ms
    world.update_standing(job, before)
    if job.started_ms is not None:
        world.timings.ended += [(job.state, world.now_ms - job.started_ms)]
    world.write(job, [*events, finished])
    follow_up_end(world, job)


def _retry_of(world: World, job: JobRow, result: Result) -> JobScheduled | None:
    """Make the event of a failed attempt's retry, which says when it is due; None: the job is not retried."""
    if job.cancel_requested_ms is not None:
        return None
    policy = world.spec(job).retry
    if policy is None or job.retries >= policy.limit or not policy.covers(result.end, result.failures):
        return None
    retry = job.retries + 1
    # The jitter is derived from the task token, which is random: deciders draw no random numbers.
    assert job.token_hash is not None, "a running job without a task token"
    jitter = int.from_bytes(job.token_hash[:4], "big") / 2**32
    pause_ms = policy.pause_ms(retry, jitter)
    due_ms = world.now_ms + pause_ms if pause_ms else None
    return JobScheduled(timestamp_ms=world.now_ms, queue=job.queue, not_before_ms=due_ms, retry=retry)


def _end(world: World, job: JobRow, end: _End, *, forget_token: bool = False) -> None:
    """Write the end of an attempt; `forget_token`: its task token is no longer valid, not even for a repeat."""
    before = world.change(job)
    job.state = end.state
    job.settled = end.settled
    job.due_ms = end.due_ms
    job.broker = world.broker
    job.pause_ms = None if end.due_ms is None else end.due_ms - world.now_ms
    job.result = None if end.result is None else _encoder.encode(end.result)
    job.finished_ms = None if end.result is None else world.now_ms
    job.deadline_ms = None
    job.retries += end.retried
    job.agents_lost = 0 if end.lost and end.retried else job.agents_lost + end.lost
    if forget_token:
        job.token_hash = None
    world.update_standing(job, before)
    if end.result is not None and job.started_ms is not None:
        world.timings.ended += [(job.state, world.now_ms - job.started_ms)]
    world.write(job, end.events)
    if end.result is not None:
        follow_up_end(world, job)


def _end_of_lost(world: World, job: JobRow, settled: Settled, change: Change, events: list[BrokerBody]) -> _End:
    """Make the end of an attempt whose agent was lost; after a cancel or `max_attempts` losses the job ends too."""
    if job.cancel_requested_ms is not None:
        return _finish(world, settled, _CANCELLED, events, lost=True)
    state = TRANSITIONS[JobState.RUNNING, change]
    if job.agents_lost + 1 < job.max_attempts:
        return _End(state, settled, events, lost=True)
    if (retry := _retry_of(world, job, _LOST)) is not None:
        return _End(state, settled, [*events, retry], due_ms=retry.not_before_ms, lost=True, retried=True)
    return _finish(world, settled, _LOST, events, lost=True)


def _finish(world: World, settled: Settled, result: Result, events: list[BrokerBody], *, lost: bool = False) -> _End:
    """Make the end of an attempt that ends the job; JOB_FINISHED follows `events`."""
    finished = _finished_event(JobState.RUNNING, result, world.now_ms)
    return _End(finished.state, settled, [*events, finished], result, lost=lost)


def _finished_event(before: JobState, result: Result, now_ms: int) -> JobFinished:
    """Make the event that ends a job of this state as the result says."""
    return JobFinished(
        timestamp_ms=now_ms,
        state=TRANSITIONS[before, FINISHING[result.state]],
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
    )
