"""The laws of jobs that wait for others: none starts before what it waits for, none is forgotten, each follows once."""

from __future__ import annotations

from itertools import product

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Expire, FollowEnd, RenewAll
from airunner.broker.lifecycle.dependencies import AGAIN_MS, NEAR_MAX, STEP_MAX
from airunner.protocol.dependencies import DEPENDENTS_MAX, Ending
from airunner.protocol.expiry import Expiry
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobsEnqueued, JobsLeased
from airunner.protocol.requests import ENQUEUE_MAX, EnqueueJob, RetryJob
from tests.conformance.driving import START_MS, Driver


def a_job_starts_once_all_that_it_waits_for_have_ended(driver: Driver) -> None:
    first, second = driver.submit("a", "b")
    after = _after(driver, first, second)
    job = driver.job(after)
    assert (job.state, job.unmet) == (JobState.BLOCKED, 2)
    counts = driver.queue()
    assert (counts.waiting, counts.delayed) == (3, 1)
    leases = driver.lease(slots=9)
    assert [lease.job_id for lease in leases] == [first, second]
    driver.now_ms += 5
    driver.complete(leases[0])
    driver.follow()
    assert driver.job(after).unmet == 1
    assert driver.lease() == ()
    driver.complete(leases[1])
    driver.follow()
    job = driver.job(after)
    assert (job.state, job.unmet, job.unblocked_ms) == (JobState.SCHEDULED, 0, START_MS + 5)
    driver.now_ms += 7
    assert driver.lease_one().job_id == after
    assert driver.job(after).waited_ms == 7
    assert driver.kinds(after) == ["JOB_SCHEDULED", "JOB_UNBLOCKED", "JOB_LEASED"]


def jobs_are_leased_in_the_batch_that_unblocks_them(driver: Driver) -> None:
    awaited = driver.submit(*map(str, range(NEAR_MAX + 1)))
    (first,) = driver.submit()
    (followed,) = driver.enqueue(JobSpec(command="b", after=(f"{first}:any",)))
    (attached,) = driver.enqueue(JobSpec(command="c", after=tuple(f"{job_id}:any" for job_id in awaited)))
    (attach,), driver.follow_ups = driver.follow_ups, []
    for job_id in awaited:
        driver.cancel(job_id)
        driver.follow()
    driver.cancel(first)
    *_, leased = driver.apply(*driver.follow_ups, attach, driver.ask(driver.dequeue(slots=2))).done
    assert isinstance(leased.reply, JobsLeased)
    assert {lease.job_id for lease in leased.reply.leases} == {followed, attached}


def a_job_after_ended_ones_starts_or_is_skipped_at_once(driver: Driver) -> None:
    (ended,) = driver.ended()
    starts, skipped = driver.enqueue(
        JobSpec(command="b", after=(ended,)), JobSpec(command="c", after=(f"{ended}:failure",))
    )
    assert (driver.state(starts), driver.state(skipped)) == (JobState.SCHEDULED, JobState.SKIPPED)
    assert driver.kinds(starts) == ["JOB_SCHEDULED"]
    assert driver.follow_ups == []


def a_clock_that_is_set_back_delays_no_follow_up(driver: Driver) -> None:
    awaited = driver.submit(*map(str, range(NEAR_MAX + 1)))
    driver.enqueue(JobSpec(command="b", after=awaited))
    driver.cancel(awaited[0])
    lost, driver.follow_ups = driver.follow_ups, []
    driver.now_ms -= 100 * AGAIN_MS
    driver.apply(RenewAll())
    driver.now_ms += AGAIN_MS
    driver.apply(Expire())
    assert {(type(made), made.job_id) for made in driver.follow_ups} == {(type(made), made.job_id) for made in lost}


def so_many_jobs_wait_for_one_and_no_more(driver: Driver) -> None:
    (first,) = driver.submit()
    jobs = EnqueueJob(jobs=(JobSpec(command="b", after=(first,)),) * ENQUEUE_MAX)
    for _ in range(DEPENDENTS_MAX // ENQUEUE_MAX):
        driver.reply(JobsEnqueued, jobs)
    assert "as many jobs as may" in driver.refused("bad-request", jobs).message
    driver.cancel(first)
    driver.follow()
    assert driver.queue().waiting == 0


def how_a_job_has_to_end_decides_whether_the_next_one_runs(driver: Driver) -> None:
    ends = {
        JobState.COMPLETED: {Ending.SUCCESS, Ending.ANY},
        JobState.FAILED: {Ending.FAILURE, Ending.ANY},
        JobState.CANCELLED: {Ending.ANY},
        JobState.SKIPPED: {Ending.ANY},
    }
    for late, (state, met) in product((False, True), ends.items()):
        job_id = _blocked(driver) if state is JobState.SKIPPED else driver.submit()[0]
        dependents = {} if late else _each(driver, job_id)
        _end(driver, job_id, state)
        dependents = dependents or _each(driver, job_id)
        driver.follow()
        for ending, dependent in dependents.items():
            assert driver.state(dependent) is (JobState.SCHEDULED if ending in met else JobState.SKIPPED)
        assert driver.follow_ups == []
        leases = driver.lease(slots=9)
        assert {lease.job_id for lease in leases} == {dependents[ending] for ending in met}
        for lease in leases:
            driver.complete(lease)


def those_that_wait_for_a_skipped_job_are_skipped_too(driver: Driver) -> None:
    first = driver.submit()[0]
    second = _after(driver, first)
    third = _after(driver, second)
    always = _after(driver, f"{third}:any")
    driver.complete(driver.lease_one(), exit_code=1)
    driver.follow()
    for skipped in (second, third):
        job = driver.job(skipped)
        assert (job.state, job.result) == (JobState.SKIPPED, Result(reason=Reason.SKIPPED))
        assert driver.kinds(skipped) == ["JOB_SCHEDULED", "JOB_FINISHED"]
    assert driver.lease_one().job_id == always


def an_end_that_was_not_followed_is_followed_after_a_while_and_once(driver: Driver) -> None:
    first, other = driver.submit("a", "b")
    after = _after(driver, first, other)
    driver.complete(driver.lease_one())
    lost, driver.follow_ups = driver.follow_ups, []
    assert [follow.job_id for follow in lost] == [first]
    assert driver.sweep(finished_before_ms=driver.now_ms + 1) == 1
    assert driver.state(first) is JobState.COMPLETED, "it is not removed before its dependents know"
    driver.now_ms += AGAIN_MS - 1
    driver.apply(Expire())
    assert driver.follow_ups == []
    driver.now_ms += 1
    driver.apply(Expire())
    assert driver.follow_ups == lost
    driver.follow()
    assert driver.job(after).unmet == 1
    driver.apply(*lost, *lost)
    assert driver.job(after).unmet == 1
    driver.now_ms += 10 * AGAIN_MS
    assert driver.apply(Expire()).next_due_ms is None
    assert driver.follow_ups == []


def a_job_that_was_not_attached_is_attached_after_a_while_and_once(driver: Driver) -> None:
    awaited = driver.submit(*map(str, range(NEAR_MAX + 2)))
    (after,) = driver.enqueue(JobSpec(command="c", after=tuple(f"{job_id}:any" for job_id in awaited)))
    lost, driver.follow_ups = driver.follow_ups, []
    driver.cancel(awaited[-1])
    driver.now_ms += AGAIN_MS
    driver.apply(Expire())
    assert driver.follow_ups == lost
    driver.follow()
    driver.apply(*lost, *lost)
    assert (driver.job(after).unmet, driver.follow_ups) == (NEAR_MAX + 1, [])


def a_job_waits_for_many_in_steps(driver: Driver) -> None:
    count = STEP_MAX + 3
    awaited = driver.submit(*map(str, range(count)))
    for lease in driver.lease(slots=2):
        driver.complete(lease)
    after = _after(driver, *awaited)
    assert driver.job(after).unmet == count - 2
    for lease in driver.lease(slots=count):
        assert driver.state(after) is JobState.BLOCKED
        driver.complete(lease)
        driver.follow()
    assert driver.lease_one().job_id == after


def many_dependents_follow_in_steps_each_once(driver: Driver) -> None:
    (first,) = driver.submit()
    count = STEP_MAX + 3
    jobs = tuple(JobSpec(command=f"{number}", after=(first,)) for number in range(count))
    after = driver.enqueue(*jobs)
    driver.follow()
    driver.complete(driver.lease_one())
    (follow,) = driver.follow_ups
    assert follow.dependents == after[:STEP_MAX]
    driver.follow()
    assert {driver.job(job_id).unmet for job_id in after} == {0}
    assert [lease.job_id for lease in driver.lease(slots=count)] == list(after)


def a_retry_is_no_end(driver: Driver) -> None:
    policy = RetryPolicy(limit=1, backoff_ms=0)
    (first,) = driver.enqueue(JobSpec(command="a", retry=policy))
    after = _after(driver, first)
    driver.complete(driver.lease_one(), exit_code=1)
    assert driver.follow_ups == []
    driver.complete(driver.lease_one())
    driver.follow()
    assert driver.state(after) is JobState.SCHEDULED


def a_blocked_job_is_cancelled_or_expires_and_then_follows_nothing(driver: Driver) -> None:
    (first,) = driver.submit()
    cancelled = _after(driver, first)
    (expiring,) = driver.enqueue(JobSpec(command="c", after=(first,), expires=Expiry(after_ms=5)))
    driver.follow()
    assert driver.cancel(cancelled) is JobState.CANCELLED
    driver.now_ms += 5
    driver.apply(Expire())
    assert driver.job(expiring).result == Result(reason=Reason.EXPIRED)
    driver.complete(driver.lease_one())
    driver.follow()
    assert [driver.state(job_id) for job_id in (cancelled, expiring)] == [JobState.CANCELLED, JobState.FAILED]
    assert driver.kinds(cancelled) == ["JOB_SCHEDULED", "JOB_CANCEL_REQUESTED", "JOB_FINISHED"]


def a_job_that_is_blocked_and_delayed_waits_for_both(driver: Driver) -> None:
    for first_comes_first in (True, False):
        (first,) = driver.submit()
        (after,) = driver.enqueue(JobSpec(command="b", after=(first,), not_before_ms=driver.now_ms + 50))
        driver.follow()
        lease = driver.lease_one()
        steps = [lambda lease=lease: driver.complete(lease), lambda: _pass(driver, 50)]
        for step in steps if first_comes_first else reversed(steps):
            assert driver.lease() == ()
            step()
            driver.follow()
        assert driver.lease_one().job_id == after


def only_jobs_that_its_sender_may_see_are_waited_for(driver: Driver) -> None:
    (first,) = driver.submit(queue="other")
    spec = JobSpec(command="b", after=(first,))
    for asked in ({"tenant": "another"}, {"queues": frozenset({"default"})}):
        refused = driver.refused("bad-request", EnqueueJob(jobs=(spec,)), **asked)
        assert refused.message == f"after: there is no job {first}; give the id of a job"
    driver.refused("bad-request", EnqueueJob(jobs=(replace(spec, after=("absent",)),)))
    assert driver.job(first).unmet == 0
    driver.complete(driver.lease_one("other"))
    assert driver.follow_ups == [], "a refused job does not wait"


def a_retry_of_a_skipped_job_waits_for_nothing(driver: Driver) -> None:
    skipped = _blocked(driver)
    _end(driver, skipped, JobState.SKIPPED)
    (again,) = driver.reply(JobsEnqueued, RetryJob(job_id=skipped)).job_ids
    assert driver.state(again) is JobState.SCHEDULED


def a_follow_up_of_a_job_that_has_not_ended_changes_nothing(driver: Driver) -> None:
    (first,) = driver.submit()
    after = _after(driver, first)
    driver.apply(
        FollowEnd(tenant="home", job_id=first, dependents=(after,)),
        FollowEnd(tenant="home", job_id=JobId("absent"), dependents=(after,)),
    )
    assert driver.job(after).unmet == 1


def _after(driver: Driver, *dependencies: str) -> JobId:
    (job_id,) = driver.enqueue(JobSpec(command="after", after=dependencies))
    driver.follow()
    return job_id


def _each(driver: Driver, job_id: str) -> dict[Ending, JobId]:
    return {ending: _after(driver, f"{job_id}:{ending}") for ending in Ending}


def _blocked(driver: Driver) -> JobId:
    """Submit a job that waits for one of another queue."""
    return _after(driver, driver.submit(queue="before")[0])


def _end(driver: Driver, job_id: JobId, state: JobState) -> None:
    if state is JobState.CANCELLED:
        driver.cancel(job_id)
    elif state is JobState.SKIPPED:
        driver.complete(driver.lease_one("before"), exit_code=1)
        driver.follow()
    else:
        driver.complete(driver.lease_one(), exit_code=int(state is JobState.FAILED))
    assert driver.state(job_id) is state


def _pass(driver: Driver, duration_ms: int) -> None:
    driver.now_ms += duration_ms
    driver.apply(Expire())
