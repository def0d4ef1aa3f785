"""A store and the model, asked the same by one seed: they have to answer the same.

Submissions, grants, batches, completions, cancels and retries are repeated, reordered, delayed past their lease and
sent by the holder of an older attempt: every grant and every request that was ever made is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import LeasesCounted
from airunner.broker.store.batch import Store
from airunner.broker.store.room import Room
from airunner.broker.store.rows import QueueKey
from airunner.protocol.events import Output
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.names import JobId, WatchKey
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
    QueueMode,
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

STEPS: Final = 200
TENANTS: Final = ("home", "home", "home", "other")
VISIBILITY_MS: Final = (1_000, 2_000, 5_000)
TAGS: Final[Sequence[dict[str, str]]] = ({}, {"os": "linux"}, {"os": "linux", "arch": "arm", "fast": ""})
RESULTS: Final = (
    *(Result(exit_code=code) for code in (0, 0, 1, 1, 1, 2)),
    *(Result(exit_code=1, reason=Reason.TIMEOUT), Result(reason=Reason.CANCELLED)),
)
POLICIES: Final = (
    RetryPolicy(limit=1, backoff_ms=0),
    RetryPolicy(limit=2, backoff_ms=1_000, backoff_max_ms=1_500, on=RetryOn(exit_codes=(1,))),
    None,
)
T = TypeVar("T")


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


class StoreAndModel:
    """Both get the same; both must say the same. `early`: the store may say too early that a job is due."""

    def __init__(
        self, store: Store, seed: int, visibility_ms: Sequence[int] = VISIBILITY_MS, *, early: bool = False
    ) -> None:
        self.early = early
        self.visibility_ms = visibility_ms  # among these each lease and renewal draws
        self.random = Random(seed)
        self.draw = self.random.choice
        self.driver = Driver(store)
        self.model = m.Model()
        self.requests: list[tuple[str, bytes, DequeueJob]] = []
        self.submissions: list[Submission] = []
        self.granted: list[tuple[JobLease, m.Grant]] = []
        self.jobs: list[m.ModelJob] = []  # all that ever were
        self.watch_keys: dict[str, WatchKey] = {}

    def run(self, steps: int = STEPS) -> None:
        """Do one thing after the other, and compare what there is after each."""
        self.begin()
        for _ in range(steps):
            self.act()
            self.compare_queues()
            self.compare_lists()
        self.compare_jobs()

    def begin(self) -> None:
        while not self.granted:
            self.enqueue()
            self.lease()

    def act(self) -> None:
        """Ask for something, and compare the answers."""
        (act,) = self.random.choices([*ACTS], [*ACTS.values()])
        act(self)

    # --- what is asked --------------------------------------------------------------------------------

    def spec(self) -> JobSpec:
        return JobSpec(
            command="c",
            queue=self.draw("ab"),
            owner=self.draw(("", "o")),
            metadata=self.draw(({}, {"k": "v"}, {"k": "v", "l": "w"})),
            priority=self.draw((0, 0, 1, -1)),
            not_before_ms=self.draw((None, None, None, 0, self.driver.now_ms + 1_000)),
            expires=self.draw((None,) * 4 + (Expiry(after_ms=1_500), Expiry(at_ms=self.driver.now_ms + 1_000))),
            max_attempts=self.draw((1, 2, 3)),
            retry=self.draw(POLICIES),
            require=self.draw(({}, {}, {"os": "linux"}, {"os": "linux", "arch": "arm"})),
            secrets=self.draw(((), ("S",))),
        )

    def grant(self) -> tuple[JobLease, m.Grant]:
        """One in four is any that ever was, the others are the last of their jobs, running or ended."""
        last = [pair for pair in self.granted if pair[1] is pair[1].job.last and not pair[1].job.gone]
        running = [pair for pair in last if pair[1].job.state is JobState.RUNNING]
        return self.draw(self.draw((running, running, last, self.granted)) or self.granted)

    def some(self, likely: Sequence[T], others: Sequence[T]) -> T:
        return self.draw(likely if likely and self.random.random() < 0.7 else others)

    def enqueue(self) -> None:
        specs = tuple(self.spec() for _ in range(self.random.randint(1, 3)))
        self.submissions.append(Submission(self.draw(TENANTS), self.driver.draw(16), EnqueueJob(jobs=specs), None))
        self.submit(self.submissions[-1])

    def retry(self) -> None:
        job = self.some([job for job in self.model.jobs if job.state.terminal], self.jobs)
        request = RetryJob(job_id=job.job_id)
        self.submissions.append(Submission(self.some([job.tenant], TENANTS), self.driver.draw(16), request, job))
        self.submit(self.submissions[-1])

    def submit_again(self) -> None:
        before, other = self.draw(self.submissions), self.draw(self.submissions)
        tenant = self.some([before.tenant], TENANTS)
        self.submit(self.some([before], [other])._replace(tenant=tenant, request_id=before.request_id))

    def submit(self, submission: Submission) -> None:
        tenant, request_id, request, _ = submission
        room = self.random.random() < 0.9
        space = Room.AMPLE if room else Room.RUNNING
        ask = self.driver.ask(request, tenant=tenant, request_id=request_id, room=space)
        known = len(self.model.jobs)
        (outcome,) = self.driver.apply(ask).done
        minted = [job.job_id for job in ask.minted]
        self.watch_keys |= {job.job_id: job.watch_key for job in ask.minted}
        assert told(outcome.reply) == expected(lambda: self.submit_to_model(submission, minted, room=room))
        made = self.model.jobs[known:]
        assert (len(outcome.news.appended), outcome.news.ready) == (len(made), {job.ready for job in made if job.waits})
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

    def lease(self) -> None:
        request = DequeueJob(
            agent="agent",
            queues=self.draw((("a",), ("b",), ("a", "b"), ("b", "a", "b"))),
            slots=self.random.randint(1, 3),
            visibility_ms=self.draw(self.visibility_ms),
            tags=self.draw(TAGS),
            token_seed=self.driver.draw(32),
        )
        self.requests.append((self.draw(TENANTS), self.driver.draw(16), request))
        self.ask_for_leases(*self.requests[-1])

    def lease_again(self) -> None:
        self.ask_for_leases(*self.some(self.requests[-3:], self.requests))

    def ask_for_leases(self, tenant: str, request_id: bytes, request: DequeueJob) -> None:
        number, now_ms = int.from_bytes(request_id, "big"), self.driver.now_ms
        tokens = {(lease.job_id, lease.attempt): lease.task_token for lease, _ in self.granted}
        try:
            grants = self.model.dequeue(tenant, number, request, now_ms)
        except m.Refused as refused:
            self.driver.refused(refused.code, request, tenant=tenant, request_id=request_id)
            return
        leases = self.driver.reply(JobsLeased, request, tenant=tenant, request_id=request_id).leases
        said = {(lease.job_id, lease.attempt): lease for lease in leases}
        wanted = [(grant.job.job_id, grant.attempt) for grant in grants]
        if tokens.keys() & {*wanted}:
            assert {key: lease.task_token for key, lease in said.items()} == {key: tokens[key] for key in wanted}
            return
        assert [*said] == wanted, "in order"
        assert not {lease.task_token for lease in leases} & {*tokens.values()}
        self.granted += zip(leases, grants, strict=True)

    def renew(self) -> None:
        lease, grant = self.grant()
        request = UpdateJob(leases=(lease.ref, lease.ref), visibility_ms=self.draw(self.visibility_ms))
        renewed, again = self.driver.reply(JobsUpdated, request, tenant=grant.job.tenant).leases
        assert renewed.verdict == again.verdict == self.model.renew(grant, request.visibility_ms, self.driver.now_ms)

    def pieces(self) -> list[str]:
        return self.random.choices("xyz", k=self.random.randint(1, 3))

    def publish(self) -> None:
        lease, grant = self.grant()
        first, pieces = max(0, grant.job.stored - self.draw((0, 0, 0, 1, 2, -1))), self.pieces()
        request = PublishJobEvents(batches=(batch(lease, first, *pieces),))
        (stored,) = self.driver.reply(JobEventsPublished, request, tenant=grant.job.tenant).batches
        self.expect_stored(stored, grant, first, pieces)

    def expect_stored(self, stored: BatchStored, grant: m.Grant, first: int, pieces: list[str]) -> None:
        try:
            wanted = (self.model.publish(grant, first, pieces), None)
        except m.Refused as refused:
            wanted = (refused.expected_index or 0, refused.code)
        assert (stored.next_index, stored.code) == wanted

    def complete(self) -> None:
        lease, grant = self.grant()
        job, now_ms, last = grant.job, self.driver.now_ms, self.draw(([], self.pieces()))
        before = job.state
        count = max(0, job.stored + len(last) + self.draw((0, 0, 0, 0, 0, 0, 1, -1)))
        ended = completion(lease, count, result=self.draw(RESULTS))
        batches = (batch(lease, job.stored, *last),) if last else ()
        together = PublishJobEvents(batches=batches, completions=(ended,))
        outcome = self.driver.outcome(self.draw((ended, together)) if not last else together, tenant=job.tenant)
        reply: object = outcome.reply
        if isinstance(outcome.reply, JobEventsPublished):
            (reply,) = outcome.reply.completions
            for stored in outcome.reply.batches:
                self.expect_stored(stored, grant, job.stored, last)
        due_ms = None if job.gone else self.driver.job(job.job_id, tenant=job.tenant).due_ms
        pause_ms = (due_ms or now_ms) - now_ms
        assert told(reply) == expected(
            lambda: JobCompleted(state=self.model.complete(grant, count, ended.result, now_ms, pause_ms))
        )
        assert outcome.news.ready == ({job.ready} if job.waits and before is JobState.RUNNING else set())

    def release(self) -> None:
        lease, grant = self.grant()
        job, now_ms, lost = grant.job, self.driver.now_ms, self.draw((True, False))
        outcome = self.driver.outcome(ReleaseJob(lease=lease.ref, lost=lost), tenant=job.tenant)
        said = expected(lambda: self.model.release(grant, now_ms, lost=lost))
        assert told(outcome.reply) == (said or JobReleasedReply())
        assert outcome.news.ready == ({job.ready} if outcome.news.appended and job.waits else set())

    def cancel(self) -> None:
        job = self.draw((self.draw(self.jobs), self.grant()[1].job))
        tenant, now_ms = self.some([job.tenant], TENANTS), self.driver.now_ms
        outcome = self.driver.outcome(CancelJob(job_id=job.job_id), tenant=tenant)
        assert told(outcome.reply) == expected(lambda: JobCancelled(state=self.model.cancel(tenant, job, now_ms)))
        assert outcome.news.ready == set()
        nudges = told(outcome.reply) == JobCancelled(state=JobState.RUNNING)
        assert outcome.news.nudged == ([job.job_id] if nudges else [])

    def set_mode(self) -> None:
        key, mode = QueueKey(self.draw(TENANTS), self.draw("ab")), self.draw((*[QueueMode.OPEN] * 3, *QueueMode))
        ready = self.driver.outcome(UpdateQueue(queue=key.queue, mode=mode), tenant=key.tenant).news.ready
        self.model.modes[key] = mode
        waiting = {job.ready for job in self.model.jobs if job.key == key and job.waits}
        assert ready == (set() if mode is QueueMode.PAUSED else {key, *waiting})

    def expire(self) -> None:
        self.driver.now_ms += self.draw((0, 1, 499, 499, 1_000, 1_500, 5_000))
        ready = self.driver.expire().news.ready
        while self.driver.store.engine.rows_max is not None and self.is_due():
            ready |= self.driver.expire().news.ready
        assert ready == self.model.expire(self.driver.now_ms)

    def is_due(self) -> bool:
        due_ms = self.driver.apply().next_due_ms
        return due_ms is not None and due_ms <= self.driver.now_ms

    def restart(self) -> None:
        self.driver.now_ms += self.draw((0, 100, 10_000, m.DAY_MS))
        self.driver.renew_all()
        self.model.renew_all(self.driver.now_ms)

    def retain(self) -> None:
        before_ms = self.driver.now_ms + 1 - self.draw((1, 5_000, 20_000, m.DAY_MS))
        self.driver.sweep(finished_before_ms=before_ms)
        self.model.retain(before_ms, self.driver.now_ms)

    # --- what there is --------------------------------------------------------------------------------

    def compare_queues(self) -> None:
        due_ms, true_ms = self.driver.apply().next_due_ms, self.model.next_due_ms
        assert due_ms == true_ms or (self.early and due_ms is not None and (true_ms is None or due_ms < true_ms))
        for tenant in ("home", "other"):
            queues = self.driver.reply(QueuesListed, ListQueues(), tenant=tenant).queues
            assert list(queues) == self.model.queues(tenant)
            leased = self.driver.reply(LeasesCounted, ListAgents(), tenant=tenant).by_agent
            assert leased.get("agent", 0) == sum(queue.running for queue in queues)

    def compare_lists(self) -> None:
        """A page of jobs, by whatever they may be listed by."""
        tenant = self.draw(TENANTS)
        mine = {job.job_id: job for job in reversed(self.model.jobs) if job.tenant == tenant}
        request = ListJobs(
            queue=self.draw((None, None, "a", "b")),
            state=self.draw((None, None, *JobState)),
            owner=self.draw((None, None, "o", "nobody")),
            metadata=self.draw(({}, {}, {"k": "v"}, {"l": "w", "k": "v"}, {"k": "w"})),
            before=self.draw((None, self.draw([None, *mine]))),
            page_size=self.draw((1, 3, 100)),
        )
        if request.before is None:
            request = replace(request, page=self.draw((1, 1, 2, 3)))
        older = list(mine).index(request.before) + 1 if request.before is not None else 0
        found = [
            job.job_id
            for job in list(mine.values())[older:]
            if request.metadata.items() <= job.spec.metadata.items()
            and request.queue in (None, job.spec.queue)
            and request.owner in (None, job.spec.owner)
            and request.state in (None, job.state)
        ][(request.page - 1) * request.page_size :]
        listed = self.driver.reply(JobsListed, request, tenant=tenant)
        assert [job.id for job in listed.jobs] == found[: request.page_size]
        assert listed.more == (len(found) > request.page_size)

    def compare_jobs(self) -> None:
        """Each job, and its whole log, as it is stored and as it was published."""
        for known in self.model.jobs:
            job = self.driver.job(known.job_id, tenant=known.tenant)
            assert (job.state, job.attempt, job.result) == (known.state, known.attempt, known.result)
            assert (job.retries, job.due_ms, job.finished_ms) == (known.retries, known.due_ms, known.finished_ms)
            assert (job.origin, job.cancel_requested_ms is not None) == (known.origin, known.cancelling)
            assert (job.submitted_ms, job.started_ms, job.spec) == (known.submitted_ms, known.started_ms, known.spec)
            events = self.driver.log(known.job_id, tenant=known.tenant)
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            said = [
                (event.body.data.decode() if isinstance(event.body, Output) else event.kind, event.attempt)
                for event in events
            ]
            assert said == known.log
            assert (said[-1][0] == "JOB_FINISHED") == job.state.terminal
            live = self.driver.live[self.watch_keys[known.job_id]]
            published = [range(segment.first_sequence, segment.next_sequence) for segment in live]
            assert [*chain(*published)] == [event.sequence for event in events], "all that is stored, once"


ACTS: Final[Mapping[Callable[[StoreAndModel], None], int]] = MappingProxyType(
    {
        StoreAndModel.enqueue: 8,
        StoreAndModel.lease: 10,
        StoreAndModel.publish: 8,
        StoreAndModel.complete: 8,
        StoreAndModel.expire: 6,
        StoreAndModel.renew: 3,
        StoreAndModel.release: 3,
        StoreAndModel.cancel: 3,
        StoreAndModel.retry: 2,
        StoreAndModel.submit_again: 2,
        StoreAndModel.lease_again: 2,
        StoreAndModel.set_mode: 2,
        StoreAndModel.restart: 1,
        StoreAndModel.retain: 1,
        StoreAndModel.compare_jobs: 1,
    }
)
"""What may be asked, and how often in comparison."""
