"""How attempts end, in SQL: completed, retried, released, expired, cancelled; and with the last of them the job.

Every end of an attempt is one statement, `_END`, with the fence in it: the state, the attempt, and the token of
its holder or the deadline that has passed. What a holder repeats is answered from `settled`, as it was answered
the first time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from airunner.broker.store.contract import EXPIRE_MAX, Appended, Ask, Outcome, QueueKey
from airunner.broker.store.sqlite.damage import Aside, about
from airunner.broker.store.sqlite.log import Holder, Log
from airunner.broker.store.sqlite.rows import Database, fetch_all, fetch_one
from airunner.protocol.errors import IncompleteLog, NotFound, StaleToken
from airunner.protocol.events import BrokerBody, JobCancelRequested, JobExpired, JobFinished, JobReleased, JobScheduled
from airunner.protocol.job import JobState, Reason, Result, decode_spec
from airunner.protocol.messages import CancelJob, CompleteJob, JobCancelled, JobCompleted, JobReleasedReply, ReleaseJob
from airunner.protocol.names import JobId, WatchKey, token_hash
from airunner.protocol.states import FINISHING, Change, next_state

_END: Final = (
    "UPDATE job SET state = ?, settled = ?, due_ms = ?, pause_ms = ?, result = ?, finished_ms = ?,"
    " retries = retries + ?, agents_lost = agents_lost + ?, token_hash = ?,"
    " deadline_ms = NULL, last_sequence = last_sequence + ? WHERE number = ?"
)
_HELD: Final = " AND state = 'RUNNING' AND attempt = ? AND token_hash = ?"
_DUE: Final = " AND state = 'RUNNING' AND attempt = ? AND deadline_ms <= ?"
_EXPIRED: Final = (
    "SELECT number, tenant, queue, needs, watch_key, attempt, last_sequence, agents_lost, max_attempts,"
    " cancel_requested_ms FROM job WHERE state = 'RUNNING' AND deadline_ms <= ? AND {others}"
    " ORDER BY deadline_ms LIMIT ?"
)
_DELAYED: Final = (
    "SELECT number FROM job WHERE state = 'SCHEDULED' AND due_ms <= ? AND {others} ORDER BY due_ms LIMIT ?"
)
_FALLEN_DUE: Final = "UPDATE job SET due_ms = NULL WHERE number = ? RETURNING tenant, queue, needs"
_CANCELLED: Final = Result(reason=Reason.CANCELLED)
_BY_ITSELF: Final = (None, Reason.EXIT_CODE, Reason.SIGNAL)  # an agent need not say what the code says already


class Settled(StrEnum):
    """How the last attempt ended."""

    COMPLETED = "completed"
    RETRIED = "retried"
    RELEASED = "released"
    EXPIRED = "expired"


class _Due(NamedTuple):
    number: int
    tenant: str
    queue: str
    needs: str
    watch_key: WatchKey
    attempt: int
    last_sequence: int
    agents_lost: int
    max_attempts: int
    cancel_requested_ms: int | None


class _Standing(NamedTuple):
    number: int
    state: JobState
    watch_key: WatchKey
    attempt: int
    last_sequence: int
    cancel_requested_ms: int | None


class _Policy(NamedTuple):
    spec: bytes
    retries: int


class _End(NamedTuple):
    """What an attempt's end makes of its job."""

    state: JobState
    settled: Settled
    events: list[BrokerBody]
    result: Result | None = None
    due_ms: int | None = None
    lost: int = 0


class Endings:
    """Ends attempts and jobs over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, log: Log, aside: Aside) -> None:
        self._connection = connection
        self._log = log
        self._aside = aside

    def complete(self, tenant: str, request: CompleteJob, now_ms: int) -> Outcome:
        """End the attempt as its holder says, and the job unless its policy has it run again.

        Raises `NotFound`, `StaleToken`, `IncompleteLog`; then nothing is changed.
        """
        holder = self._log.holder(tenant, request.job_id, request.attempt, request.task_token)
        if holder.settled == Settled.COMPLETED:
            return Outcome(reply=JobCompleted(state=holder.state))
        if holder.settled == Settled.RETRIED:
            return Outcome(reply=JobCompleted(state=JobState.SCHEDULED))
        if holder.state is not JobState.RUNNING:
            raise StaleToken
        if holder.next_index != request.event_count:
            raise IncompleteLog(
                f"{holder.next_index} events are stored and {request.event_count} are claimed",
                expected_index=holder.next_index,
            )
        end = self._retried(holder, request, now_ms) or _finished(
            Change(FINISHING[request.result.state]), Settled.COMPLETED, request.result, [], now_ms
        )
        appended = self._end_held(tenant, holder, request.task_token, end, now_ms)
        ready = _ready(tenant, holder) if _may_be_leased(end) else frozenset[QueueKey]()
        return Outcome(reply=JobCompleted(state=end.state), appended=(appended,), ready=ready)

    def release(self, ask: Ask, request: ReleaseJob, now_ms: int) -> Outcome:
        """Put the job back in its old place; one that is to be cancelled has ended, or whose agents died too often.

        Under the id of the very request that it was granted to, it is as if it had not been granted: the asker
        never heard of it, and may be given it when it asks again.

        Raises `NotFound`, `StaleToken`; then nothing is changed.
        """
        tenant = ask.tenant
        holder = self._log.holder(tenant, request.job_id, request.attempt, request.task_token)
        if holder.settled == Settled.RELEASED:
            return Outcome(reply=JobReleasedReply())
        if holder.state is not JobState.RUNNING:
            raise StaleToken
        events: list[BrokerBody] = [JobReleased(timestamp_ms=now_ms, lost=request.lost)]
        if request.lost:
            end = _lost(holder, Settled.RELEASED, Change.RELEASE, events, now_ms)
        elif holder.cancel_requested_ms is None:
            end = _End(_follows(Change.RELEASE), Settled.RELEASED, events)
        else:
            end = _finished(Change.CANCEL, Settled.RELEASED, _CANCELLED, events, now_ms)
        appended = self._end_held(tenant, holder, request.task_token, end, now_ms)
        self._connection.execute(
            "UPDATE job SET lease_request = NULL WHERE number = ? AND lease_request = ?",
            (holder.number, ask.request_id),
        )
        ready = _ready(tenant, holder) if _may_be_leased(end) else frozenset[QueueKey]()
        return Outcome(reply=JobReleasedReply(), appended=(appended,), ready=ready)

    def expire(self, now_ms: int) -> Outcome:
        """End the leases that are due, the oldest first, and the delays."""
        appended: list[Appended] = []
        ready: set[QueueKey] = set()
        expired = _EXPIRED.format(others=self._aside.others)
        for job in fetch_all(self._connection, _Due, expired, (now_ms, EXPIRE_MAX)):
            end = _lost(job, Settled.EXPIRED, Change.EXPIRE, [JobExpired(timestamp_ms=now_ms)], now_ms)
            with about(job.number):
                self._end(job.number, end, now_ms, None, _DUE, (job.attempt, now_ms))
            appended.append(
                self._log.append(job.tenant, job.number, job.watch_key, job.attempt, job.last_sequence, end.events)
            )
            if _may_be_leased(end):
                ready.add(QueueKey(job.tenant, job.queue, job.needs))
        ready |= self._fallen_due(now_ms)
        return Outcome(appended=tuple(appended), ready=frozenset(ready))

    def _fallen_due(self, now_ms: int) -> set[QueueKey]:
        """End the delays that are over; where jobs may have been found then."""
        found = self._connection.execute(_DELAYED.format(others=self._aside.others), (now_ms, EXPIRE_MAX))
        numbers = [number for (number,) in found if isinstance(number, int)]
        ready: set[QueueKey] = set()
        for number in numbers:
            with about(number):
                for tenant, queue, needs in self._connection.execute(_FALLEN_DUE, (number,)):
                    ready.add(QueueKey(str(tenant), str(queue), str(needs)))
        return ready

    def cancel(self, tenant: str, request: CancelJob, now_ms: int) -> Outcome:
        """End a job that waits; have the holder of one that runs end it.

        Raises `NotFound`.
        """
        job = fetch_one(
            self._connection,
            _Standing,
            "SELECT number, state, watch_key, attempt, last_sequence, cancel_requested_ms FROM job"
            " WHERE job_id = ? AND tenant = ?",
            (request.job_id, tenant),
        )
        if job is None:
            raise NotFound
        nudged = (JobId(request.job_id),)
        if job.state.terminal:
            return Outcome(reply=JobCancelled(state=job.state))
        if job.cancel_requested_ms is not None:
            return Outcome(reply=JobCancelled(state=job.state), nudged=nudged)
        events: list[BrokerBody] = [JobCancelRequested(timestamp_ms=now_ms)]
        if job.state is JobState.RUNNING:
            self._connection.execute(
                "UPDATE job SET cancel_requested_ms = ?, last_sequence = last_sequence + 1"
                " WHERE number = ? AND state = 'RUNNING'",
                (now_ms, job.number),
            )
            appended = self._log.append(tenant, job.number, job.watch_key, job.attempt, job.last_sequence, events)
            return Outcome(reply=JobCancelled(state=job.state), appended=(appended,), nudged=nudged)
        state = next_state(job.state, Change.CANCEL)
        assert state is JobState.CANCELLED, "what waits may be cancelled"
        events.append(_told(_CANCELLED, now_ms))
        self._connection.execute(
            "UPDATE job SET state = ?, due_ms = NULL, cancel_requested_ms = ?, result = ?, finished_ms = ?,"
            " last_sequence = last_sequence + ?"
            " WHERE number = ? AND state = 'SCHEDULED'",
            (state, now_ms, msgspec.msgpack.encode(_CANCELLED), now_ms, len(events), job.number),
        )
        assert self._connection.changes() == 1, "a waiting job is there, in the same transaction"
        appended = self._log.append(tenant, job.number, job.watch_key, job.attempt, job.last_sequence, events)
        return Outcome(reply=JobCancelled(state=state), appended=(appended,))

    def next_due_ms(self) -> int | None:
        """When the next lease or delay ends."""
        others = self._aside.others
        due_ms = self._connection.execute(
            f"SELECT min(due_ms) FROM (SELECT min(deadline_ms) AS due_ms FROM job WHERE state = 'RUNNING' AND {others}"
            f" UNION ALL SELECT min(due_ms) FROM job WHERE state = 'SCHEDULED' AND due_ms IS NOT NULL AND {others})"
        ).get
        assert due_ms is None or isinstance(due_ms, int), "an instant is a number"
        return due_ms

    def _retried(self, holder: Holder, request: CompleteJob, now_ms: int) -> _End | None:
        """The end that has the command run again; None where the job ends with it."""
        result = request.result
        if result.state is not JobState.FAILED or holder.cancel_requested_ms is not None:
            return None
        found = fetch_one(self._connection, _Policy, "SELECT spec, retries FROM job WHERE number = ?", (holder.number,))
        assert found is not None, "the holder's job is there"
        policy = decode_spec(found.spec).retry
        if policy is None or found.retries >= policy.limit:
            return None
        if not policy.covers(result.exit_code, result.signal, by_itself=result.reason in _BY_ITSELF):
            return None
        retry = found.retries + 1
        # As random as the agent's token: the store draws no number, and another one's peers do not follow in step.
        jitter = int.from_bytes(token_hash(request.task_token)[:4], "big") / 2**32
        pause_ms = policy.pause_ms(retry, jitter)
        due_ms = now_ms + pause_ms if pause_ms else None
        event = JobScheduled(timestamp_ms=now_ms, queue=holder.queue, not_before_ms=due_ms, retry=retry)
        return _End(_follows(Change.RETRY), Settled.RETRIED, [event], due_ms=due_ms)

    def _end_held(self, tenant: str, holder: Holder, task_token: bytes, end: _End, now_ms: int) -> Appended:
        token = token_hash(task_token)
        with about(holder.number):
            self._end(holder.number, end, now_ms, token, _HELD, (holder.attempt, token))
        return self._log.append(
            tenant, holder.number, holder.watch_key, holder.attempt, holder.last_sequence, end.events
        )

    def _end(
        self, number: int, end: _End, now_ms: int, token: bytes | None, fence: str, fenced: tuple[int, int | bytes]
    ) -> None:
        """Write the end of an attempt; whoever shows `token` may go on repeating what was its last."""
        self._connection.execute(
            _END + fence,
            (
                end.state,
                end.settled,
                end.due_ms,
                None if end.due_ms is None else end.due_ms - now_ms,
                None if end.result is None else msgspec.msgpack.encode(end.result),
                now_ms if end.state.terminal else None,
                int(end.settled is Settled.RETRIED),
                end.lost,
                token,
                len(end.events),
                number,
                *fenced,
            ),
        )
        assert self._connection.changes() == 1, "the attempt is as it was seen, in the same transaction"


def _lost(job: _Due | Holder, settled: Settled, change: Change, events: list[BrokerBody], now_ms: int) -> _End:
    """What becomes of a job whose agent is gone."""
    if job.cancel_requested_ms is not None:
        return _finished(Change.CANCEL, settled, _CANCELLED, events, now_ms)._replace(lost=1)
    if job.agents_lost + 1 >= job.max_attempts:
        lost = Result(reason=Reason.AGENT_LOST)
        return _finished(Change.FAIL, settled, lost, events, now_ms)._replace(lost=1)
    return _End(_follows(change), settled, events, lost=1)


def _finished(change: Change, settled: Settled, result: Result, events: list[BrokerBody], now_ms: int) -> _End:
    """The end of a job, behind `events`."""
    state = _follows(change)
    assert state is result.state, "the table and the result agree"
    return _End(state, settled, [*events, _told(result, now_ms)], result)


def _follows(change: Change) -> JobState:
    state = next_state(JobState.RUNNING, change)
    assert state is not None, "an attempt runs until it ends"
    return state


def _ready(tenant: str, holder: Holder) -> frozenset[QueueKey]:
    return frozenset({QueueKey(tenant, holder.queue, holder.needs)})


def _may_be_leased(end: _End) -> bool:
    return end.state is JobState.SCHEDULED and end.due_ms is None


def _told(result: Result, now_ms: int) -> JobFinished:
    return JobFinished(
        timestamp_ms=now_ms,
        state=result.state,
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
    )
