"""Whatever is asked of the SQLite store, in whatever order, it does what the model does.

Submissions, grants, batches and completions are repeated, reordered, delayed past their lease and sent by
whoever held an older attempt: the machine keeps every grant that was ever made.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

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

    requests: Bundle[tuple[str, DequeueJob, bytes, int]] = Bundle("requests")
    grants: Bundle[tuple[JobLease, m.Grant]] = Bundle("grants")

    def __init__(self) -> None:
        super().__init__()
        self.store = open_store("memory:")
        self.driver = Driver(self.store)
        self.model = m.Model()
        self.known: dict[tuple[str, int], m.Grant] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule(tenant=TENANTS, queues=st.lists(QUEUES, min_size=1, max_size=3), again=st.booleans())
    def enqueue(self, tenant: str, queues: list[str], again: bool) -> None:
        specs = tuple(JobSpec(command=f"c{n}", queue=queue) for n, queue in enumerate(queues))
        request_id = self.driver.draw(16)
        reply = self.driver.reply(JobsEnqueued, EnqueueJob(jobs=specs), tenant=tenant, request_id=request_id)
        if again:
            repeated = self.driver.outcome(EnqueueJob(jobs=specs), tenant=tenant, request_id=request_id)
            assert (repeated.reply, repeated.appended) == (reply, ())
        for job_id, spec in zip(reply.job_ids, specs, strict=True):
            self.model.enqueue(tenant, job_id, spec)

    @rule(
        target=requests,
        tenant=TENANTS,
        queues=st.lists(QUEUES, min_size=1, max_size=3),
        slots=st.integers(1, 3),
        visibility_ms=VISIBILITY_MS,
    )
    def plan(
        self, tenant: str, queues: list[str], slots: int, visibility_ms: int
    ) -> tuple[str, DequeueJob, bytes, int]:
        request_id = self.driver.draw(16)
        request = DequeueJob(
            agent="agent",
            queues=tuple(queues),
            slots=slots,
            visibility_ms=visibility_ms,
            token_seed=self.driver.draw(32),
        )
        return tenant, request, request_id, int.from_bytes(request_id, "big")

    @rule(target=grants, planned=requests, pick=st.integers(0, 2))
    def dequeue(self, planned: tuple[str, DequeueJob, bytes, int], pick: int) -> object:
        tenant, request, request_id, number = planned
        leases = self.driver.reply(JobsLeased, request, tenant=tenant, request_id=request_id).leases
        expected = self.model.dequeue(
            tenant, number, request.queues, request.slots, request.visibility_ms, self.driver.now_ms
        )
        both = {lease.job_id: lease for lease in leases}
        assert {(one.job_id, one.attempt) for one in leases} == {(one.job.job_id, one.attempt) for one in expected}
        for grant in expected:
            assert self.known.setdefault((grant.job.job_id, grant.attempt), grant) is grant, "granted twice"
        if not expected:
            return _NOTHING
        grant = expected[pick % len(expected)]
        return both[grant.job.job_id], grant

    @rule(pair=grants, visibility_ms=VISIBILITY_MS)
    def renew(self, pair: tuple[JobLease, m.Grant] | None, visibility_ms: int) -> None:
        if pair is None:
            return
        lease, grant = pair
        ref = LeaseRef(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        reply = self.driver.reply(
            JobsUpdated, UpdateJob(leases=(ref,), visibility_ms=visibility_ms), tenant=grant.job.tenant
        )
        kept = self.model.renew(grant, visibility_ms, self.driver.now_ms)
        assert reply.leases[0].verdict is (Verdict.KEPT if kept else Verdict.LOST)

    @rule(pair=grants, back=st.integers(-1, 3), pieces=PIECES)
    def publish(self, pair: tuple[JobLease, m.Grant] | None, back: int, pieces: list[str]) -> None:
        if pair is None:
            return
        lease, grant = pair
        first = max(0, grant.job.stored - back)
        request = PublishJobEvents(batches=(batch(lease, first, *pieces),))
        (stored,) = self.driver.reply(JobEventsPublished, request, tenant=grant.job.tenant).batches
        try:
            next_index = self.model.publish(grant, first, pieces)
        except m.Refused as refused:
            assert (stored.code, stored.next_index) == (refused.code, refused.expected_index or 0)
        else:
            assert (stored.code, stored.next_index) == (None, next_index)

    @rule(pair=grants, exit_code=st.integers(0, 1), off=st.sampled_from([0, 0, 0, 1]), last=st.none() | PIECES)
    def complete(self, pair: tuple[JobLease, m.Grant] | None, exit_code: int, off: int, last: list[str] | None) -> None:
        if pair is None:
            return
        lease, grant = pair
        stored = grant.job.stored
        count = stored + len(last or []) + off
        with_it = batch(lease, stored, *last) if last is not None else None
        request = completion(lease, count, exit_code=exit_code, last=with_it)
        reply = self.driver.outcome(request, tenant=grant.job.tenant).reply
        try:
            state = self.model.complete(
                grant, count, Result(exit_code=exit_code), (stored, last) if last is not None else None
            )
        except m.Refused as refused:
            assert isinstance(reply, Refused)
            assert (reply.code, reply.expected_index) == (refused.code, refused.expected_index)
        else:
            assert reply == JobCompleted(state=state)

    @rule(pair=grants)
    def release(self, pair: tuple[JobLease, m.Grant] | None) -> None:
        if pair is None:
            return
        lease, grant = pair
        request = ReleaseJob(job_id=lease.job_id, attempt=lease.attempt, task_token=lease.task_token)
        reply = self.driver.outcome(request, tenant=grant.job.tenant).reply
        try:
            self.model.release(grant)
        except m.Refused as refused:
            assert isinstance(reply, Refused)
            assert reply.code == refused.code
        else:
            assert not isinstance(reply, Refused)

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


_NOTHING = None  # a grant of nothing; whoever draws it does nothing

TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
