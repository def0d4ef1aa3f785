"""Leases in SQL: who runs what, until when, and how it ended.

The fence (attempt, token and state) stands in each statement that changes a lease, so that no other check can
be forgotten.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from airunner.broker.store.contract import AGENT_LOST_MAX, EXPIRE_MAX, Appended, Ask, Outcome, QueueKey
from airunner.broker.store.log import Holder, Log
from airunner.broker.store.rows import Database, fetch_all
from airunner.protocol.errors import BadRequest, Conflict, IncompleteLog, StaleToken
from airunner.protocol.events import BrokerBody, JobExpired, JobFinished, JobLeased, JobReleased
from airunner.protocol.job import JobState, Reason, Result, decode_spec
from airunner.protocol.messages import (
    CompleteJob,
    DequeueJob,
    JobCompleted,
    JobLease,
    JobReleasedReply,
    JobsLeased,
    JobsUpdated,
    LeaseVerdict,
    ReleaseJob,
    UpdateJob,
    Verdict,
)
from airunner.protocol.names import JobId, WatchKey, task_token, token_hash
from airunner.protocol.states import FINISHING, Change, next_state

_FIRST_WAITING: Final = (
    "SELECT number, job_id, attempt, spec, watch_key, last_sequence FROM job"
    " WHERE tenant = ? AND queue = ? AND state = 'SCHEDULED' ORDER BY priority DESC, number LIMIT ?"
)
_LEASE: Final = (
    "UPDATE job SET state = ?, attempt = ?, next_index = 0, agent = ?, token_hash = ?, lease_request = ?,"
    " visibility_ms = ?, deadline_ms = ?, started_ms = coalesce(started_ms, ?)"
    " WHERE number = ? AND state = 'SCHEDULED' AND attempt = ?"
)
_FENCED: Final = " WHERE number = ? AND state = 'RUNNING' AND attempt = ? AND token_hash = ?"


class _Waiting(NamedTuple):
    number: int
    job_id: JobId
    attempt: int
    spec: bytes
    watch_key: WatchKey
    last_sequence: int


class _Held(NamedTuple):
    job_id: JobId
    attempt: int
    spec: bytes
    visibility_ms: int
    token_hash: bytes


class _Due(NamedTuple):
    number: int
    tenant: str
    queue: str
    watch_key: WatchKey
    attempt: int
    last_sequence: int
    agents_lost: int


class Leases:
    """Grants, renews and ends leases over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, log: Log) -> None:
        self._connection = connection
        self._log = log

    def dequeue(self, ask: Ask, request: DequeueJob, now_ms: int) -> Outcome:
        """Grant what this request holds already, or else what waits.

        Raises `Conflict`: what it holds was granted to another seed; then nothing is changed.
        """
        held = self._held(ask, request, now_ms)
        if held:
            return Outcome(reply=JobsLeased(leases=held))
        leases: list[JobLease] = []
        appended: list[Appended] = []
        for queue in dict.fromkeys(request.queues):
            room = request.slots - len(leases)
            if not room:
                break
            for job in fetch_all(self._connection, _Waiting, _FIRST_WAITING, (ask.tenant, queue, room)):
                lease = _lease(request, job.job_id, job.attempt + 1, job.spec, request.visibility_ms)
                self._grant(ask, request, job.number, lease, now_ms)
                event = JobLeased(timestamp_ms=now_ms, agent=request.agent)
                appended.append(self._log.append(job.number, job.watch_key, lease.attempt, job.last_sequence, [event]))
                leases.append(lease)
        return Outcome(reply=JobsLeased(leases=tuple(leases)), appended=tuple(appended))

    def renew(self, tenant: str, request: UpdateJob, now_ms: int) -> JobsUpdated:
        """One verdict for each lease."""
        verdicts: list[LeaseVerdict] = []
        for ref in request.leases:
            self._connection.execute(
                "UPDATE job SET deadline_ms = max(deadline_ms, ?), visibility_ms = ?"
                " WHERE job_id = ? AND tenant = ? AND state = 'RUNNING' AND attempt = ? AND token_hash = ?",
                (
                    now_ms + request.visibility_ms,
                    request.visibility_ms,
                    ref.job_id,
                    tenant,
                    ref.attempt,
                    token_hash(ref.task_token),
                ),
            )
            kept = self._connection.changes() == 1
            verdict = Verdict.KEPT if kept else Verdict.LOST
            verdicts.append(LeaseVerdict(job_id=JobId(ref.job_id), attempt=ref.attempt, verdict=verdict))
        return JobsUpdated(leases=tuple(verdicts))

    def complete(self, tenant: str, request: CompleteJob, now_ms: int) -> Outcome:
        """End the job as its attempt says.

        Raises `NotFound`, `StaleToken`, `IncompleteLog`, `BadRequest`; then nothing is changed.
        """
        holder = self._log.holder(tenant, request.job_id, request.attempt, request.task_token)
        if holder.state.terminal:
            return Outcome(reply=JobCompleted(state=holder.state))
        if holder.state is not JobState.RUNNING:
            raise StaleToken
        appended = self._publish_last(tenant, request, holder)
        holder = self._log.holder(tenant, request.job_id, request.attempt, request.task_token)
        appended.append(self._finish(holder, token_hash(request.task_token), request.result, now_ms))
        return Outcome(reply=JobCompleted(state=request.result.state), appended=tuple(appended))

    def release(self, tenant: str, request: ReleaseJob, now_ms: int) -> Outcome:
        """Put the job back in its old place.

        Raises `NotFound`, `StaleToken`; then nothing is changed.
        """
        holder = self._log.holder(tenant, request.job_id, request.attempt, request.task_token)
        if holder.state is JobState.SCHEDULED:
            return Outcome(reply=JobReleasedReply())
        state = next_state(holder.state, Change.RELEASE)
        if state is None:
            raise StaleToken
        self._connection.execute(
            "UPDATE job SET state = ?, deadline_ms = NULL, lease_request = NULL" + _FENCED,
            (state, holder.number, request.attempt, token_hash(request.task_token)),
        )
        assert self._connection.changes() == 1, "the holder holds it still, in the same transaction"
        event = JobReleased(timestamp_ms=now_ms)
        appended = self._log.append(holder.number, holder.watch_key, holder.attempt, holder.last_sequence, [event])
        ready = frozenset({QueueKey(tenant, holder.queue)})
        return Outcome(reply=JobReleasedReply(), appended=(appended,), ready=ready)

    def expire(self, now_ms: int) -> Outcome:
        """End the leases that are due, the oldest first."""
        due = fetch_all(
            self._connection,
            _Due,
            "SELECT number, tenant, queue, watch_key, attempt, last_sequence, agents_lost FROM job"
            " WHERE state = 'RUNNING' AND deadline_ms <= ? ORDER BY deadline_ms LIMIT ?",
            (now_ms, EXPIRE_MAX),
        )
        appended: list[Appended] = []
        ready: set[QueueKey] = set()
        for job in due:
            lost = job.agents_lost + 1
            events: list[BrokerBody] = [JobExpired(timestamp_ms=now_ms)]
            if lost < AGENT_LOST_MAX:
                self._connection.execute(
                    "UPDATE job SET state = ?, agents_lost = ?, deadline_ms = NULL, lease_request = NULL,"
                    " token_hash = NULL WHERE number = ? AND state = 'RUNNING' AND attempt = ?",
                    (next_state(JobState.RUNNING, Change.EXPIRE), lost, job.number, job.attempt),
                )
                ready.add(QueueKey(job.tenant, job.queue))
            else:
                result = Result(reason=Reason.AGENT_LOST)
                self._connection.execute(
                    "UPDATE job SET state = ?, agents_lost = ?, deadline_ms = NULL, lease_request = NULL,"
                    " token_hash = NULL, result = ?, finished_ms = ?"
                    " WHERE number = ? AND state = 'RUNNING' AND attempt = ?",
                    (result.state, lost, msgspec.msgpack.encode(result), now_ms, job.number, job.attempt),
                )
                events.append(_finished(result, now_ms))
            assert self._connection.changes() == 1, "a due lease is there, in the same transaction"
            appended.append(self._log.append(job.number, job.watch_key, job.attempt, job.last_sequence, events))
        return Outcome(appended=tuple(appended), ready=frozenset(ready))

    def resume(self, now_ms: int) -> Outcome:
        """Give every live lease at least one full visibility period from now."""
        self._connection.execute(
            "UPDATE job SET deadline_ms = max(deadline_ms, ? + visibility_ms) WHERE state = 'RUNNING'", (now_ms,)
        )
        return Outcome()

    def next_due_ms(self) -> int | None:
        """When the next lease ends."""
        due_ms = self._connection.execute("SELECT min(deadline_ms) FROM job WHERE state = 'RUNNING'").get
        assert due_ms is None or isinstance(due_ms, int), "an instant is a number"
        return due_ms

    def _held(self, ask: Ask, request: DequeueJob, now_ms: int) -> tuple[JobLease, ...]:
        """The leases that this very request was granted, good for a full period from its repeat.

        In the order of submission, which is that of the first grant only within one queue.
        """
        held = fetch_all(
            self._connection,
            _Held,
            "SELECT job_id, attempt, spec, visibility_ms, token_hash FROM job INDEXED BY job_leased"
            " WHERE tenant = ? AND lease_request = ? AND state = 'RUNNING' ORDER BY number",
            (ask.tenant, ask.request_id),
        )
        leases = tuple(_lease(request, one.job_id, one.attempt, one.spec, one.visibility_ms) for one in held)
        if any(token_hash(lease.task_token) != one.token_hash for lease, one in zip(leases, held, strict=True)):
            raise Conflict
        if leases:
            self._connection.execute(
                "UPDATE job INDEXED BY job_leased SET deadline_ms = max(deadline_ms, ? + visibility_ms)"
                " WHERE tenant = ? AND lease_request = ? AND state = 'RUNNING'",
                (now_ms, ask.tenant, ask.request_id),
            )
        return leases

    def _grant(self, ask: Ask, request: DequeueJob, number: int, lease: JobLease, now_ms: int) -> None:
        self._connection.execute(
            _LEASE,
            (
                next_state(JobState.SCHEDULED, Change.LEASE),
                lease.attempt,
                request.agent,
                token_hash(lease.task_token),
                ask.request_id,
                request.visibility_ms,
                now_ms + request.visibility_ms,
                now_ms,
                number,
                lease.attempt - 1,
            ),
        )
        assert self._connection.changes() == 1, "a waiting job is there, in the same transaction"

    def _publish_last(self, tenant: str, request: CompleteJob, holder: Holder) -> list[Appended]:
        """Store the events that came with the completion, if with them the log is whole."""
        last = request.last
        stored = holder.next_index
        if last is not None:
            if (last.job_id, last.attempt, last.task_token) != (
                request.job_id,
                request.attempt,
                request.task_token,
            ):
                raise BadRequest("last: the batch is of another attempt")
            if last.first_index <= stored:
                stored = max(stored, last.first_index + last.count)
        if stored != request.event_count:
            raise IncompleteLog(
                f"{stored} events would be stored and {request.event_count} are claimed",
                expected_index=holder.next_index,
            )
        appended = self._log.publish(tenant, last)[1] if last is not None else None
        return [appended] if appended is not None else []

    def _finish(self, holder: Holder, token: bytes, result: Result, now_ms: int) -> Appended:
        state = next_state(JobState.RUNNING, FINISHING[result.state])
        self._connection.execute(
            "UPDATE job SET state = ?, result = ?, finished_ms = ?, deadline_ms = NULL, lease_request = NULL" + _FENCED,
            (state, msgspec.msgpack.encode(result), now_ms, holder.number, holder.attempt, token),
        )
        assert self._connection.changes() == 1, "the holder holds it still, in the same transaction"
        return self._log.append(
            holder.number, holder.watch_key, holder.attempt, holder.last_sequence, [_finished(result, now_ms)]
        )


def _lease(request: DequeueJob, job_id: JobId, attempt: int, spec: bytes, visibility_ms: int) -> JobLease:
    """The grant, with the token that this request's seed gives; the same whenever it is asked again."""
    return JobLease(
        job_id=job_id,
        attempt=attempt,
        task_token=task_token(request.token_seed, job_id, attempt),
        visibility_ms=visibility_ms,
        spec=decode_spec(spec),
    )


def _finished(result: Result, now_ms: int) -> JobFinished:
    return JobFinished(
        timestamp_ms=now_ms,
        state=result.state,
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
    )
