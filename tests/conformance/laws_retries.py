"""The laws of running a command again, by its own policy or by hand, that every Store keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from airunner.broker.store.contract import QueueKey
from airunner.protocol.events import JobFinished, JobScheduled
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.jobretry import RetryOn, RetryPolicy
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.replies import JobCancelled, JobCompleted, JobsEnqueued
from airunner.protocol.requests import CancelJob, EnqueueJob, PublishJobEvents, RetryJob
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, batch, completion, release

ID = b"r" * REQUEST_ID_BYTES
DEFAULT = frozenset({QueueKey("home", "default")})
AT_ONCE = RetryPolicy(limit=2, backoff_ms=0)
SLOWLY = RetryPolicy(limit=9, backoff_ms=1_000, backoff_max_ms=4_000)
FAILED = Result(exit_code=7, reason=Reason.EXIT_CODE)


def _job(driver: Driver, policy: RetryPolicy | None, **more: object) -> str:
    (job_id,) = driver.enqueue(msgspec.structs.replace(JobSpec(command="a", retry=policy), **more))
    return job_id


def a_failed_command_runs_again_as_often_as_its_policy_says(driver: Driver) -> None:
    job_id = _job(driver, AT_ONCE)
    for retry in (1, 2):
        outcome = driver.outcome(completion(driver.lease_one(), result=FAILED))
        assert (outcome.reply, outcome.ready) == (JobCompleted(state=JobState.SCHEDULED), DEFAULT)
        job = driver.job(job_id)
        assert (job.state, job.retries, job.attempt) == (JobState.SCHEDULED, retry, retry)
        assert (job.result, job.finished_ms, job.due_ms) == (None, None, None)
        body = driver.log(job_id)[-1].body
        assert body == JobScheduled(timestamp_ms=driver.now_ms, queue="default", retry=retry)
    outcome = driver.outcome(completion(driver.lease_one(), result=FAILED))
    assert (outcome.reply, outcome.ready) == (JobCompleted(state=JobState.FAILED), frozenset())
    assert driver.job(job_id).result == FAILED
    once = ["JOB_SCHEDULED", "JOB_LEASED"]
    assert driver.kinds(job_id) == [*once * 3, "JOB_FINISHED"]
    assert driver.lease() == ()


def what_succeeds_or_has_no_policy_or_is_cancelled_does_not_run_again(driver: Driver) -> None:
    cancelled = Result(reason=Reason.CANCELLED)
    for policy, result in ((AT_ONCE, Result(exit_code=0)), (None, FAILED), (AT_ONCE, cancelled)):
        _job(driver, policy)
        assert driver.complete(driver.lease_one(), result=result) is result.state
        assert driver.lease() == ()


def a_cancel_beats_a_policy(driver: Driver) -> None:
    job_id = _job(driver, AT_ONCE)
    lease = driver.lease_one()
    driver.cancel(job_id)
    assert driver.complete(lease, result=FAILED) is JobState.FAILED
    assert driver.lease() == ()


def only_the_ends_that_a_policy_names_are_run_again(driver: Driver) -> None:
    policy = RetryPolicy(limit=9, backoff_ms=0, on=RetryOn(exit_codes=(7, 9), signals=(15,)))
    again, final = JobState.SCHEDULED, JobState.FAILED
    for result, state in (
        (FAILED, again),
        (Result(exit_code=9), again),
        (Result(signal=15, reason=Reason.SIGNAL), again),
        (Result(exit_code=8, reason=Reason.EXIT_CODE), final),
        (Result(signal=9, reason=Reason.SIGNAL), final),
        (Result(exit_code=7, reason=Reason.TIMEOUT), final),
        (Result(signal=15, reason=Reason.TIMEOUT), final),
        (Result(reason=Reason.CHECKOUT_FAILED), final),
        (Result(), final),
    ):
        job_id = _job(driver, policy)
        assert driver.complete(driver.lease_one(), result=result) is state, result
        driver.cancel(job_id)


def without_named_ends_every_failure_is_run_again(driver: Driver) -> None:
    for reason in (Reason.TIMEOUT, Reason.CHECKOUT_FAILED, Reason.COMMAND_NOT_FOUND, Reason.PROCESS_ERROR):
        job_id = _job(driver, AT_ONCE)
        assert driver.complete(driver.lease_one(), result=Result(reason=reason)) is JobState.SCHEDULED
        driver.cancel(job_id)


def pauses_grow_to_a_bound_and_are_waited_for(driver: Driver) -> None:
    job_id = _job(driver, SLOWLY)
    for most_ms in (1_000, 2_000, 4_000, 4_000):
        outcome = driver.outcome(completion(driver.lease_one(), result=FAILED))
        assert (outcome.reply, outcome.ready) == (JobCompleted(state=JobState.SCHEDULED), frozenset())
        due_ms = driver.job(job_id).due_ms
        assert due_ms is not None
        assert most_ms // 2 <= due_ms - driver.now_ms <= most_ms
        scheduled = driver.log(job_id)[-1].body
        assert isinstance(scheduled, JobScheduled)
        assert scheduled.not_before_ms == due_ms == driver.apply().next_due_ms
        assert driver.pass_ms(due_ms - driver.now_ms - 1).ready == frozenset()
        assert driver.lease() == ()
        assert driver.pass_ms(1).ready == DEFAULT


def pauses_differ_between_jobs_and_attempts(driver: Driver) -> None:
    policy = RetryPolicy(limit=9, backoff_ms=1_000_000, backoff_max_ms=1_000_000)
    for _ in range(4):
        _job(driver, policy)
    pauses_ms: list[int] = []
    for _ in range(3):
        for lease in driver.lease(slots=4):
            driver.complete(lease, result=FAILED)
            pauses_ms.append((driver.job(lease.job_id).due_ms or 0) - driver.now_ms)
        driver.pass_ms(1_000_000)
    assert len(set(pauses_ms)) > 10


def a_command_that_runs_again_has_its_old_place(driver: Driver) -> None:
    first = _job(driver, AT_ONCE)
    driver.submit("later")
    driver.complete(driver.lease_one(), result=FAILED)
    assert driver.lease_one().job_id == first


def a_repeat_says_what_the_first_said_until_the_next_lease(driver: Driver) -> None:
    _job(driver, AT_ONCE)
    lease = driver.lease_one()
    sent = completion(lease, 1, result=FAILED)
    driver.refused("incomplete-log", sent)
    driver.reply(object, PublishJobEvents(batches=(batch(lease, 0, "x"),)))
    driver.reply(JobCompleted, sent)
    again = driver.outcome(sent)
    assert (again.reply, again.appended, again.ready) == (JobCompleted(state=JobState.SCHEDULED), (), frozenset())
    driver.reply(object, PublishJobEvents(batches=(batch(lease, 0, "x"),)))
    driver.refused("stale-token", release(lease))
    driver.lease_one()
    driver.refused("stale-token", sent)


def a_repeat_says_what_the_first_said_after_a_cancel_too(driver: Driver) -> None:
    job_id = _job(driver, SLOWLY)
    sent = completion(driver.lease_one(), result=FAILED)
    driver.reply(JobCompleted, sent)
    assert driver.outcome(CancelJob(job_id=job_id)).reply == JobCancelled(state=JobState.CANCELLED)
    again = driver.outcome(sent)
    assert (again.reply, again.appended) == (JobCompleted(state=JobState.SCHEDULED), ())
    assert driver.apply().next_due_ms is None
    assert driver.pass_ms(10_000).ready == frozenset()
    assert driver.lease() == ()


def retries_and_lost_agents_are_counted_apart(driver: Driver) -> None:
    job_id = _job(driver, AT_ONCE, max_attempts=3)
    for what in ("lost", "failed", "lost", "failed"):
        lease = driver.lease_one()
        if what == "failed":
            assert driver.complete(lease, result=FAILED) is JobState.SCHEDULED
        else:
            driver.pass_ms(VISIBILITY_MS)
    job = driver.job(job_id)
    assert (job.state, job.attempt, job.retries) == (JobState.SCHEDULED, 4, 2)
    driver.lease_one()
    driver.pass_ms(VISIBILITY_MS)
    assert driver.job(job_id).result == Result(reason=Reason.AGENT_LOST), "a policy is not for lost agents"


def an_ended_job_runs_again_by_hand_as_another_that_names_it(driver: Driver) -> None:
    spec = JobSpec(command="a", args=("b",), queue="q", priority=3, owner="o", metadata={"k": "v"}, retry=AT_ONCE)
    (origin,) = driver.enqueue(spec)
    driver.cancel(origin)
    before = driver.job(origin)
    driver.now_ms += 5
    outcome = driver.outcome(RetryJob(job_id=origin))
    assert isinstance(outcome.reply, JobsEnqueued)
    (job_id,) = outcome.reply.job_ids
    assert outcome.ready == {QueueKey("home", "q")}
    job = driver.job(job_id)
    assert (job.state, job.spec, job.origin, job.submitted_ms) == (JobState.SCHEDULED, spec, origin, START_MS + 5)
    assert (job.attempt, job.retries, job.cancel_requested_ms) == (0, 0, None)
    (event,) = driver.log(job_id)
    assert event.body == JobScheduled(timestamp_ms=START_MS + 5, queue="q", origin=origin)
    assert driver.job(origin) == before
    assert isinstance(driver.log(origin)[-1].body, JobFinished)
    assert driver.lease_one("q").job_id == job_id


def credentials_run_again_too(driver: Driver) -> None:
    spec = JobSpec(command="true", repository="https://user:hunter2@example.org/x.git")
    driver.enqueue(spec)
    lease = driver.lease_one()
    driver.complete(lease)
    driver.reply(JobsEnqueued, RetryJob(job_id=lease.job_id))
    assert driver.lease_one().spec == spec


def a_job_is_run_again_by_hand_once_for_each_request(driver: Driver) -> None:
    done, other = driver.ended("a", "b")
    first = driver.reply(JobsEnqueued, RetryJob(job_id=done), request_id=ID)
    again = driver.outcome(RetryJob(job_id=done), request_id=ID)
    assert (again.reply, again.appended, again.ready) == (first, (), frozenset())
    driver.refused("conflict", RetryJob(job_id=other), request_id=ID)
    driver.refused("conflict", EnqueueJob(jobs=(JobSpec(command="a"),)), request_id=ID)
    second = driver.reply(JobsEnqueued, RetryJob(job_id=done))
    assert driver.job(second.job_ids[0]).origin == done
    assert len(driver.lease(slots=9)) == 2


def only_what_is_there_and_has_ended_runs_again_by_hand(driver: Driver) -> None:
    (job_id,) = driver.submit()
    driver.refused("not-finished", RetryJob(job_id=job_id))
    lease = driver.lease_one()
    driver.refused("not-finished", RetryJob(job_id=job_id))
    driver.refused("not-found", RetryJob(job_id="absent"))
    driver.complete(lease)
    driver.refused("not-found", RetryJob(job_id=job_id), tenant="other")
    assert driver.lease() == ()


LAWS: Final[tuple[Callable[[Driver], None], ...]] = (
    a_failed_command_runs_again_as_often_as_its_policy_says,
    what_succeeds_or_has_no_policy_or_is_cancelled_does_not_run_again,
    a_cancel_beats_a_policy,
    only_the_ends_that_a_policy_names_are_run_again,
    without_named_ends_every_failure_is_run_again,
    pauses_grow_to_a_bound_and_are_waited_for,
    pauses_differ_between_jobs_and_attempts,
    a_command_that_runs_again_has_its_old_place,
    a_repeat_says_what_the_first_said_until_the_next_lease,
    a_repeat_says_what_the_first_said_after_a_cancel_too,
    retries_and_lost_agents_are_counted_apart,
    an_ended_job_runs_again_by_hand_as_another_that_names_it,
    credentials_run_again_too,
    a_job_is_run_again_by_hand_once_for_each_request,
    only_what_is_there_and_has_ended_runs_again_by_hand,
)
