"""The laws of jobs, leases and queues that the model does not hold: bounds, forgeries, and requests that differ."""

from __future__ import annotations

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import EXPIRE_MAX, Expire
from airunner.broker.store.needs import NEEDS_MAX, TENANT_NEEDS_MAX
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.rows import QueueKey
from airunner.protocol.events import JobFinished
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.replies import (
    InputSent,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsUpdated,
    QueueMode,
    QueueUpdated,
    Refused,
    Verdict,
)
from airunner.protocol.requests import (
    ENQUEUE_MAX,
    CancelJob,
    EnqueueJob,
    ReleaseJob,
    RetryJob,
    SendInput,
    UpdateJob,
    UpdateQueue,
)
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, batch, completion, release

ID = b"r" * REQUEST_ID_BYTES
DEFAULT = QueueKey("home", "default")


def a_job_too_large_refuses_all_of_its_request_and_disturbs_no_other(driver: Driver) -> None:
    good, large = JobSpec(command="a"), JobSpec(command="b" * 70_000)
    requests = EnqueueJob(jobs=(good,)), EnqueueJob(jobs=(good, large)), driver.dequeue(slots=9)
    applied = driver.apply(*map(driver.ask, requests))
    submitted, refused, leased = (outcome.reply for outcome in applied.done)
    assert isinstance(submitted, JobsEnqueued)
    assert isinstance(refused, Refused)
    assert refused.code == "bad-request"
    assert isinstance(leased, JobsLeased)
    assert [lease.job_id for lease in leased.leases] == list(submitted.job_ids)
    assert applied.next_due_ms == START_MS + VISIBILITY_MS


def copies_of_a_submission_in_one_batch_are_one(driver: Driver) -> None:
    jobs = EnqueueJob(jobs=(JobSpec(command="a"),))
    copies = [driver.ask(jobs, request_id=ID) for _ in range(3)]
    other = driver.ask(EnqueueJob(jobs=(JobSpec(command="b"),)), request_id=ID)
    *told, refused = [outcome.reply for outcome in driver.apply(*copies, other).done]
    assert isinstance(refused, Refused)
    assert refused.code == "conflict"
    assert told == [JobsEnqueued(job_ids=(copies[0].minted[0].job_id,))] * 3
    assert driver.reply(JobsEnqueued, jobs, request_id=ID) == told[0], "as a later copy is told"
    assert driver.job(copies[0].minted[0].job_id).state is JobState.SCHEDULED


def a_copy_of_a_refused_submission_in_its_batch_may_be_met(driver: Driver) -> None:
    jobs = EnqueueJob(jobs=(JobSpec(command="a"),))
    (waiting,) = driver.submit()
    driver.quotas = Quotas(waiting_max=1)
    copies = [driver.ask(jobs, request_id=ID) for _ in range(2)]
    refused, _, told = driver.apply(copies[0], driver.ask(CancelJob(job_id=waiting)), copies[1]).done
    assert isinstance(refused.reply, Refused)
    assert told.reply == JobsEnqueued(job_ids=(copies[1].minted[0].job_id,))
    assert driver.reply(JobsEnqueued, jobs, request_id=ID) == told.reply, "as a later copy is told"


def nobody_else_speaks_for_an_attempt(driver: Driver) -> None:
    lease = driver.started()
    forged = [
        (replace(lease, task_token=bytes(32)), "home", "stale-token"),
        (replace(lease, attempt=2), "home", "stale-token"),
        (replace(lease, job_id="absent"), "home", "not-found"),
        (lease, "other", "not-found"),
    ]
    for other, tenant, code in forged:
        driver.refused(code, completion(other), tenant=tenant)
        driver.refused(code, release(other), tenant=tenant)
        assert driver.publish(batch(other, 0, "a"), tenant=tenant) == [(0, code)]
        renewal = UpdateJob(leases=(other.ref, lease.ref), visibility_ms=VISIBILITY_MS)
        verdicts = driver.reply(JobsUpdated, renewal, tenant=tenant).leases
        assert [one.verdict for one in verdicts] == [Verdict.LOST, Verdict.KEPT if tenant == "home" else Verdict.LOST]
    assert driver.kinds(lease.job_id) == ["JOB_SCHEDULED", "JOB_LEASED"]


def a_grant_that_nobody_heard_of_may_be_granted_again(driver: Driver) -> None:
    driver.submit()
    request = driver.dequeue()
    (lease,) = driver.reply(JobsLeased, request, request_id=ID).leases
    driver.reply(JobReleasedReply, release(lease), request_id=ID)
    (again,) = driver.reply(JobsLeased, request, request_id=ID).leases
    assert (again.job_id, again.attempt) == (lease.job_id, 2)


def a_queue_is_exhausted_only_where_it_was_looked_through(driver: Driver) -> None:
    """What a repeat holds says nothing of what waits."""
    driver.submit("first")
    request = driver.dequeue(slots=2)
    assert driver.outcome(request, request_id=ID).news.exhausted == {DEFAULT}
    driver.submit("second")
    assert driver.outcome(request, request_id=ID).news.exhausted == set()
    assert driver.outcome(driver.dequeue()).news.exhausted == set()
    assert driver.outcome(driver.dequeue()).news.exhausted == {DEFAULT}


def a_batch_that_leases_the_last_job_exhausts_its_queue(driver: Driver) -> None:
    """Other agents that wait there are not tried for nothing."""
    tags = {"os": "linux"}

    def exhausted(*jobs: JobSpec) -> set[QueueKey]:
        requests = EnqueueJob(jobs=jobs), driver.dequeue(tags=tags)
        return driver.apply(*map(driver.ask, requests)).done[-1].news.exhausted

    assert exhausted(JobSpec(command="a")) == {DEFAULT}
    assert exhausted(JobSpec(command="b"), JobSpec(command="c", require=tags)) == set()
    assert exhausted(JobSpec(command="d", priority=1)) == set()


def a_repeat_with_another_seed_is_a_conflict(driver: Driver) -> None:
    """Its tokens would be worth nothing."""
    driver.submit("a", "b")
    driver.reply(JobsLeased, driver.dequeue(), request_id=ID)
    driver.refused("conflict", driver.dequeue(), request_id=ID)


def very_many_that_fall_due_at_once_do_so_in_steps(driver: Driver) -> None:
    total = 0
    while total <= EXPIRE_MAX:
        driver.enqueue(*(JobSpec(command="a", not_before_ms=START_MS + 1) for _ in range(ENQUEUE_MAX)))
        total += ENQUEUE_MAX
    driver.pass_ms(1)
    assert driver.apply().next_due_ms == START_MS + 1
    left = driver.queue().delayed
    assert driver.is_step(total - left, EXPIRE_MAX)
    while left:
        assert driver.expire().news.ready == {DEFAULT}
        before, left = left, driver.queue().delayed
        assert driver.is_step(before - left, min(before, EXPIRE_MAX))
    assert driver.apply().next_due_ms is None


def pauses_grow_to_a_bound_and_differ_between_jobs_and_attempts(driver: Driver) -> None:
    policy = RetryPolicy(limit=9, backoff_ms=1_000_000, backoff_max_ms=4_000_000)
    driver.enqueue(*[JobSpec(command="a", retry=policy)] * 4)
    pauses_ms: set[int] = set()
    for most_ms in (1_000_000, 2_000_000, 4_000_000, 4_000_000):
        for lease in driver.lease(slots=4):
            driver.complete(lease, exit_code=7)
            pauses_ms.add((driver.job(lease.job_id).due_ms or 0) - driver.now_ms)
            assert most_ms // 2 <= max(pauses_ms) <= most_ms
        driver.pass_ms(most_ms)
    assert len(pauses_ms) > 13


def only_what_its_policy_names_and_nobody_ended_is_run_again(driver: Driver) -> None:
    policy = RetryPolicy(limit=9, backoff_ms=0, on=RetryOn(exit_codes=(7,), signals=(15,)))
    for result, state in (
        (Result(exit_code=7, reason=Reason.EXIT_CODE), JobState.SCHEDULED),
        (Result(signal=15, reason=Reason.SIGNAL), JobState.SCHEDULED),
        (Result(exit_code=8, reason=Reason.EXIT_CODE), JobState.FAILED),
        (Result(exit_code=143, reason=Reason.EXIT_CODE), JobState.SCHEDULED),
        (Result(exit_code=7, reason=Reason.TIMEOUT), JobState.FAILED),
        (Result(signal=15, reason=Reason.TIMEOUT), JobState.FAILED),
    ):
        (job_id,) = driver.enqueue(JobSpec(command="a", retry=policy))
        assert driver.complete(driver.lease_one(), result=result) is state, result
        driver.cancel(job_id)


def lost_agents_are_retried_if_the_policy_names_them(driver: Driver) -> None:
    """Each retry has `max_attempts` agents again, however their leases end."""
    on = RetryOn(reasons=("agent-lost",))
    (job_id,) = driver.enqueue(JobSpec(command="a", max_attempts=2, retry=RetryPolicy(limit=2, backoff_ms=0, on=on)))
    (other,) = driver.enqueue(JobSpec(command="b", queue="other", max_attempts=1, retry=RetryPolicy(limit=2)))
    driver.lease_one("other")
    for lost in range(6):
        assert driver.job(job_id).retries == lost // 2
        if lost % 2:
            driver.reply(JobReleasedReply, ReleaseJob(lease=driver.lease_one().ref, lost=True))
        else:
            driver.lease_one()
            driver.pass_ms(VISIBILITY_MS)
    assert driver.job(job_id).result == driver.job(other).result == Result(reason=Reason.AGENT_LOST)


def a_job_that_no_agent_begins_in_time_expires(driver: Driver) -> None:
    """Whatever keeps it waiting; one that was leased in time runs, and waits after a release as long as it takes."""
    expires = Expiry(after_ms=1_000)
    (begun,) = driver.enqueue(JobSpec(command="a", expires=expires))
    lease = driver.lease_one()
    driver.reply(QueueUpdated, UpdateQueue(queue="paused", mode=QueueMode.PAUSED))
    late = driver.enqueue(
        JobSpec(command="b", queue="unserved", expires=Expiry(at_ms=driver.now_ms + 1_000)),
        JobSpec(command="b", queue="paused", expires=expires),
        JobSpec(command="b", not_before_ms=driver.now_ms + 500, expires=expires),
        JobSpec(command="b", queue="delayed", not_before_ms=driver.now_ms + 9_000, expires=expires),
    )
    assert driver.apply().next_due_ms == driver.now_ms + 500
    driver.pass_ms(999)
    assert {driver.state(job_id) for job_id in late} == {JobState.SCHEDULED}
    driver.now_ms += 1
    assert driver.lease() == (), "the last moment has passed, although the Timekeeper is not awake yet"
    driver.renew_all()
    driver.expire()
    for job_id in late:
        assert driver.job(job_id).result == Result(reason=Reason.EXPIRED)
        assert driver.log(job_id)[-1].body == JobFinished(
            timestamp_ms=driver.now_ms, state=JobState.FAILED, reason=Reason.EXPIRED
        )
    driver.reply(JobReleasedReply, release(lease))
    driver.pass_ms(1_000)
    assert driver.lease_one().job_id == begun
    (again,) = driver.reply(JobsEnqueued, RetryJob(job_id=late[0])).job_ids
    assert driver.job(again).spec.expires is None, "its instant has passed"


def jobs_behind_expired_ones_are_leased(driver: Driver) -> None:
    specs = [JobSpec(command="a", expires=Expiry(after_ms=1_000), priority=1)] * 3
    *_, job_id = driver.enqueue(*specs, JobSpec(command="b"))
    driver.now_ms += 1_000
    waiting, expire = driver.ask(driver.dequeue()), Expire()
    first, _, third = (done.reply for done in driver.apply(waiting, expire, driver.ask(driver.dequeue())).done)
    assert isinstance(third, JobsLeased)
    assert (first, [lease.job_id for lease in third.leases]) == (JobsLeased(leases=()), [job_id])


def a_clock_that_was_set_back_makes_nobody_wait_longer(driver: Driver) -> None:
    """A restart gives each lease and each pause of a retry its full length again, and no more."""
    driver.enqueue(JobSpec(command="a", retry=RetryPolicy(limit=1, backoff_ms=2_000)))
    driver.complete(driver.lease_one(), exit_code=1)
    pause_ms = (driver.apply().next_due_ms or 0) - driver.now_ms
    driver.started()
    driver.now_ms -= 50 * VISIBILITY_MS
    assert driver.renew_all().next_due_ms == driver.now_ms + pause_ms
    assert driver.pass_ms(pause_ms).news.ready == {DEFAULT}
    assert driver.apply().next_due_ms == driver.now_ms - pause_ms + VISIBILITY_MS


def a_late_copy_of_a_mode_undoes_no_newer_one(driver: Driver) -> None:
    paused = UpdateQueue(queue="default", mode=QueueMode.PAUSED)
    driver.reply(QueueUpdated, paused, request_id=ID)
    driver.set_mode(QueueMode.DRAINING)
    assert driver.reply(QueueUpdated, paused, request_id=ID).mode is QueueMode.PAUSED
    assert driver.queue().mode is QueueMode.DRAINING
    driver.refused("conflict", UpdateQueue(queue="default", mode=QueueMode.OPEN), request_id=ID)


def an_agent_is_leased_its_jobs_however_many_wait_before_them(driver: Driver) -> None:
    needing = [JobSpec(command="n", require={"os": "linux"}, priority=9)] * ENQUEUE_MAX
    driver.enqueue(*needing)
    free = driver.submit()
    assert [lease.job_id for lease in driver.lease(slots=9)] == list(free)


def a_queue_holds_so_many_different_needs_and_no_more(driver: Driver) -> None:
    """A lease looks at each."""
    for first in range(0, NEEDS_MAX, 64):
        driver.enqueue(*(JobSpec(command="n", require={"n": f"{first + n}"}) for n in range(64)))
    driver.refused("bad-request", EnqueueJob(jobs=(JobSpec(command="n", require={"n": "more"}),)))
    driver.enqueue(JobSpec(command="n", require={"n": "7"}), JobSpec(command="free"))
    driver.enqueue(JobSpec(command="n", require={"n": "more"}, queue="other"))
    driver.enqueue(JobSpec(command="n", require={"n": "more"}), tenant="other")


def a_tenants_queues_hold_so_many_different_needs_together_and_no_more(driver: Driver) -> None:
    """A lease may look at each in all of them, and those that run may come back; what has ended makes room."""
    for queue in range(TENANT_NEEDS_MAX // 64):
        driver.enqueue(*(JobSpec(command="n", queue=f"q{queue}", require={"n": f"{n}"}) for n in range(64)))
    (lease,) = driver.reply(JobsLeased, driver.dequeue("q0", tags={"n": "0"})).leases
    more = EnqueueJob(jobs=(JobSpec(command="n", queue="more", require={"n": "0"}),))
    driver.refused("bad-request", more)
    driver.reply(JobsEnqueued, more, tenant="other")
    driver.enqueue(JobSpec(command="n", queue="q1", require={"n": "0"}), JobSpec(command="free", queue="more"))
    driver.reply(object, release(lease))
    driver.refused("bad-request", more)
    (lease,) = driver.reply(JobsLeased, driver.dequeue("q0", tags={"n": "0"})).leases
    assert driver.complete(lease) is JobState.COMPLETED
    driver.reply(JobsEnqueued, more)
    driver.refused("bad-request", EnqueueJob(jobs=(JobSpec(command="n", queue="more", require={"n": "1"}),)))


def a_size_reaches_the_attempt_that_runs_and_no_later_one(driver: Driver) -> None:
    (job_id,) = driver.submit()
    sizes = [TerminalSize(cols=cols) for cols in (120, 90)]
    resize, again = (SendInput(job_id=job_id, resize=size) for size in sizes)
    assert driver.outcome(resize).reply == InputSent(state=JobState.SCHEDULED)
    leases = [driver.lease_one()]
    for request in (resize, again, again):
        outcome = driver.outcome(request)
        assert (outcome.reply, outcome.news.nudged) == (InputSent(state=JobState.RUNNING), [job_id])
    for size in (sizes[1], None):
        update = UpdateJob(leases=(leases[-1].ref,), visibility_ms=VISIBILITY_MS)
        assert driver.reply(JobsUpdated, update).leases[0].terminal == size
        driver.reply(JobReleasedReply, release(leases[-1]))
        leases.append(driver.lease_one())


def the_same_request_and_seed_are_granted_to_each_its_own(driver: Driver) -> None:
    """And a repeat gives the other's lease no time."""
    (theirs,) = driver.submit(tenant="other")
    request = driver.dequeue()
    granted = driver.reply(JobsLeased, request, tenant="other", request_id=ID)
    assert driver.reply(JobsLeased, request, request_id=ID) == JobsLeased(), "nothing of ours waits"
    (ours,) = driver.submit()
    driver.now_ms += VISIBILITY_MS // 2
    for _ in range(2):
        leased = driver.reply(JobsLeased, request, request_id=ID)
        assert [lease.job_id for lease in leased.leases] == [ours]
    assert [lease.job_id for lease in granted.leases] == [theirs]
    driver.pass_ms(VISIBILITY_MS // 2)
    assert driver.job(theirs, tenant="other").state is JobState.SCHEDULED, "its time is over"
    assert driver.state(ours) is JobState.RUNNING
