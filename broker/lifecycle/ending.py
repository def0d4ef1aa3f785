"""Ends of attempts: completed, retried, released, expired, cancelled; and with the last of them the end of the job.

A repeat by the attempt's agent is answered from `settled`, as it was answered the first time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.lifecycle.world import World
from airunner.broker.store.contract import JobRow, Keys
from airunner.protocol.errors import IncompleteLog, StaleToken
from airunner.protocol.events import BrokerBody, JobCancelRequested, JobExpired, JobFinished, JobReleased, JobScheduled
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.names import TokenHash, token_hash
from airunner.protocol.replies import JobCancelled, JobCompleted, JobReleasedReply
from airunner.protocol.requests import CancelJob, CompleteJob, ReleaseJob
from airunner.protocol.states import FINISHING, Change, next_state

_CANCELLED: Final = Result(reason=Reason.CANCELLED)
_BY_ITSELF: Final = (None, Reason.EXIT_CODE, Reason.SIGNAL)  # reasons that follow from the exit code
_encoder: Final = msgspec.msgpack.Encoder()


class Settled(StrEnum):
    """Settlement of the last attempt: how it ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    RELEASED = "released"
    EXPIRED = "expired"


class _End(NamedTuple):
    """End of an attempt, and what it makes of its job."""

    state: JobState
    settled: Settled
    events: list[BrokerBody]
    result: Result | None = None
    due_ms: int | None = None
    lost: int = 0


def load_complete(keys: Keys, command: TenantRequest, request: CompleteJob) -> None:
    """Have the rows loaded on which a CompleteJob is decided; a failed job's spec has its retry policy."""
    keys.add_job(command.tenant, request.lease.job_id, spec=request.result.state is JobState.FAILED)


def load_release(keys: Keys, command: TenantRequest, request: ReleaseJob) -> None:
    """Have the rows loaded on which a ReleaseJob is decided; the spec is for the next request that leases the job."""
    keys.add_job(command.tenant, request.lease.job_id, spec=True)


def load_cancel(keys: Keys, command: TenantRequest, request: CancelJob) -> None:
    """Have the rows loaded on which a CancelJob is decided."""
    keys.add_job(command.tenant, request.job_id)


def complete(world: World, command: TenantRequest, request: CompleteJob) -> JobCompleted:
    """End the attempt as its agent reports, and the job unless its policy retries it.

    Raises `NotFound`, `StaleToken`, `IncompleteLog`, `CorruptLog`.
    """
    job = world.held(command.tenant, request.lease)
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
    end = _retried(world, job, request) or _finished(
        FINISHING[request.result.state], Settled.COMPLETED, request.result, [], world.now_ms
    )
    _end(world, job, end)
    return JobCompleted(state=end.state)


def release(world: World, command: TenantRequest, request: ReleaseJob) -> JobReleasedReply:
    """Put the job back in its old place; end it where it is to be cancelled, or its agents died too often.

    Under the id of the request that it was granted to, the grant is undone: the agent never received it, and may be
    granted the job when it repeats the request.

    Raises `NotFound`, `StaleToken`, `CorruptLog`.
    """
    job = world.held(command.tenant, request.lease)
    if job.settled == Settled.RELEASED:
        return JobReleasedReply()
    if job.state != JobState.RUNNING:
        raise StaleToken
    events: list[BrokerBody] = [JobReleased(timestamp_ms=world.now_ms, lost=request.lost)]
    if request.lost:
        end = _lost(job, Settled.RELEASED, Change.RELEASE, events, world.now_ms)
    elif job.cancel_requested_ms is None:
        end = _End(_follows(Change.RELEASE), Settled.RELEASED, events)
    else:
        end = _finished(Change.CANCEL, Settled.RELEASED, _CANCELLED, events, world.now_ms)
    _end(world, job, end)
    if job.lease_request == command.request_id:
        job.lease_request = None
    return JobReleasedReply()


def cancel(world: World, command: TenantRequest, request: CancelJob) -> JobCancelled:
    """Cancel a job: end it while it waits; have the agent end it while it runs.

    Raises `NotFound`, `CorruptLog`.
    """
    job = world.job(command.tenant, request.job_id)
    state = JobState(job.state)
    if state.terminal:
        return JobCancelled(state=state)
    if job.cancel_requested_ms is not None:
        world.news.nudged.append(job.job_id)
        return JobCancelled(state=state)
    before = world.change(job)
    job.cancel_requested_ms = world.now_ms
    events: list[BrokerBody] = [JobCancelRequested(timestamp_ms=world.now_ms)]
    if state is JobState.RUNNING:
        world.write(job, events)
        world.news.nudged.append(job.job_id)
        return JobCancelled(state=state)
    ended = next_state(state, Change.CANCEL)
    assert ended is JobState.CANCELLED, "a waiting job may be cancelled"
    events.append(_event(_CANCELLED, world.now_ms))
    job.state = ended
    job.due_ms = None
    job.result = _encoder.encode(_CANCELLED)
    job.finished_ms = world.now_ms
    world.moved(job, before)
    world.write(job, events)
    return JobCancelled(state=ended)


def expire(world: World) -> None:
    """Expire the leases that are due, the oldest first, and the delays."""
    now_ms = world.now_ms
    for job in world.due():
        if job.deadline_ms is not None and job.deadline_ms <= now_ms:
            end = _lost(job, Settled.EXPIRED, Change.EXPIRE, [JobExpired(timestamp_ms=now_ms)], now_ms)
            _end(world, job, end, token=None)
        elif job.due_ms is not None and job.due_ms <= now_ms:
            before = world.change(job)
            job.due_ms = None
            world.moved(job, before)


def _retried(world: World, job: JobRow, request: CompleteJob) -> _End | None:
    """Decide whether the job is retried; None where the attempt ends the job."""
    result = request.result
    if result.state is not JobState.FAILED or job.cancel_requested_ms is not None:
        return None
    policy = world.spec(job).retry
    if policy is None or job.retries >= policy.limit:
        return None
    if not policy.covers(result.exit_code, result.signal, by_itself=result.reason in _BY_ITSELF):
        return None
    retry = job.retries + 1
    # The jitter comes from the agent's random token: nothing is drawn here, and jobs do not retry in step.
    jitter = int.from_bytes(token_hash(request.lease.task_token)[:4], "big") / 2**32
    pause_ms = policy.pause_ms(retry, jitter)
    due_ms = world.now_ms + pause_ms if pause_ms else None
    event = JobScheduled(timestamp_ms=world.now_ms, queue=job.queue, not_before_ms=due_ms, retry=retry)
    return _End(_follows(Change.RETRY), Settled.RETRIED, [event], due_ms=due_ms)


_KEPT: Final = TokenHash(b"")


def _end(world: World, job: JobRow, end: _End, token: TokenHash | None = _KEPT) -> None:
    """Write the end of an attempt; without a `token` its agent cannot repeat its last request."""
    before = world.change(job)
    job.state = end.state
    job.settled = end.settled
    job.due_ms = end.due_ms
    job.pause_ms = None if end.due_ms is None else end.due_ms - world.now_ms
    job.result = None if end.result is None else _encoder.encode(end.result)
    job.finished_ms = world.now_ms if end.state.terminal else None
    job.deadline_ms = None
    if end.settled is Settled.RETRIED:
        job.retries += 1
    job.agents_lost += end.lost
    if token is None:
        job.token_hash = None
    world.moved(job, before)
    world.write(job, end.events)


def _lost(job: JobRow, settled: Settled, change: Change, events: list[BrokerBody], now_ms: int) -> _End:
    """Decide what becomes of a job whose agent is lost."""
    if job.cancel_requested_ms is not None:
        return _finished(Change.CANCEL, settled, _CANCELLED, events, now_ms)._replace(lost=1)
    if job.agents_lost + 1 >= job.max_attempts:
        lost = Result(reason=Reason.AGENT_LOST)
        return _finished(Change.FAIL, settled, lost, events, now_ms)._replace(lost=1)
    return _End(_follows(change), settled, events, lost=1)


def _finished(change: Change, settled: Settled, result: Result, events: list[BrokerBody], now_ms: int) -> _End:
    """Make the end of a job, after `events`."""
    state = _follows(change)
    assert state is result.state, "the table and the result agree"
    return _End(state, settled, [*events, _event(result, now_ms)], result)


def _follows(change: Change) -> JobState:
    state = next_state(JobState.RUNNING, change)
    assert state is not None, "an attempt runs until it ends"
    return state


def _event(result: Result, now_ms: int) -> JobFinished:
    return JobFinished(
        timestamp_ms=now_ms,
        state=result.state,
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
    )
