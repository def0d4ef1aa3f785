"""A Hypothesis state machine that asks a store and the model the same, and wants the same answers.

Submissions, grants, batches, completions, cancels and retries are repeated, reordered, delayed past their lease and
sent by whoever held an older attempt: the machine keeps every grant and every request that was ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airunner.broker.lifecycle.commands import LeasesCounted
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import QueueKey
from airunner.protocol.events import Output
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.queues import QueueMode
from airunner.protocol.replies import (
    BatchStored,
    JobCancelled,
    JobCompleted,
    JobEventsPublished,
    JobLease,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsListed,
    JobsUpdated,
    QueuesListed,
    Refused,
)
from airunner.protocol.requests import (
    CancelJob,
    DequeueJob,
    EnqueueJob,
    ListAgents,
    ListJobs,
    ListQueues,
    PublishJobEvents,
    ReleaseJob,
    RetryJob,
    UpdateJob,
    UpdateQueue,
)
from tests.conformance import model as m
from tests.conformance.driving import Driver, batch, completion

TENANTS = st.sampled_from(["home", "home", "home", "other"])
QUEUES = st.sampled_from(["a", "b"])
VISIBILITY_MS = st.sampled_from([1_000, 2_000, 5_000])
PIECES = st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3)
PICK = st.integers(0, 1_000)
OFF = st.sampled_from([0] * 6 + [1, -1])
ROOM = st.sampled_from([True, True, True, True, False])
POLICIES = (
    RetryPolicy(limit=1, backoff_ms=0),
    RetryPolicy(limit=2, backoff_ms=1_000, backoff_max_ms=1_500, on=RetryOn(exit_codes=(1,))),
    None,
)
RESULTS = st.sampled_from(
    [
        *(Result(exit_code=code) for code in (0, 0, 1, 1, 1, 2)),
        *(Result(exit_code=1, reason=Reason.TIMEOUT), Result(reason=Reason.CANCELLED)),
    ]
)
SPECS = st.builds(
    JobSpec,
    command=st.just("c"),
    queue=QUEUES,
    owner=st.sampled_from(["", "o"]),
    metadata=st.sampled_from([{}, {"k": "v"}, {"k": "v", "l": "w"}]),
    priority=st.sampled_from([0, 0, 1, -1]),
    not_before_ms=st.sampled_from([None, None, None, 0, 1_003_000, 1_010_000]),
    max_attempts=st.integers(1, 3),
    retry=st.sampled_from(POLICIES),
    require=st.sampled_from([{}, {}, {"os": "linux"}, {"os": "linux", "arch": "arm"}]),
)


class Submission(NamedTuple):
    """A request that makes jobs, to be asked again; `job` is what it retries, if it does."""

    tenant: str
    request_id: bytes
    request: EnqueueJob | RetryJob
    job: m.ModelJob | None


def told(reply: object) -> object:
    """A reply, or of a refusal what the model knows of it."""
    return (reply.code, reply.expected_index) if isinstance(reply, Refused) else reply


def expected(ask_model: Callable[[], object]) -> object:
    """What the model says, in the same words."""
    try:
        return ask_model()
    except m.Refused as refused:
        return refused.code, refused.expected_index


class StoreAndModel(RuleBasedStateMachine):
    """Both get the same; both must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make()
        self.driver = Driver(self.store)
        self.model = m.Model()
        self.requests: list[tuple[str, bytes, DequeueJob]] = []
        self.submissions: list[Submission] = []
        self.granted: list[tuple[JobLease, m.Grant]] = []
        self.jobs: list[m.ModelJob] = []  # all that ever were
        self.watch_keys: dict[str, WatchKey] = {}

    def make(self) -> Store:
        """An empty store."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.compare_jobs_and_logs()
        self.store.close()

    @initialize()
    def begin(self) -> None:
        jobs = [
            JobSpec(command="c", queue=queue, retry=policy, max_attempts=attempts)
            for queue, attempts in (("a", 1), ("b", 2))
            for policy in POLICIES
        ]
        self.enqueue("home", jobs, room=True)

    @rule(tenant=TENANTS, specs=st.lists(SPECS, min_size=1, max_size=3), room=ROOM)
    def enqueue(self, tenant: str, specs: list[JobSpec], *, room: bool) -> None:
        self.submissions.append(Submission(tenant, self.driver.draw(16), EnqueueJob(jobs=tuple(specs)), None))
        self.submit(self.submissions[-1], room=room)

    @rule(tenant=TENANTS, pick=PICK, room=ROOM)
    def retry(self, tenant: str, pick: int, *, room: bool) -> None:
        job = self.jobs[-1 - pick % len(self.jobs)]
        self.submissions.append(Submission(tenant, self.driver.draw(16), RetryJob(job_id=job.job_id), job))
        self.submit(self.submissions[-1], room=room)

    @rule(
        pick=PICK,
        other=PICK,
        same=st.sampled_from([True, True, False]),
        tenant=st.sampled_from([None, None, "other"]),
        room=ROOM,
    )
    def submit_again(self, pick: int, other: int, tenant: str | None, *, same: bool, room: bool) -> None:
        before = self.submissions[-1 - pick % len(self.submissions)]
        another = before if same else self.submissions[-1 - other % len(self.submissions)]
        self.submit(another._replace(tenant=tenant or before.tenant, request_id=before.request_id), room=room)

    def submit(self, submission: Submission, *, room: bool) -> None:
        tenant, request_id, request, _ = submission
        ask = self.driver.ask(request, tenant=tenant, request_id=request_id, room=room)
        known = len(self.model.jobs)
        (outcome,) = self.driver.apply(ask).outcomes
        minted = [job.job_id for job in ask.minted]
        self.watch_keys |= {job.job_id: job.watch_key for job in ask.minted}
        assert told(outcome.reply) == expected(lambda: self.submit_to_model(submission, minted, room=room))
        made = self.model.jobs[known:]
        assert (len(outcome.appended), outcome.ready) == (len(made), {job.ready for job in made if job.waits})
        self.jobs += made

    def submit_to_model(self, submission: Submission, minted: list[str], *, room: bool) -> JobsEnqueued:
        tenant, request_id, request, job = submission
        now_ms = self.driver.now_ms
        if isinstance(request, EnqueueJob):
            job_ids = self.model.submit(tenant, request_id, request.jobs, request.jobs, minted, None, now_ms, room=room)
        else:
            assert job is not None
            job_ids = self.model.retry(tenant, request_id, job, minted, now_ms, room=room)
        return JobsEnqueued(job_ids=tuple(map(JobId, job_ids)))

    @rule(
        tenant=TENANTS,
        queues=st.lists(QUEUES, min_size=1, max_size=3),
        slots=st.integers(1, 3),
        visibility_ms=VISIBILITY_MS,
        tags=st.sampled_from([{}, {"os": "linux"}, {"os": "linux", "arch": "arm", "fast": ""}]),
    )
    def lease(self, tenant: str, queues: list[str], slots: int, visibility_ms: int, tags: dict[str, str]) -> None:
        request = DequeueJob(
            agent="agent",
            queues=tuple(queues),
            slots=slots,
            visibility_ms=visibility_ms,
            tags=tags,
            token_seed=self.driver.draw(32),
        )
        self.requests.append((tenant, self.driver.draw(16), request))
        self.ask_for_leases(*self.requests[-1])

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def lease_again(self, pick: int) -> None:
        self.ask_for_leases(*self.requests[-1 - pick % len(self.requests)])

    def ask_for_leases(self, tenant: str, request_id: bytes, request: DequeueJob) -> None:
        number, now_ms = int.from_bytes(request_id, "big"), self.driver.now_ms
        known = set(self.held())
        try:
            grants = self.model.dequeue(tenant, number, request, now_ms)
        except m.Refused as refused:
            self.driver.refused(refused.code, request, tenant=tenant, request_id=request_id)
            return
        leases = self.driver.reply(JobsLeased, request, tenant=tenant, request_id=request_id).leases
        said = [(one.job_id, one.attempt) for one in leases]
        wanted = [(one.job.job_id, one.attempt) for one in grants]
        assert (sorted(said) == sorted(wanted)) if known & set(wanted) else (said == wanted), "in order when new"
        by_attempt = dict(zip(said, leases, strict=True))
        pairs = [(by_attempt[one.job.job_id, one.attempt], one) for one in grants]
        if known & set(wanted):
            tokens = {(lease.job_id, lease.attempt): lease.task_token for lease, _ in self.granted}
            assert [tokens[one.job_id, one.attempt] for one in leases] == [one.task_token for one in leases]
            return
        assert not {lease.task_token for lease in leases} & {lease.task_token for lease, _ in self.granted}
        self.granted += pairs

    def held(self) -> list[tuple[str, int]]:
        return [(job.job_id, job.attempt) for job in self.model.jobs if job.state is JobState.RUNNING]

    def grant(self, pick: int) -> tuple[JobLease, m.Grant]:
        """One in three is any that ever was, the others are the last of their jobs, running or ended."""
        last = [pair for pair in self.granted if pair[1] is pair[1].job.last and not pair[1].job.gone]
        among = last if last and pick % 3 else self.granted
        return among[-1 - pick // 3 % len(among)]

    @precondition(lambda self: self.granted)
    @rule(pick=PICK, visibility_ms=VISIBILITY_MS)
    def renew(self, pick: int, visibility_ms: int) -> None:
        lease, grant = self.grant(pick)
        request = UpdateJob(leases=(lease.ref,), visibility_ms=visibility_ms)
        reply = self.driver.reply(JobsUpdated, request, tenant=grant.job.tenant)
        assert reply.leases[0].verdict == self.model.renew(grant, visibility_ms, self.driver.now_ms)

    @precondition(lambda self: self.granted)
    @rule(pick=PICK, back=st.sampled_from([0, 0, 0, 1, 2, -1]), pieces=PIECES)
    def publish(self, pick: int, back: int, pieces: list[str]) -> None:
        lease, grant = self.grant(pick)
        first = max(0, grant.job.stored - back)
        request = PublishJobEvents(batches=(batch(lease, first, *pieces),))
        (stored,) = self.driver.reply(JobEventsPublished, request, tenant=grant.job.tenant).batches
        self.expect_stored(stored, grant, first, pieces)

    def expect_stored(self, stored: BatchStored, grant: m.Grant, first: int, pieces: list[str]) -> None:
        try:
            wanted = (self.model.publish(grant, first, pieces), None)
        except m.Refused as refused:
            wanted = (refused.expected_index or 0, refused.code)
        assert (stored.next_index, stored.code) == wanted

    @precondition(lambda self: self.granted)
    @rule(pick=PICK, result=RESULTS, off=OFF, last=st.none() | PIECES)
    def complete(self, pick: int, result: Result, off: int, last: list[str] | None) -> None:
        lease, grant = self.grant(pick)
        job, now_ms = grant.job, self.driver.now_ms
        before = job.state
        ended = completion(lease, max(0, job.stored + len(last or []) + off), result=result)
        if last is None:
            outcome = self.driver.outcome(ended, tenant=job.tenant)
            reply = outcome.reply
        else:
            together = PublishJobEvents(batches=(batch(lease, job.stored, *last),), completions=(ended,))
            outcome = self.driver.outcome(together, tenant=job.tenant)
            assert isinstance(outcome.reply, JobEventsPublished)
            (stored,), (reply,) = outcome.reply.batches, outcome.reply.completions
            self.expect_stored(stored, grant, job.stored, last)
        due_ms = None if job.gone else self.driver.job(job.job_id, tenant=job.tenant).due_ms
        pause_ms = (due_ms or now_ms) - now_ms
        assert told(reply) == expected(
            lambda: JobCompleted(state=self.model.complete(grant, ended.event_count, result, now_ms, pause_ms))
        )
        assert outcome.ready == ({job.ready} if job.waits and before is JobState.RUNNING else set())

    @precondition(lambda self: self.granted)
    @rule(pick=PICK, lost=st.booleans())
    def release(self, pick: int, *, lost: bool) -> None:
        lease, grant = self.grant(pick)
        job, now_ms = grant.job, self.driver.now_ms
        outcome = self.driver.outcome(ReleaseJob(lease=lease.ref, lost=lost), tenant=job.tenant)
        said = expected(lambda: self.model.release(grant, now_ms, lost=lost))
        assert told(outcome.reply) == (said or JobReleasedReply())
        assert outcome.ready == ({job.ready} if outcome.appended and job.waits else set())

    @rule(tenant=TENANTS, pick=PICK)
    def cancel_any(self, tenant: str, pick: int) -> None:
        self.cancel(tenant, self.jobs[-1 - pick % len(self.jobs)])

    @precondition(lambda self: self.granted)
    @rule(pick=PICK)
    def cancel_what_was_leased(self, pick: int) -> None:
        _, grant = self.grant(pick)
        self.cancel(grant.job.tenant, grant.job)

    def cancel(self, tenant: str, job: m.ModelJob) -> None:
        now_ms = self.driver.now_ms
        outcome = self.driver.outcome(CancelJob(job_id=job.job_id), tenant=tenant)
        assert told(outcome.reply) == expected(lambda: JobCancelled(state=self.model.cancel(tenant, job, now_ms)))
        assert outcome.ready == frozenset()
        assert outcome.nudged == ((job.job_id,) if told(outcome.reply) == JobCancelled(state=JobState.RUNNING) else ())

    @rule(tenant=TENANTS, queue=QUEUES, mode=st.sampled_from([QueueMode.OPEN, *QueueMode]))
    def set_mode(self, tenant: str, queue: str, mode: QueueMode) -> None:
        key = QueueKey(tenant, queue)
        ready = self.driver.outcome(UpdateQueue(queue=queue, mode=mode), tenant=tenant).ready
        self.model.modes[key] = mode
        waiting = {job.ready for job in self.model.jobs if job.key == key and job.waits}
        assert ready == (set() if mode is QueueMode.PAUSED else {key, *waiting})

    @rule(later_ms=st.sampled_from([0, 1, 499, 1_000, 1_500, 5_000]))
    def expire(self, later_ms: int) -> None:
        self.driver.now_ms += later_ms
        assert self.driver.expire().ready == self.model.expire(self.driver.now_ms)

    @rule(later_ms=st.sampled_from([0, 100, 10_000, m.DAY_MS]))
    def restart(self, later_ms: int) -> None:
        self.driver.now_ms += later_ms
        self.driver.resume()
        self.model.resume(self.driver.now_ms)

    @rule(age_ms=st.sampled_from([1, 5_000, 20_000]))
    def retain(self, age_ms: int) -> None:
        before_ms = self.driver.now_ms + 1 - age_ms
        while self.driver.retain(finished_before_ms=before_ms).more:
            pass
        self.model.retain(before_ms, self.driver.now_ms)

    @invariant()
    def they_say_the_same(self) -> None:
        assert self.driver.apply().next_due_ms == self.model.next_due_ms
        for tenant in ("home", "other"):
            mine = [job.job_id for job in reversed(self.model.jobs) if job.tenant == tenant]
            listed = self.driver.reply(JobsListed, ListJobs(page_size=100), tenant=tenant).jobs
            assert [job.id for job in listed] == mine[:100]
            queues = self.driver.reply(QueuesListed, ListQueues(), tenant=tenant).queues
            assert list(queues) == self.model.queues(tenant)
            leased = self.driver.reply(LeasesCounted, ListAgents(), tenant=tenant).by_agent
            assert leased.get("agent", 0) == sum(queue.running for queue in queues)

    @invariant()
    def jobs_are_found_by_what_is_noted_with_them(self) -> None:
        for owner, metadata, state in (("o", {"k": "v"}, None), (None, {"l": "w", "k": "v"}, JobState.SCHEDULED)):
            request = ListJobs(owner=owner, metadata=metadata, state=state, page_size=100)
            found = [
                job.job_id
                for job in reversed(self.model.jobs)
                if (job.tenant, metadata.items() <= job.spec.metadata.items()) == ("home", True)
                and owner in (None, job.spec.owner)
                and state in (None, job.state)
            ]
            assert [job.id for job in self.driver.reply(JobsListed, request).jobs] == found[:100]

    @rule()
    def compare_jobs_and_logs(self) -> None:
        for one in self.model.jobs:
            job = self.driver.job(one.job_id, tenant=one.tenant)
            assert (job.state, job.attempt, job.result) == (one.state, one.attempt, one.result)
            assert (job.retries, job.due_ms, job.finished_ms) == (one.retries, one.due_ms, one.finished_ms)
            assert (job.origin, job.cancel_requested_ms is not None) == (one.origin, one.cancelling)
            assert (job.submitted_ms, job.started_ms, job.spec) == (one.submitted_ms, one.started_ms, one.spec)
            events = self.driver.log(one.job_id, tenant=one.tenant)
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            said = [
                (event.body.data.decode() if isinstance(event.body, Output) else event.kind, event.attempt)
                for event in events
            ]
            assert said == one.log
            assert (said[-1][0] == "JOB_FINISHED") == job.state.terminal
            live = self.driver.live[self.watch_keys[one.job_id]]
            published = [range(segment.first_sequence, segment.next_sequence) for segment in live]
            assert [*chain(*published)] == [event.sequence for event in events], "all that is stored, once"
