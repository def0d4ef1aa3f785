"""Speaks to a Store in few words: one command a batch, the reply typed, time and ids drawn from counters."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeVar

from msgspec.structs import replace

from airunner.broker.ledger import FOLLOW_UPS_MAX
from airunner.broker.lifecycle.commands import (
    Applied,
    Command,
    Done,
    Expire,
    FollowUp,
    MintedJob,
    News,
    RenewAll,
    Retain,
    TenantRequest,
)
from airunner.broker.requests import Execution, kind_of
from airunner.broker.store.batch import Store
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.room import Room
from airunner.certs.principal import QueueScope
from airunner.protocol.compression import compressed
from airunner.protocol.events import AgentBody, Event, EventSegment, Output, Stream, encode_bodies, events_of
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState, Result
from airunner.protocol.names import JobId, RequestId, WatchKey
from airunner.protocol.replies import (
    JobCancelled,
    JobCompleted,
    JobEventsPublished,
    JobEventsReplayed,
    JobFound,
    JobLease,
    JobsEnqueued,
    JobsLeased,
    JobsUpdated,
    QueueMode,
    QueuesListed,
    QueueSummary,
    QueueUpdated,
    Refused,
    Verdict,
)
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    EventBatch,
    GetJob,
    ListQueues,
    PublishJobEvents,
    ReleaseJob,
    ReplayJobEvents,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
)

T = TypeVar("T")
START_MS = 1_000_000
VISIBILITY_MS = 10_000
STEPS_MAX = 1_000  # of retention


class Driver:
    """A store, and a clock that only moves when told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_ms = START_MS
        self.quotas = Quotas()  # of every tenant
        self.live: defaultdict[WatchKey, list[EventSegment]] = defaultdict(list)  # what was published of each job
        self.follow_ups: list[FollowUp] = []
        self._drawn = 0

    def draw(self, size: int) -> bytes:
        self._drawn += 1
        return self._drawn.to_bytes(size, "big")

    def ask(
        self,
        request: StoreRequest,
        *,
        tenant: str = "home",
        request_id: bytes | None = None,
        room: Room = Room.AMPLE,
        queues: QueueScope = None,
    ) -> TenantRequest:
        minted = tuple(
            MintedJob(JobId(f"job-{int.from_bytes(self.draw(8), 'big'):08}"), WatchKey(self.draw(32)))
            for _ in range(kind_of(request).mints(request))
        )
        return TenantRequest(
            tenant=tenant,
            request_id=RequestId(request_id or self.draw(16)),
            request=request,
            minted=minted,
            room=room,
            quotas=self.quotas,
            queues=queues,
        )

    def apply(self, *commands: Command) -> Applied:
        first = commands[0] if commands else None
        if isinstance(first, TenantRequest) and kind_of(first.request).execution is not Execution.CHANGE:
            return Applied(self.store.read(commands), None)
        applied = self.store.apply(commands, self.now_ms)
        for appended in (appended for done in applied.done for appended in done.news.appended):
            self.live[appended.watch_key].append(appended.segment)
        self.follow_ups += [follow_up for done in applied.done for follow_up in done.news.follow_ups]
        return applied

    def follow(self) -> None:
        """Apply the follow-ups of what was applied, and theirs, as the Ledger does."""
        while self.follow_ups:
            first, self.follow_ups = self.follow_ups[:FOLLOW_UPS_MAX], self.follow_ups[FOLLOW_UPS_MAX:]
            self.apply(*first)

    def outcome(self, request: StoreRequest, **asked: Any) -> Done:
        """What comes of a request; it is asked as `ask` says."""
        (outcome,) = self.apply(self.ask(request, **asked)).done
        return outcome

    def reply(self, kind: type[T], request: StoreRequest, **asked: Any) -> T:
        reply = self.outcome(request, **asked).reply
        assert isinstance(reply, kind), reply
        return reply

    def refused(self, code: str, request: StoreRequest, **asked: Any) -> Refused:
        """The refusal, with nothing appended and nothing made ready."""
        outcome = self.outcome(request, **asked)
        assert isinstance(outcome.reply, Refused), outcome
        assert (outcome.reply.code, outcome.news.appended, outcome.news.ready) == (code, [], set())
        return outcome.reply

    def submit(self, *commands: str, queue: str = "default", tenant: str = "home") -> tuple[JobId, ...]:
        return self.enqueue(*(JobSpec(command=word, queue=queue) for word in commands or ("true",)), tenant=tenant)

    def enqueue(self, *jobs: JobSpec, tenant: str = "home") -> tuple[JobId, ...]:
        return self.reply(JobsEnqueued, EnqueueJob(jobs=jobs), tenant=tenant).job_ids

    def job(self, job_id: str, *, tenant: str = "home") -> Job:
        return self.reply(JobFound, GetJob(job_id=job_id), tenant=tenant).job

    def state(self, job_id: str) -> JobState:
        return self.job(job_id).state

    def dequeue(
        self,
        *queues: str,
        slots: int = 1,
        tags: dict[str, str] | None = None,
        stdin: bool = False,
        knows: tuple[str, ...] = (),
    ) -> DequeueJob:
        return DequeueJob(
            agent="agent",
            queues=queues or ("default",),
            slots=slots,
            visibility_ms=VISIBILITY_MS,
            token_seed=self.draw(32),
            tags=tags or {},
            stdin=stdin,
            knows=knows,
        )

    def lease(self, *queues: str, slots: int = 1, tenant: str = "home") -> tuple[JobLease, ...]:
        return self.reply(JobsLeased, self.dequeue(*queues, slots=slots), tenant=tenant).leases

    def lease_one(self, queue: str = "default") -> JobLease:
        (lease,) = self.lease(queue)
        return lease

    def started(self, *, tenant: str = "home") -> JobLease:
        """Submit a job, and lease it."""
        self.submit(tenant=tenant)
        (lease,) = self.lease(tenant=tenant)
        return lease

    def publish(self, *batches: EventBatch, tenant: str = "home") -> list[tuple[int, str | None]]:
        """Publish events; of each batch, the next index and how it was refused."""
        reply = self.reply(JobEventsPublished, PublishJobEvents(batches=batches), tenant=tenant)
        return [(stored.next_index, stored.code) for stored in reply.batches]

    def complete(self, lease: JobLease, *, exit_code: int = 0, result: Result | None = None) -> JobState:
        """The attempt ends without an event of its own."""
        return self.reply(JobCompleted, completion(lease, exit_code=exit_code, result=result)).state

    def ended(self, *commands: str, exit_code: int = 0, queue: str = "default") -> tuple[JobId, ...]:
        """Jobs that were submitted, leased and completed, one after the other."""
        job_ids = self.submit(*commands, queue=queue)
        for _ in job_ids:
            self.complete(self.lease_one(queue), exit_code=exit_code)
        return job_ids

    def cancel(self, job_id: str) -> JobState:
        return self.reply(JobCancelled, CancelJob(job_id=job_id)).state

    def verdict(self, lease: JobLease) -> Verdict:
        """What a heartbeat says of the lease, and it renews it."""
        request = UpdateJob(leases=(lease.ref,), visibility_ms=VISIBILITY_MS)
        return self.reply(JobsUpdated, request).leases[0].verdict

    def set_mode(self, mode: QueueMode, queue: str = "default") -> Done:
        outcome = self.outcome(UpdateQueue(queue=queue, mode=mode))
        assert outcome.reply == QueueUpdated(queue=queue, mode=mode)
        return outcome

    def queue(self, name: str = "default") -> QueueSummary:
        return {one.queue: one for one in self.reply(QueuesListed, ListQueues()).queues}[name]

    def retain(self, *, finished_before_ms: int = 0, store_bytes_max: int | None = None) -> Done:
        """One step."""
        (outcome,) = self.apply(Retain(finished_before_ms=finished_before_ms, store_bytes_max=store_bytes_max)).done
        return outcome

    def sweep(self, *, finished_before_ms: int = 0, store_bytes_max: int | None = None) -> int:
        """Step by step until nothing is left to do; how many steps that took."""
        for steps in range(1, STEPS_MAX):
            done = self.retain(finished_before_ms=finished_before_ms, store_bytes_max=store_bytes_max)
            assert done == Done(None, News(more=done.news.more), done.cost), "nothing is told of it"
            if not done.news.more:
                return steps
        raise AssertionError("it comes to an end")

    def pass_ms(self, later_ms: int) -> Done:
        """Time goes by, and what is due then ends."""
        self.now_ms += later_ms
        return self.expire()

    def expire(self) -> Done:
        (outcome,) = self.apply(Expire()).done
        return outcome

    def is_step(self, done: int, most: int) -> bool:
        """Whether a step does that much of what is to be done, which is more: less, where transactions are bounded."""
        return done == most or (self.store.engine.rows_max is not None and 0 < done < most)

    def renew_all(self) -> Applied:
        return self.apply(RenewAll())

    def log(self, job_id: str, *, from_sequence: int = 1, tenant: str = "home") -> list[Event]:
        """Every event from there on, page by page."""
        events: list[Event] = []
        while True:
            request = ReplayJobEvents(job_id=job_id, from_sequence=from_sequence)
            page = self.reply(JobEventsReplayed, request, tenant=tenant)
            for run in page.runs:
                events += events_of(JobId(job_id), run)
            if page.next_sequence > page.last_sequence:
                return events
            assert page.next_sequence > from_sequence, "each page goes on"
            from_sequence = page.next_sequence

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.log(job_id)]


def release(lease: JobLease) -> ReleaseJob:
    return ReleaseJob(lease=lease.ref)


def output(*pieces: str, timestamp_ms: int = START_MS) -> list[AgentBody]:
    return [Output(timestamp_ms=timestamp_ms, stream=Stream.STDOUT, data=piece.encode()) for piece in pieces]


def batch(lease: JobLease, first_index: int, *pieces: str, timestamp_ms: int = START_MS) -> EventBatch:
    return EventBatch(
        lease=lease.ref,
        first_index=first_index,
        count=len(pieces),
        events=encode_bodies(output(*pieces, timestamp_ms=timestamp_ms)),
    )


def packed(sent: EventBatch) -> EventBatch:
    """The batch, compressed."""
    return replace(sent, events=compressed(sent.events))


def completion(
    lease: JobLease,
    event_count: int = 0,
    *,
    exit_code: int = 0,
    result: Result | None = None,
) -> CompleteJob:
    return CompleteJob(lease=lease.ref, event_count=event_count, result=result or Result(exit_code=exit_code))
