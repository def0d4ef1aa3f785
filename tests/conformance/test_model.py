"""Whatever is asked of the SQLite store, in whatever order, it does what the model does.

Submissions, grants, batches and completions are repeated, reordered, delayed past their lease and sent by
whoever held an older attempt: the machine keeps every grant that was ever made.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from airunner.broker.store.sqlite import open_store
from airunner.protocol.events import Output
from airunner.protocol.job import JobSpec, JobState, Result
from airunner.protocol.messages import (
    DequeueJob,
    EnqueueJob,
    GetJob,
    JobCompleted,
    JobEventsPublished,
    JobFound,
    JobLease,
    JobsEnqueued,
    JobsLeased,
    JobsListed,
    JobsUpdated,
    LeaseRef,
    ListJobs,
    PublishJobEvents,
    Refused,
    ReleaseJob,
    UpdateJob,
    Verdict,
)
from tests.conformance import model as m
from tests.conformance.driving import Driver, batch, completion

TENANTS = st.sampled_from(["home", "other"])
QUEUES = st.sampled_from(["a", "b"])
VISIBILITY_MS = st.sampled_from([1_000, 2_000, 5_000])
PIECES = st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3)


class StoreAndModel(RuleBasedStateMachine):
    """Both get the same; both must say the same."""

    grants: Bundle[tuple[JobLease, m.Grant]] = Bundle("grants")

    def __init__(self) -> None:
        super().__init__()
        self.store = open_store("memory:")
        self.driver = Driver(self.store)
        self.model = m.Model()
        self.requests: list[tuple[str, bytes, DequeueJob]] = []

    def teardown(self) -> None:
        self.store.close()

    @initialize()
    def begin(self) -> None:
        self.enqueue("home", ["a", "b", "a"], again=False)

    @rule(tenant=TENANTS, queues=st.lists(QUEUES, min_size=1, max_size=3), again=st.booleans())
    def enqueue(self, tenant: str, queues: list[str], *, again: bool) -> None:
        specs = tuple(JobSpec(command=f"c{n}", queue=queue) for n, queue in enumerate(queues))
        request_id = self.driver.draw(16)
        reply = self.driver.reply(JobsEnqueued, EnqueueJob(jobs=specs), tenant=tenant, request_id=request_id)
        if again:
            repeated = self.driver.outcome(EnqueueJob(jobs=specs), tenant=tenant, request_id=request_id)
            assert (repeated.reply, repeated.appended) == (reply, ())
        for job_id, spec in zip(reply.job_ids, specs, strict=True):
            self.model.enqueue(tenant, job_id, spec)

    @rule(
        target=grants,
        tenant=TENANTS,
        queues=st.lists(QUEUES, min_size=1, max_size=3),
        slots=st.integers(1, 3),
        visibility_ms=VISIBILITY_MS,
    )
    def lease(self, tenant: str, queues: list[str], slots: int, visibility_ms: int) -> object:
        request = DequeueJob(
            agent="agent",
            queues=tuple(queues),
            slots=slots,
            visibility_ms=visibility_ms,
            token_seed=self.driver.draw(32),
        )
        self.requests.append((tenant, self.driver.draw(16), request))
        return self.ask_for_leases(*self.requests[-1])

    @precondition(lambda self: self.requests)
    @rule(target=grants, pick=st.integers(0, 1_000))
    def repeat(self, pick: int) -> object:
        return self.ask_for_leases(*self.requests[-1 - pick % len(self.requests)])

    def ask_for_leases(self, tenant: str, request_id: bytes, request: DequeueJob) -> object:
        leases = self.driver.reply(JobsLeased, request, tenant=tenant, request_id=request_id).leases
        number = int.from_bytes(request_id, "big")
        now_ms = self.driver.now_ms
        expected = self.model.dequeue(tenant, number, request.queues, request.slots, request.visibility_ms, now_ms)
        both = {(one.job_id, one.attempt): one for one in leases}
        assert set(both) == {(one.job.job_id, one.attempt) for one in expected}
        return multiple(*((both[one.job.job_id, one.attempt], one) for one in expected))

    @rule(pair=grants, visibility_ms=VISIBILITY_MS)
    def renew(self, pair: tuple[JobLease, m.Grant], visibility_ms: int) -> None:
        lease, grant = pair
        ref = LeaseRef(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        reply = self.driver.reply(
            JobsUpdated, UpdateJob(leases=(ref,), visibility_ms=visibility_ms), tenant=grant.job.tenant
        )
        kept = self.model.renew(grant, visibility_ms, self.driver.now_ms)
        assert reply.leases[0].verdict is (Verdict.KEPT if kept else Verdict.LOST)

    @rule(pair=grants, back=st.sampled_from([0, 0, 0, 1, 2, -1]), pieces=PIECES)
    def publish(self, pair: tuple[JobLease, m.Grant], back: int, pieces: list[str]) -> None:
        lease, grant = pair
        first = max(0, grant.job.stored - back)
        request = PublishJobEvents(batches=(batch(lease, first, *pieces),))
        (stored,) = self.driver.reply(JobEventsPublished, request, tenant=grant.job.tenant).batches
        try:
            expected = (self.model.publish(grant, first, pieces), None)
        except m.Refused as refused:
            expected = (refused.expected_index or 0, refused.code)
        assert (stored.next_index, stored.code) == expected

    @rule(pair=grants, exit_code=st.integers(0, 1), off=st.sampled_from([0, 0, 0, 1]), last=st.none() | PIECES)
    def complete(self, pair: tuple[JobLease, m.Grant], exit_code: int, off: int, last: list[str] | None) -> None:
        lease, grant = pair
        stored = grant.job.stored
        count = stored + len(last or []) + off
        with_it = batch(lease, stored, *last) if last is not None else None
        request = completion(lease, count, exit_code=exit_code, last=with_it)
        reply = self.driver.outcome(request, tenant=grant.job.tenant).reply
        result = Result(exit_code=exit_code)
        told = (reply.code, reply.expected_index) if isinstance(reply, Refused) else reply
        try:
            state = self.model.complete(grant, count, result, (stored, last) if last is not None else None)
            expected: object = JobCompleted(state=state)
        except m.Refused as refused:
            expected = (refused.code, refused.expected_index)
        assert told == expected

    @rule(pair=grants)
    def release(self, pair: tuple[JobLease, m.Grant]) -> None:
        lease, grant = pair
        request = ReleaseJob(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        reply = self.driver.outcome(request, tenant=grant.job.tenant).reply
        expected: str | None = None
        try:
            self.model.release(grant)
        except m.Refused as refused:
            expected = refused.code
        assert (reply.code if isinstance(reply, Refused) else None) == expected

    @rule(later_ms=st.sampled_from([0, 1, 999, 1_000, 5_000]))
    def expire(self, later_ms: int) -> None:
        self.driver.now_ms += later_ms
        assert self.driver.expire().ready == self.model.expire(self.driver.now_ms)

    @rule(later_ms=st.integers(0, 10_000))
    def restart(self, later_ms: int) -> None:
        self.driver.now_ms += later_ms
        self.driver.resume()
        self.model.resume(self.driver.now_ms)

    @invariant()
    def they_say_the_same(self) -> None:
        assert self.driver.apply().next_due_ms == self.model.next_due_ms
        for tenant in ("home", "other"):
            mine = [job for job in self.model.jobs if job.tenant == tenant]
            listed = self.driver.reply(JobsListed, ListJobs(page_size=100), tenant=tenant).jobs
            assert [job.id for job in listed] == [job.job_id for job in reversed(mine)][:100]

    @invariant()
    def every_job_and_log_is_the_same(self) -> None:
        for expected in self.model.jobs:
            job = self.driver.reply(JobFound, GetJob(job_id=expected.job_id), tenant=expected.tenant).job
            assert (job.state, job.attempt, job.result) == (expected.state, expected.attempt, expected.result)
            events = self.driver.log(expected.job_id, tenant=expected.tenant)
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            told = [
                (event.body.data.decode() if isinstance(event.body, Output) else event.kind, event.attempt)
                for event in events
            ]
            assert told == expected.log
            assert (told[-1][0] == "JOB_FINISHED") == job.state.terminal
            assert job.state is not JobState.CANCELLED


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
