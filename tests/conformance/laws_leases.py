"""The laws of submitting, leasing and ending jobs that every Store keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from airunner.broker.store.contract import QueueKey
from airunner.protocol.fields import MAX_ATTEMPTS_DEFAULT, JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.replies import (
    JobCompleted,
    JobFound,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsUpdated,
    LeaseRef,
    Refused,
    Verdict,
)
from airunner.protocol.requests import EnqueueJob, GetJob, ReleaseJob, UpdateJob
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, completion

ID = b"r" * REQUEST_ID_BYTES


def _state(driver: Driver, job_id: str) -> JobState:
    return driver.reply(JobFound, GetJob(job_id=job_id)).job.state


def _renewal(*leases: LeaseRef) -> UpdateJob:
    return UpdateJob(leases=leases, visibility_ms=VISIBILITY_MS)


def submitting_twice_under_one_id_submits_once(driver: Driver) -> None:
    request = EnqueueJob(jobs=(JobSpec(command="a"), JobSpec(command="b", queue="other")))
    first = driver.outcome(request, request_id=ID)
    assert isinstance(first.reply, JobsEnqueued)
    assert first.ready == {QueueKey("home", "default"), QueueKey("home", "other")}
    again = driver.outcome(request, request_id=ID)
    assert again.reply == first.reply
    assert (again.appended, again.ready) == ((), frozenset())
    assert len(driver.lease("default", "other", slots=9)) == 2


def another_body_under_one_id_is_a_conflict(driver: Driver) -> None:
    driver.reply(JobsEnqueued, EnqueueJob(jobs=(JobSpec(command="a"),)), request_id=ID)
    driver.refused("conflict", EnqueueJob(jobs=(JobSpec(command="b"),)), request_id=ID)
    assert [lease.spec.command for lease in driver.lease(slots=9)] == ["a"]
    driver.reply(JobsEnqueued, EnqueueJob(jobs=(JobSpec(command="b"),)), request_id=ID, tenant="other")


def one_job_too_large_refuses_all_of_its_request(driver: Driver) -> None:
    driver.refused("bad-request", EnqueueJob(jobs=(JobSpec(command="a"), JobSpec(command="b" * 70_000))))
    assert driver.lease(slots=9) == ()


def a_refused_command_does_not_disturb_its_neighbours(driver: Driver) -> None:
    good, bad = EnqueueJob(jobs=(JobSpec(command="a"),)), EnqueueJob(jobs=(JobSpec(command="b" * 70_000),))
    applied = driver.apply(driver.ask(good), driver.ask(bad), driver.ask(driver.dequeue(slots=9)))
    replies = [outcome.reply for outcome in applied.outcomes]
    assert [type(reply) for reply in replies] == [JobsEnqueued, Refused, JobsLeased]
    assert isinstance(replies[2], JobsLeased)
    assert len(replies[2].leases) == 1
    assert applied.next_due_ms == START_MS + VISIBILITY_MS


def jobs_are_leased_in_the_order_of_queues_and_submission(driver: Driver) -> None:
    first = driver.submit("a", "b")
    urgent = driver.submit("c", queue="urgent")
    assert [lease.job_id for lease in driver.lease("urgent", "default", slots=2)] == [*urgent, first[0]]
    assert [lease.job_id for lease in driver.lease("urgent", "default", slots=2)] == [first[1]]
    assert driver.lease("urgent", "default") == ()


def a_repeated_request_is_granted_the_very_same(driver: Driver) -> None:
    driver.submit("a", "b", "c")
    request = driver.dequeue(slots=2)
    first = driver.reply(JobsLeased, request, request_id=ID)
    assert driver.reply(JobsLeased, request, request_id=ID) == first
    done, held = first.leases
    driver.reply(JobCompleted, completion(done))
    assert driver.reply(JobsLeased, request, request_id=ID).leases == (held,)
    assert driver.reply(JobsUpdated, _renewal(held.ref))


def a_repeat_after_the_end_is_granted_no_other_job(driver: Driver) -> None:
    """Whoever asked was answered and has gone on: nobody would run what a late copy is given."""
    driver.submit("first", "second")
    request = driver.dequeue()
    request_id = driver.draw(16)
    (lease,) = driver.reply(JobsLeased, request, request_id=request_id).leases
    driver.reply(object, completion(lease))
    driver.refused("stale-token", request, request_id=request_id)
    assert driver.lease_one().spec.command == "second"


def a_grant_that_nobody_heard_of_may_be_granted_again(driver: Driver) -> None:
    driver.submit()
    request = driver.dequeue()
    request_id = driver.draw(16)
    (lease,) = driver.reply(JobsLeased, request, request_id=request_id).leases
    release = ReleaseJob(lease=lease.ref)
    driver.reply(JobReleasedReply, release, request_id=request_id)
    (again,) = driver.reply(JobsLeased, request, request_id=request_id).leases
    assert (again.job_id, again.attempt) == (lease.job_id, 2)


def an_agent_that_died_is_lost_though_its_successor_speaks_for_it(driver: Driver) -> None:
    (job_id,) = driver.submit()
    for _ in range(MAX_ATTEMPTS_DEFAULT):
        request = ReleaseJob(lease=driver.lease_one().ref, lost=True)
        driver.reply(JobReleasedReply, request)
        driver.reply(JobReleasedReply, request)  # said twice, counted once
    job = driver.reply(JobFound, GetJob(job_id=job_id)).job
    assert (job.state, job.result) == (JobState.FAILED, Result(reason=Reason.AGENT_LOST))
    assert driver.kinds(job_id)[-2:] == ["JOB_RELEASED", "JOB_FINISHED"]


def a_queue_is_exhausted_only_where_it_was_looked_through(driver: Driver) -> None:
    """What a repeat holds says nothing of what waits."""
    key = QueueKey("home", "default")
    driver.submit("first")
    request = driver.dequeue(slots=2)
    request_id = driver.draw(16)
    assert driver.outcome(request, request_id=request_id).exhausted == {key}
    driver.submit("second")
    assert driver.outcome(request, request_id=request_id).exhausted == frozenset()
    assert driver.outcome(driver.dequeue()).exhausted == frozenset()
    assert driver.outcome(driver.dequeue()).exhausted == {key}


def a_repeat_with_another_seed_is_a_conflict(driver: Driver) -> None:
    """Its tokens would be worth nothing."""
    driver.submit("a", "b")
    driver.reply(JobsLeased, driver.dequeue(), request_id=ID)
    driver.refused("conflict", driver.dequeue(), request_id=ID)


def a_repeated_grant_lasts_a_full_period_from_the_repeat(driver: Driver) -> None:
    """Whoever repeats a request may count from the repeat."""
    driver.submit()
    request = driver.dequeue()
    driver.reply(JobsLeased, request, request_id=ID)
    driver.now_ms += VISIBILITY_MS - 1
    driver.reply(JobsLeased, request, request_id=ID)
    driver.now_ms += VISIBILITY_MS - 1
    assert driver.expire().appended == ()


def a_heartbeat_keeps_what_is_held_and_says_what_is_lost(driver: Driver) -> None:
    driver.submit()
    mine = driver.lease_one().ref
    forged = [msgspec.structs.replace(mine, task_token=bytes(32)), msgspec.structs.replace(mine, attempt=2)]
    absent = msgspec.structs.replace(mine, job_id="absent")
    driver.now_ms += VISIBILITY_MS - 1
    reply = driver.reply(JobsUpdated, _renewal(forged[0], mine, forged[1], absent))
    assert [one.verdict for one in reply.leases] == [Verdict.LOST, Verdict.KEPT, Verdict.LOST, Verdict.LOST]
    lost = driver.reply(JobsUpdated, _renewal(mine), tenant="other").leases
    assert lost[0].verdict is Verdict.LOST
    driver.now_ms += VISIBILITY_MS - 1
    assert driver.expire().appended == ()
    driver.now_ms += 1
    assert len(driver.expire().appended) == 1
    assert driver.reply(JobsUpdated, _renewal(mine)).leases[0].verdict is Verdict.LOST


def a_heartbeat_never_shortens_a_lease(driver: Driver) -> None:
    driver.submit()
    driver.reply(JobsUpdated, UpdateJob(leases=(driver.lease_one().ref,), visibility_ms=1_000))
    assert driver.apply().next_due_ms == START_MS + VISIBILITY_MS


def a_lease_ends_when_it_is_due_and_not_before(driver: Driver) -> None:
    (job_id,) = driver.submit()
    later = driver.submit("later")
    lease = driver.lease_one()
    assert driver.apply().next_due_ms == START_MS + VISIBILITY_MS
    driver.now_ms += VISIBILITY_MS - 1
    assert driver.expire().appended == ()
    driver.now_ms += 1
    outcome = driver.expire()
    assert outcome.reply is None
    assert outcome.ready == {QueueKey("home", "default")}
    assert driver.apply().next_due_ms is None
    again, following = driver.lease(slots=2)
    assert (again.job_id, again.attempt, following.job_id) == (job_id, 2, later[0])
    assert again.task_token != lease.task_token
    assert driver.kinds(job_id) == ["JOB_SCHEDULED", "JOB_LEASED", "JOB_EXPIRED", "JOB_LEASED"]


def a_restart_gives_every_lease_a_full_period(driver: Driver) -> None:
    driver.submit()
    driver.lease_one()
    driver.now_ms += 100 * VISIBILITY_MS
    assert driver.resume().next_due_ms == driver.now_ms + VISIBILITY_MS
    assert driver.expire().appended == ()
    driver.now_ms -= 50 * VISIBILITY_MS  # the machine's time was set back: nobody waits that much longer
    assert driver.resume().next_due_ms == driver.now_ms + VISIBILITY_MS


LAWS: Final[tuple[Callable[[Driver], None], ...]] = (
    submitting_twice_under_one_id_submits_once,
    another_body_under_one_id_is_a_conflict,
    one_job_too_large_refuses_all_of_its_request,
    a_refused_command_does_not_disturb_its_neighbours,
    jobs_are_leased_in_the_order_of_queues_and_submission,
    a_repeated_request_is_granted_the_very_same,
    a_repeat_after_the_end_is_granted_no_other_job,
    a_grant_that_nobody_heard_of_may_be_granted_again,
    an_agent_that_died_is_lost_though_its_successor_speaks_for_it,
    a_queue_is_exhausted_only_where_it_was_looked_through,
    a_repeat_with_another_seed_is_a_conflict,
    a_repeated_grant_lasts_a_full_period_from_the_repeat,
    a_heartbeat_keeps_what_is_held_and_says_what_is_lost,
    a_heartbeat_never_shortens_a_lease,
    a_lease_ends_when_it_is_due_and_not_before,
    a_restart_gives_every_lease_a_full_period,
)
