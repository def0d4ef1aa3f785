"""Histories in which a law is broken: for each law some that break it, and mostly others with it."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from airunner.protocol.events import Heartbeat, JobExpired, JobFinished, Output, Stream
from airunner.protocol.job import JobSpec, JobState, Reason
from airunner.protocol.jobretry import RetryPolicy
from tests.simulation.bad_shortages import (
    a_client_is_never_answered,
    a_monitor_starves,
    a_reader_is_sent_long_messages,
    a_refusal_ends_a_job,
    a_refusal_is_counted,
    a_renewal_is_refused,
    too_much_waits_for_a_reader,
)
from tests.simulation.good_histories import LATE_MS, Telling, a_command_is_retried
from tests.simulation.history import Acknowledged, Invoked, Monitored, Observed, ProcessStarted
from tests.simulation.tags import LINUX, WITHOUT
from tests.simulation.tale import LOST_ONCE, RETRIED, VISIBILITY_MS, Tale


def an_acknowledged_job_is_gone(tale: Tale) -> None:
    del tale.logs[tale.whole()]


def a_repeat_is_told_another_id(tale: Tale) -> None:
    tale.whole()
    told = tale.records[2]
    assert isinstance(told, Acknowledged)
    tale.add(replace(told, job_ids=("job-2",)))


def a_log_cannot_be_read(tale: Tale) -> None:
    tale.unread.add(tale.whole())


def only_one_of_two_is_acknowledged(tale: Tale) -> None:
    request_id = tale.request_id()
    specs = JobSpec(command="one"), JobSpec(command="other")
    tale.add(Invoked(at_ms=0, machine="client", request_id=request_id, kind="enqueue", jobs=specs))
    tale.acknowledged(request_id, "enqueue", tale.whole())


def another_job_stands_under_the_id(tale: Tale) -> None:
    job = tale.whole()
    tale.specs[job] = JobSpec(command="rm")


def a_job_is_there_twice(tale: Tale) -> None:
    tale.whole(JobSpec(command="once"))
    tale.logs["job-2"] = [replace(event, job_id="job-2") for event in tale.logs["job-1"]]
    tale.specs["job-2"] = tale.specs["job-1"]


def a_retry_is_there_twice(tale: Tale) -> None:
    job = tale.retry(tale.whole())
    tale.logs["job-3"] = [replace(event, job_id="job-3") for event in tale.logs[job]]
    tale.specs["job-3"] = tale.specs[job]


def a_retry_is_of_something_else(tale: Tale) -> None:
    tale.specs[tale.retry(tale.whole())] = JobSpec(command="rm")


def what_does_not_exist_runs(tale: Tale) -> None:
    tale.add(ProcessStarted(at_ms=0, machine="agent-1", pid=1, job_id="nobody's", attempt=1))
    tale.die(1, 0)


def a_job_finishes_twice(tale: Tale) -> None:
    job = tale.whole()
    tale.log(job, JobFinished(timestamp_ms=0, state=JobState.FAILED, exit_code=1, reason=Reason.EXIT_CODE))


def a_job_ends_without_a_word(tale: Tale) -> None:
    job = tale.whole()
    tale.shown[job] = tale.job(job)
    del tale.logs[job][-1]


def two_are_told_different_ends(tale: Tale) -> None:
    tale.completed(tale.whole(), JobState.FAILED)


def another_attempt_finishes_it(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.expire(job)
    tale.lease(job)
    tale.work(job)
    tale.completed(job, JobState.COMPLETED, attempt=1)


def a_cancelled_job_is_leased_again(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.cancel(job)
    tale.release(job)
    tale.lease(job)
    tale.work(job)


def a_cancel_is_forgotten(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.asked_to_cancel(job, JobState.RUNNING)
    tale.work(job)


def a_cancelled_job_waits_on(tale: Tale) -> None:
    tale.asked_to_cancel(tale.submit(), JobState.SCHEDULED)


def a_cancelled_job_is_retried(tale: Tale) -> None:
    job = tale.submit(RETRIED)
    tale.lease(job)
    tale.cancel(job)
    tale.exit(job, tale.run(job), 1)
    tale.scheduled(job, retry=1)


def a_job_is_cancelled_by_nobody(tale: Tale) -> None:
    job = tale.submit()
    tale.cancel(job)
    tale.records = [record for record in tale.records if getattr(record, "kind", "") != "cancel"]


def a_job_waits_for_ever(tale: Tale) -> None:
    tale.submit()


def a_due_job_waits_for_ever(tale: Tale) -> None:
    job = tale.submit(JobSpec(command="true", not_before_ms=LATE_MS))
    tale.shown[job] = replace(tale.job(job), due_ms=LATE_MS)
    tale.wait(180_000)


def a_process_is_left_behind(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.run(job)
    tale.finish(job)


def an_attempt_is_granted_to_two(tale: Tale) -> None:
    job = tale.whole()
    tale.granted(job, 1, tale.request_id(), "agent-2")


def two_processes_overlap(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    pid = tale.run(job)
    tale.expire(job)
    tale.lease(job)
    other = tale.run(job)
    tale.die(pid, signal=9)
    tale.exit(job, other)
    tale.finish(job)


def a_command_is_run_twice(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.die(tale.run(job), 0)
    tale.work(job)


def an_old_attempt_is_granted_again(tale: Tale) -> None:
    job = tale.submit()
    request_id = tale.lease(job)
    tale.expire(job)
    tale.lease(job)
    tale.granted(job, 1, request_id)
    tale.work(job)


def an_old_attempt_is_kept(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.expire(job)
    tale.lease(job)
    tale.renew(job, attempt=1)
    tale.work(job)


def an_attempt_is_left_out(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job, attempt=2)
    tale.work(job)


def a_grant_was_not_committed(tale: Tale) -> None:
    job = tale.whole()
    tale.granted(job, 2, tale.request_id())


def acknowledged_events_are_gone(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.exit(job, tale.run(job))
    tale.stored(job, 4)
    tale.finish(job)


def a_completion_is_gone(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.completed(job, JobState.COMPLETED)
    tale.expire(job)
    tale.lease(job)
    tale.work(job)


def a_release_is_gone(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.release(job)
    del tale.logs[job][-1]
    tale.work(job)


def a_lease_expires_early(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.expire(job, VISIBILITY_MS - 1_000)
    tale.lease(job)
    tale.work(job)


def a_renewed_lease_expires_early(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.wait(VISIBILITY_MS - 1_000)
    tale.renew(job)
    tale.expire(job, 1_000)
    tale.lease(job)
    tale.work(job)


def a_restart_takes_a_lease_away(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.wait(VISIBILITY_MS)
    tale.restart()
    tale.expire(job, 1_000)
    tale.lease(job)
    tale.work(job)


def a_process_outlives_its_lease(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    pid = tale.run(job)
    tale.expire(job)
    tale.die(pid, signal=9)
    tale.lease(job)
    tale.work(job)


def a_process_runs_before_its_lease(tale: Tale) -> None:
    job = tale.submit()
    tale.add(ProcessStarted(at_ms=0, machine="agent-1", pid=7, job_id=job, attempt=1))
    tale.lease(job)
    tale.die(7, 0)
    tale.finish(job)


def a_process_runs_without_a_lease(tale: Tale) -> None:
    job = tale.whole()
    tale.add(ProcessStarted(at_ms=0, machine="agent-1", pid=7, job_id=job, attempt=2))
    tale.die(7, 0)


def too_many_agents_are_lost(tale: Tale) -> None:
    job = tale.submit(LOST_ONCE)
    tale.lease(job)
    tale.expire(job)
    tale.lease(job)
    tale.work(job)


def a_job_goes_on_after_its_last_agent(tale: Tale) -> None:
    job = tale.submit(LOST_ONCE)
    for _ in range(2):
        tale.lease(job)
        tale.expire(job)


def a_job_fails_before_its_agents_are_lost(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.wait(VISIBILITY_MS)
    tale.log(job, JobExpired(timestamp_ms=0))
    tale.log(job, JobFinished(timestamp_ms=0, state=JobState.FAILED, reason=Reason.AGENT_LOST))


def a_delayed_job_is_early(tale: Tale) -> None:
    tale.whole(JobSpec(command="true", not_before_ms=LATE_MS))


def a_delay_is_forgotten(tale: Tale) -> None:
    job = tale.submit(JobSpec(command="true", not_before_ms=LATE_MS))
    tale.logs[job].clear()
    tale.scheduled(job)
    tale.wait(60_000)
    tale.lease(job)
    tale.work(job)


def a_command_is_retried_too_often(tale: Tale) -> None:
    a_command_is_retried(tale)
    job = tale.submit(JobSpec(command="false"))
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.scheduled(job, retry=1)
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.finish(job, 1)


def a_retry_does_not_pause(tale: Tale) -> None:
    job = tale.submit(replace(RETRIED, retry=RetryPolicy(limit=1, backoff_ms=1_000)))
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.scheduled(job, retry=1)


def a_retry_is_forgotten(tale: Tale) -> None:
    job = tale.submit(RETRIED)
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.finish(job, 1)


def a_later_job_goes_first(tale: Tale) -> None:
    first, second = tale.submit(), tale.submit()
    for job in (second, first):
        tale.lease(job)
        tale.work(job)


def the_second_of_a_batch_goes_first(tale: Tale) -> None:
    tale.submit(JobSpec(command="first"), JobSpec(command="second"))
    tale.lease("job-2")
    tale.lease("job-1")


def a_lesser_job_goes_first(tale: Tale) -> None:
    low = tale.submit(JobSpec(command="low"))
    high = tale.submit(JobSpec(command="high", priority=1))
    for job in (low, high):
        tale.lease(job)
        tale.work(job)


def an_agent_without_the_tags_leases(tale: Tale) -> None:
    job = tale.submit(JobSpec(command="true", require=LINUX))
    tale.lease(job, agent=WITHOUT)


def a_paused_queue_leases(tale: Tale) -> None:
    tale.set_queue("paused")
    tale.whole()


def a_log_has_a_hole(tale: Tale) -> None:
    job = tale.whole()
    tale.shown[job] = tale.job(job)
    del tale.logs[job][3]


def a_logs_end_is_missing(tale: Tale) -> None:
    job = tale.whole()
    tale.shown[job] = replace(tale.job(job), last_sequence=99)


def an_event_changes(tale: Tale) -> None:
    job = tale.whole()
    tale.follow(job)
    tale.logs[job][3] = replace(tale.logs[job][3], body=Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"other\n"))


def a_shown_event_is_gone(tale: Tale) -> None:
    job = tale.whole()
    tale.follow(job)
    del tale.logs[job][-1]


def a_job_goes_back(tale: Tale) -> None:
    job = tale.whole()
    tale.add(Observed(at_ms=0, machine="client", job=replace(tale.job(job), last_sequence=99)))


def a_monitor_misses_one(tale: Tale) -> None:
    job = tale.whole()
    tale.follow(job, until=2)
    event = tale.logs[job][3]
    tale.add(Monitored(at_ms=0, monitor="monitor", job_id=job, from_sequence=1, event=event))


def a_monitor_is_shown_more_than_all(tale: Tale) -> None:
    job = tale.whole()
    tale.follow(job)
    beyond = replace(tale.logs[job][-1], sequence=len(tale.logs[job]) + 1)
    tale.add(Monitored(at_ms=0, monitor="monitor", job_id=job, from_sequence=1, event=beyond))


def a_monitor_resumes_too_early(tale: Tale) -> None:
    job = tale.whole()
    event = tale.logs[job][2]
    tale.add(Monitored(at_ms=0, monitor="monitor", job_id=job, from_sequence=4, event=event))


def a_monitor_ends_before_the_end(tale: Tale) -> None:
    job = tale.submit()
    tale.follow(job)
    tale.lease(job)
    tale.work(job)


def an_old_attempt_writes(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.expire(job)
    tale.lease(job)
    tale.log(job, Heartbeat(timestamp_ms=0), attempt=1)
    tale.work(job)


def nobody_writes(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.release(job)
    tale.log(job, Heartbeat(timestamp_ms=0))
    tale.lease(job)
    tale.work(job)


def a_byte_is_missing(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.exit(job, tale.run(job, b"hello\n", b"hello"))
    tale.finish(job)


def the_end_is_missing(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.die(tale.run(job), 0)
    tale.finish(job)


def a_failure_is_called_a_success(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.finish(job, 0)


def nothing_ran(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.finish(job)


def output_comes_twice(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    pid = tale.run(job)
    tale.log(job, Output(timestamp_ms=0, stream=Stream.STDOUT, data=b"hello\n"))
    tale.die(pid, signal=9)
    tale.expire(job)
    tale.lease(job)
    tale.work(job)


def output_comes_behind_the_end(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.exit(job, tale.run(job, b"hello\n", b""))
    tale.log(job, Output(timestamp_ms=0, stream=Stream.STDOUT, data=b"hello\n"))
    tale.finish(job)


def a_job_shows_something_else(tale: Tale) -> None:
    job = tale.whole()
    tale.shown[job] = replace(tale.job(job), started_ms=1)


def a_waiting_job_expires(tale: Tale) -> None:
    job = tale.submit()
    tale.log(job, JobExpired(timestamp_ms=0))
    tale.lease(job)
    tale.work(job)


BAD: Final[dict[str, list[Telling]]] = {
    "acknowledged_jobs_survive": [
        an_acknowledged_job_is_gone,
        a_repeat_is_told_another_id,
        a_log_cannot_be_read,
        only_one_of_two_is_acknowledged,
        another_job_stands_under_the_id,
    ],
    "nothing_runs_that_nobody_submitted": [
        a_job_is_there_twice,
        what_does_not_exist_runs,
        a_retry_is_there_twice,
        a_retry_is_of_something_else,
    ],
    "a_job_ends_once": [
        a_job_finishes_twice,
        two_are_told_different_ends,
        another_attempt_finishes_it,
        a_job_ends_without_a_word,
    ],
    "a_cancel_is_final": [
        a_cancelled_job_is_leased_again,
        a_cancel_is_forgotten,
        a_job_is_cancelled_by_nobody,
        a_cancelled_job_waits_on,
        a_cancelled_job_is_retried,
    ],
    "everything_ends": [a_job_waits_for_ever, a_due_job_waits_for_ever, a_process_is_left_behind],
    "everybody_gets_through": [a_monitor_starves, a_client_is_never_answered],
    "one_live_lease_for_each_job": [an_attempt_is_granted_to_two, two_processes_overlap, a_command_is_run_twice],
    "attempts_only_rise": [an_old_attempt_is_granted_again, an_old_attempt_is_kept, an_attempt_is_left_out],
    "what_the_broker_said_stands": [
        a_grant_was_not_committed,
        acknowledged_events_are_gone,
        a_completion_is_gone,
        a_release_is_gone,
    ],
    "no_lease_is_given_away_early": [
        a_lease_expires_early,
        a_renewed_lease_expires_early,
        a_restart_takes_a_lease_away,
    ],
    "nothing_outlives_its_lease": [
        a_process_outlives_its_lease,
        a_process_runs_before_its_lease,
        a_process_runs_without_a_lease,
    ],
    "lost_agents_are_counted": [
        too_many_agents_are_lost,
        a_job_fails_before_its_agents_are_lost,
        a_job_goes_on_after_its_last_agent,
    ],
    "what_was_not_begun_is_not_counted": [a_refusal_is_counted, a_refusal_ends_a_job],
    "what_ends_or_keeps_is_always_stored": [a_renewal_is_refused],
    "delayed_jobs_are_never_early": [a_delayed_job_is_early, a_delay_is_forgotten],
    "retries_keep_to_their_policy": [a_command_is_retried_too_often, a_retry_is_forgotten, a_retry_does_not_pause],
    "priority_and_then_submission_order_are_kept": [
        a_later_job_goes_first,
        a_lesser_job_goes_first,
        the_second_of_a_batch_goes_first,
    ],
    "agents_have_what_their_jobs_require": [an_agent_without_the_tags_leases],
    "a_paused_queue_leases_nothing": [a_paused_queue_leases],
    "sequences_are_dense": [a_log_has_a_hole, a_logs_end_is_missing],
    "events_never_change": [an_event_changes, a_job_goes_back, a_shown_event_is_gone],
    "a_monitor_sees_a_prefix": [
        a_monitor_misses_one,
        a_monitor_resumes_too_early,
        a_monitor_ends_before_the_end,
        a_monitor_is_shown_more_than_all,
    ],
    "only_the_holder_writes": [an_old_attempt_writes, nobody_writes],
    "completed_means_a_complete_log": [
        a_byte_is_missing,
        the_end_is_missing,
        a_failure_is_called_a_success,
        nothing_ran,
    ],
    "nothing_is_logged_that_was_not_written": [output_comes_twice, output_comes_behind_the_end],
    "a_job_is_the_fold_of_its_events": [a_job_shows_something_else, a_waiting_job_expires],
    "what_waits_for_a_reader_is_bounded": [a_reader_is_sent_long_messages, too_much_waits_for_a_reader],
}
