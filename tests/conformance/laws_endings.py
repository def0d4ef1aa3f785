"""The laws of how attempts and jobs end, by completion, release, expiry and cancel, that every Store keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from airunner.broker.store.contract import QueueKey
from airunner.protocol.fields import MAX_ATTEMPTS_DEFAULT, JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import (
    JobCancelled,
    JobCompleted,
    JobEventsPublished,
    JobFound,
    JobReleasedReply,
    Refused,
    Verdict,
)
from airunner.protocol.requests import CancelJob, GetJob, PublishJobEvents, ReleaseJob
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, batch, completion, release, replaced

DEFAULT = frozenset({QueueKey("home", "default")})
CANCELLED = Result(reason=Reason.CANCELLED)


def _never_leased_again(driver: Driver, job_id: str) -> None:
    """Whatever happens from here on."""
    driver.resume()
    driver.pass_ms(1_000 * VISIBILITY_MS)
    assert job_id not in {lease.job_id for lease in driver.lease(slots=16)}
    log = driver.log(job_id)
    asked = [event.kind for event in log].index("JOB_CANCEL_REQUESTED")
    assert "JOB_LEASED" not in [event.kind for event in log[asked:]]
    assert log[-1].kind == "JOB_FINISHED"


def agents_lost_too_often_fail_the_job(driver: Driver) -> None:
    (job_id,) = driver.submit()
    for _ in range(MAX_ATTEMPTS_DEFAULT):
        driver.lease_one()
        driver.now_ms += VISIBILITY_MS
        outcome = driver.expire()
    assert outcome.ready == frozenset()
    job = driver.reply(JobFound, GetJob(job_id=job_id)).job
    assert (job.state, job.result) == (JobState.FAILED, Result(reason=Reason.AGENT_LOST))
    assert job.finished_ms == driver.now_ms
    assert driver.kinds(job_id)[-2:] == ["JOB_EXPIRED", "JOB_FINISHED"]
    assert driver.lease() == ()


def a_released_job_waits_in_its_old_place(driver: Driver) -> None:
    first, second = driver.submit("a", "b")
    lease = driver.lease_one()
    release = ReleaseJob(lease=lease.ref)
    driver.refused("stale-token", replaced(release, task_token=bytes(32)))
    driver.refused("not-found", release, tenant="other")
    outcome = driver.outcome(release)
    assert outcome.reply == JobReleasedReply()
    assert outcome.ready == {QueueKey("home", "default")}
    assert driver.outcome(release).appended == ()
    assert driver.reply(JobReleasedReply, release)
    driver.refused("stale-token", completion(lease))
    assert [one.job_id for one in driver.lease(slots=2)] == [first, second]
    driver.refused("stale-token", release)
    assert driver.kinds(first) == ["JOB_SCHEDULED", "JOB_LEASED", "JOB_RELEASED", "JOB_LEASED"]


def a_job_ends_once(driver: Driver) -> None:
    (job_id,) = driver.submit()
    lease = driver.lease_one()
    driver.now_ms += 5
    driver.refused("not-found", completion(lease), tenant="other")
    driver.refused("stale-token", replaced(completion(lease), task_token=bytes(32)))
    driver.refused("stale-token", replaced(completion(lease), attempt=2))
    assert driver.reply(JobCompleted, completion(lease, exit_code=7)).state is JobState.FAILED
    again = driver.outcome(completion(lease))
    assert again.reply == JobCompleted(state=JobState.FAILED)
    assert again.appended == ()
    driver.refused("stale-token", ReleaseJob(lease=lease.ref))
    job = driver.reply(JobFound, GetJob(job_id=job_id)).job
    assert (job.state, job.result) == (JobState.FAILED, Result(exit_code=7))
    assert (job.started_ms, job.finished_ms, job.agent) == (START_MS, START_MS + 5, "agent")
    assert driver.kinds(job_id) == ["JOB_SCHEDULED", "JOB_LEASED", "JOB_FINISHED"]
    driver.now_ms += 10 * VISIBILITY_MS
    assert driver.expire().appended == ()


def a_late_completion_is_refused(driver: Driver) -> None:
    (job_id,) = driver.submit()
    stale = driver.lease_one()
    driver.now_ms += VISIBILITY_MS
    driver.expire()
    driver.refused("stale-token", completion(stale))
    fresh = driver.lease_one()
    driver.refused("stale-token", completion(stale))
    driver.refused("stale-token", replaced(completion(stale), attempt=fresh.attempt))
    request = PublishJobEvents(batches=(batch(stale, 0, "late"),), completions=(completion(stale, 1),))
    (refused,) = driver.reply(JobEventsPublished, request).completions
    assert isinstance(refused, Refused)
    assert refused.code == "stale-token"
    assert driver.state(job_id) is JobState.RUNNING
    assert driver.reply(JobCompleted, completion(fresh)).state is JobState.COMPLETED
    driver.refused("stale-token", completion(stale))


def max_attempts_says_how_often_an_agent_may_be_lost(driver: Driver) -> None:
    once, often = driver.enqueue(JobSpec(command="a", max_attempts=1), JobSpec(command="b", max_attempts=5))
    assert len(driver.lease(slots=2)) == 2
    assert driver.pass_ms(VISIBILITY_MS).ready == DEFAULT
    assert (driver.state(once), driver.state(often)) == (JobState.FAILED, JobState.SCHEDULED)
    for _ in range(4):
        assert driver.lease_one().job_id == often
        driver.pass_ms(VISIBILITY_MS)
    assert driver.job(often).result == Result(reason=Reason.AGENT_LOST)
    assert driver.job(often).attempt == 5


def what_is_given_back_is_not_lost(driver: Driver) -> None:
    (job_id,) = driver.enqueue(JobSpec(command="a", max_attempts=1))
    for _ in range(5):
        driver.reply(JobReleasedReply, release(driver.lease_one()))
    driver.lease_one()
    driver.pass_ms(VISIBILITY_MS)
    assert driver.state(job_id) is JobState.FAILED


def a_waiting_job_is_cancelled_at_once(driver: Driver) -> None:
    first, second = driver.submit("a", "b")
    driver.now_ms += 7
    outcome = driver.outcome(CancelJob(job_id=first))
    assert (outcome.reply, outcome.nudged) == (JobCancelled(state=JobState.CANCELLED), ())
    assert outcome.ready == frozenset()
    job = driver.job(first)
    assert (job.state, job.result, job.finished_ms) == (JobState.CANCELLED, CANCELLED, driver.now_ms)
    assert (job.cancel_requested_ms, job.attempt) == (driver.now_ms, 0)
    (appended,) = outcome.appended
    assert (appended.segment.first_sequence, appended.segment.count) == (2, 2)
    assert driver.kinds(first) == ["JOB_SCHEDULED", "JOB_CANCEL_REQUESTED", "JOB_FINISHED"]
    assert [lease.job_id for lease in driver.lease(slots=2)] == [second]
    _never_leased_again(driver, first)


def a_delayed_job_is_cancelled_at_once_and_falls_due_no_more(driver: Driver) -> None:
    (job_id,) = driver.enqueue(JobSpec(command="a", not_before_ms=START_MS + 50))
    assert driver.cancel(job_id) is JobState.CANCELLED
    assert driver.apply().next_due_ms is None
    assert driver.job(job_id).due_ms is None
    assert driver.pass_ms(50).ready == frozenset()
    _never_leased_again(driver, job_id)


def the_holder_of_a_cancelled_job_is_told_and_keeps_it_until_it_says_so(driver: Driver) -> None:
    (job_id,) = driver.submit()
    lease = driver.lease_one()
    assert driver.verdict(lease) is Verdict.KEPT
    driver.now_ms += 5
    outcome = driver.outcome(CancelJob(job_id=job_id))
    assert (outcome.reply, outcome.nudged) == (JobCancelled(state=JobState.RUNNING), (job_id,))
    assert driver.job(job_id).cancel_requested_ms == driver.now_ms
    driver.now_ms += VISIBILITY_MS - 6
    assert driver.verdict(lease) is Verdict.CANCEL
    assert driver.pass_ms(VISIBILITY_MS - 1).appended == ()
    driver.reply(JobEventsPublished, PublishJobEvents(batches=(batch(lease, 0, "ended"),)))
    assert driver.reply(JobCompleted, completion(lease, 1, result=CANCELLED)).state is JobState.CANCELLED
    assert driver.kinds(job_id)[2:] == ["JOB_CANCEL_REQUESTED", "OUTPUT", "JOB_FINISHED"]
    assert driver.job(job_id).result == CANCELLED
    assert driver.verdict(lease) is Verdict.LOST
    assert driver.reply(JobCompleted, completion(lease, 1)).state is JobState.CANCELLED
    _never_leased_again(driver, job_id)


def a_cancel_asked_again_changes_nothing_and_nudges_who_has_not_heard(driver: Driver) -> None:
    running, waiting = driver.submit("a", "b")
    lease = driver.lease_one()
    for job_id in (running, waiting):
        driver.cancel(job_id)
    before = [(driver.job(job_id), driver.log(job_id)) for job_id in (running, waiting)]
    driver.now_ms += 10
    again = driver.outcome(CancelJob(job_id=running))
    assert (again.reply, again.appended, again.nudged) == (JobCancelled(state=JobState.RUNNING), (), (running,))
    again = driver.outcome(CancelJob(job_id=waiting))
    assert (again.reply, again.appended, again.nudged) == (JobCancelled(state=JobState.CANCELLED), (), ())
    assert [(driver.job(job_id), driver.log(job_id)) for job_id in (running, waiting)] == before
    assert driver.verdict(lease) is Verdict.CANCEL


def a_cancel_after_the_end_changes_nothing_and_says_how_it_ended(driver: Driver) -> None:
    (done,) = driver.ended("a")
    (failed,) = driver.ended("b", exit_code=3)
    for job_id, state in ((done, JobState.COMPLETED), (failed, JobState.FAILED)):
        before = driver.job(job_id)
        outcome = driver.outcome(CancelJob(job_id=job_id))
        assert outcome.reply == JobCancelled(state=state)
        assert (outcome.appended, outcome.nudged, driver.job(job_id)) == ((), (), before)


def a_cancel_of_what_is_not_there_or_anothers_is_refused(driver: Driver) -> None:
    (job_id,) = driver.submit()
    driver.refused("not-found", CancelJob(job_id="absent"))
    driver.refused("not-found", CancelJob(job_id=job_id), tenant="other")
    assert driver.lease_one().job_id == job_id
    driver.refused("not-found", CancelJob(job_id=job_id), tenant="other")
    assert driver.job(job_id).cancel_requested_ms is None


def a_cancelled_job_that_is_released_has_ended(driver: Driver) -> None:
    (job_id,) = driver.submit()
    lease = driver.lease_one()
    driver.cancel(job_id)
    outcome = driver.outcome(release(lease))
    assert (outcome.reply, outcome.ready) == (JobReleasedReply(), frozenset())
    assert (driver.state(job_id), driver.job(job_id).result) == (JobState.CANCELLED, CANCELLED)
    assert driver.kinds(job_id)[2:] == ["JOB_CANCEL_REQUESTED", "JOB_RELEASED", "JOB_FINISHED"]
    again = driver.outcome(release(lease))
    assert (again.reply, again.appended) == (JobReleasedReply(), ())
    driver.refused("stale-token", completion(lease))
    _never_leased_again(driver, job_id)


def a_cancelled_job_whose_agent_is_lost_has_ended(driver: Driver) -> None:
    (job_id,) = driver.submit()
    lease = driver.lease_one()
    driver.cancel(job_id)
    outcome = driver.pass_ms(VISIBILITY_MS)
    assert outcome.ready == frozenset()
    assert (driver.state(job_id), driver.job(job_id).result) == (JobState.CANCELLED, CANCELLED)
    assert driver.kinds(job_id)[2:] == ["JOB_CANCEL_REQUESTED", "JOB_EXPIRED", "JOB_FINISHED"]
    driver.refused("stale-token", completion(lease))
    _never_leased_again(driver, job_id)


def a_job_that_ended_before_its_agent_heard_of_the_cancel_ended_as_it_did(driver: Driver) -> None:
    for exit_code, state in ((0, JobState.COMPLETED), (4, JobState.FAILED)):
        (job_id,) = driver.submit()
        lease = driver.lease_one()
        driver.cancel(job_id)
        assert driver.complete(lease, exit_code=exit_code) is state
        assert driver.cancel(job_id) is state
        _never_leased_again(driver, job_id)


def a_cancel_leaves_the_fence_where_it_was(driver: Driver) -> None:
    (job_id,) = driver.submit()
    stale = driver.lease_one()
    driver.pass_ms(VISIBILITY_MS)
    fresh = driver.lease_one()
    driver.cancel(job_id)
    assert driver.verdict(stale) is Verdict.LOST
    driver.refused("stale-token", completion(stale, result=CANCELLED))
    driver.refused("stale-token", release(stale))
    driver.reply(object, PublishJobEvents(batches=(batch(fresh, 0, "more"),)))
    assert driver.state(job_id) is JobState.RUNNING
    assert driver.kinds(job_id)[-1] == "OUTPUT"


def a_released_job_that_is_then_cancelled_repeats_its_release(driver: Driver) -> None:
    (job_id,) = driver.submit()
    lease = driver.lease_one()
    driver.reply(JobReleasedReply, release(lease))
    assert driver.cancel(job_id) is JobState.CANCELLED
    again = driver.outcome(release(lease))
    assert (again.reply, again.appended) == (JobReleasedReply(), ())
    driver.refused("stale-token", completion(lease))


LAWS: Final[tuple[Callable[[Driver], None], ...]] = (
    agents_lost_too_often_fail_the_job,
    a_released_job_waits_in_its_old_place,
    a_job_ends_once,
    a_late_completion_is_refused,
    max_attempts_says_how_often_an_agent_may_be_lost,
    what_is_given_back_is_not_lost,
    a_waiting_job_is_cancelled_at_once,
    a_delayed_job_is_cancelled_at_once_and_falls_due_no_more,
    the_holder_of_a_cancelled_job_is_told_and_keeps_it_until_it_says_so,
    a_cancel_asked_again_changes_nothing_and_nudges_who_has_not_heard,
    a_cancel_after_the_end_changes_nothing_and_says_how_it_ended,
    a_cancel_of_what_is_not_there_or_anothers_is_refused,
    a_cancelled_job_that_is_released_has_ended,
    a_cancelled_job_whose_agent_is_lost_has_ended,
    a_job_that_ended_before_its_agent_heard_of_the_cancel_ended_as_it_did,
    a_cancel_leaves_the_fence_where_it_was,
    a_released_job_that_is_then_cancelled_repeats_its_release,
)
