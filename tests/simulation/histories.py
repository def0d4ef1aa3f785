"""Histories for the oracle's own tests: good ones with something that only looks wrong, and for each law bad ones.

Most are one job's, told by `Tale.play` in the order of happening; the rest mutate a good job's life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from airunner.protocol.events import JobFinished, JobReleased, Output, Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.replies import Verdict
from tests.simulation.history import (
    Acknowledged,
    Invoked,
    LeftWaiting,
    Monitored,
    Observed,
    Piled,
    ProcessStarted,
    RefusedReply,
)
from tests.simulation.tags import LINUX, WITHOUT
from tests.simulation.tale import LOST_ONCE, RETRIED, VISIBILITY_MS, WALL_MS, Tale

Telling = Callable[[Tale], None]
HOURS_MS: Final = 3_600_000
LATE_MS: Final = WALL_MS + 60_000
LATER: Final = JobSpec(command="true", not_before_ms=LATE_MS)


def played(words: str, spec: JobSpec | None = None) -> Telling:
    def telling(tale: Tale) -> None:
        tale.play(words, spec)

    return telling


# --- good ---------------------------------------------------------------------------------------------


def a_job_runs(tale: Tale) -> None:
    job = tale.whole()
    tale.follow(job)
    tale.follow(job, from_sequence=4, monitor="resumed")
    tale.add(Observed(at_ms=0, machine="client", job=tale.job(job)))


def the_reply_to_a_submit_is_lost(tale: Tale) -> None:
    job = tale.submit(told=False)
    tale.lease(job)
    tale.work(job)
    lost = {"request_id": b"never arrived 16", "kind": "enqueue", "jobs": (JobSpec(command="x"),)}
    tale.add(Invoked(at_ms=0, machine="client", **lost))


def an_agent_is_lost(tale: Tale) -> None:
    job = tale.play("lease")
    pid = tale.run(job, b"one two", b"one")
    tale.renew(job)
    tale.die(pid, signal=9)
    tale.expire(job)
    tale.lease(job, "agent-2")
    tale.work(job)


def a_job_comes_back_and_keeps_its_place(tale: Tale) -> None:
    first, second = tale.submit(), tale.submit()
    tale.lease(first)
    tale.lease(second, "agent-2")
    tale.release(first)
    tale.lease(first)
    for job in (first, second):
        tale.work(job)


def a_command_is_retried(tale: Tale) -> None:
    job = tale.play("lease run exit:1 waits", RETRIED)
    tale.completed(job, JobState.SCHEDULED, attempt=1)
    tale.act(job, "lease run exit:1 finish:1")
    tale.completed(job, JobState.SCHEDULED, attempt=1)


def waiting_and_running_jobs_are_cancelled(tale: Tale) -> None:
    tale.cancel(tale.submit())
    running = tale.play("lease run cancel again:1")
    tale.renew(running, Verdict.CANCEL)
    tale.die(tale.pid, signal=15)
    tale.log(running, JobFinished(timestamp_ms=0, state=JobState.CANCELLED, reason=Reason.CANCELLED))
    tale.completed(running, JobState.CANCELLED)
    tale.asked_to_cancel(running, JobState.CANCELLED)
    tale.asked_to_cancel(tale.whole(), JobState.COMPLETED)


def a_clock_is_set_back_under_a_delayed_job(tale: Tale) -> None:
    job = tale.submit(LATER)
    tale.restart(HOURS_MS)
    tale.restart(-2 * HOURS_MS)
    tale.act(job, "lease work")


def better_jobs_go_first(tale: Tale) -> None:
    low = tale.submit(JobSpec(command="low", priority=-1))
    later = tale.submit(JobSpec(command="later", not_before_ms=LATE_MS, priority=9))
    high = tale.submit(JobSpec(command="high", priority=1))
    tale.lease(high)
    tale.lease(low, "agent-2")
    tale.wait(60_000)
    tale.lease(later)
    for job in (high, low, later):
        tale.work(job)


def a_clock_is_set_back_to_the_end(tale: Tale) -> None:
    job = tale.submit(LATER)
    tale.restart(-HOURS_MS)
    tale.shown[job] = replace(tale.job(job), due_ms=LATE_MS)
    tale.wait(120_000)


def a_queue_is_paused_and_opened(tale: Tale) -> None:
    job = tale.submit()
    tale.set_queue("paused")
    tale.wait(5_000)
    tale.set_queue("open", told=False)
    tale.act(job, "lease work")
    tale.set_queue("paused")  # nobody knows whether the opening arrives only now
    tale.whole()


GOOD: Final[dict[str, Telling]] = {
    "a job runs": a_job_runs,
    "the reply to a submit is lost": the_reply_to_a_submit_is_lost,
    "a grant is repeated": played("lease again:1 work completed"),
    "an agent is lost": an_agent_is_lost,
    "the last agent is lost": played("lease expire lost", LOST_ONCE),
    "a job comes back and keeps its place": a_job_comes_back_and_keeps_its_place,
    "a command is retried": a_command_is_retried,
    "an ended job is retried": lambda tale: tale.act(tale.retry(tale.whole()), "lease work"),
    "waiting and running jobs are cancelled": waiting_and_running_jobs_are_cancelled,
    "a clock is set back under a delayed job": a_clock_is_set_back_under_a_delayed_job,
    "a broker restarts under a lease": played(f"lease wait:{VISIBILITY_MS // 2} restart:{HOURS_MS} expire lease work"),
    "better jobs go first": better_jobs_go_first,
    "a clock is set back to the end": a_clock_is_set_back_to_the_end,
    "a queue is paused and opened": a_queue_is_paused_and_opened,
}

# --- bad ----------------------------------------------------------------------------------------------


def a_repeat_is_told_another_id(tale: Tale) -> None:
    tale.whole()
    told = tale.records[2]
    assert isinstance(told, Acknowledged)
    tale.add(replace(told, job_ids=("job-2",)))


def only_one_of_two_is_acknowledged(tale: Tale) -> None:
    request_id = tale.request_id()
    specs = JobSpec(command="one"), JobSpec(command="other")
    tale.add(Invoked(at_ms=0, machine="client", request_id=request_id, kind="enqueue", jobs=specs))
    tale.acknowledged(request_id, "enqueue", tale.whole())


def twice(tale: Tale, job: str, other: str) -> None:
    tale.logs[other] = [replace(event, job_id=other) for event in tale.logs[job]]
    tale.specs[other] = tale.specs[job]


def a_process_is_nobodys(tale: Tale, job: str, attempt: int) -> None:
    tale.add(ProcessStarted(at_ms=0, machine="agent-1", pid=7, job_id=job, attempt=attempt))
    tale.die(7, 0)


def a_process_runs_before_its_lease(tale: Tale) -> None:
    job = tale.submit()
    tale.add(ProcessStarted(at_ms=0, machine="agent-1", pid=7, job_id=job, attempt=1))
    tale.lease(job)
    tale.die(7, 0)
    tale.finish(job)


def a_job_finishes_twice(tale: Tale) -> None:
    tale.log(tale.whole(), JobFinished(timestamp_ms=0, state=JobState.FAILED, exit_code=1, reason=Reason.EXIT_CODE))


def a_job_ends_without_a_word(tale: Tale) -> None:
    job = tale.whole()
    tale.shown[job] = tale.job(job)
    del tale.logs[job][-1]


def a_cancel_is_forgotten(tale: Tale) -> None:
    job = tale.play("lease")
    tale.asked_to_cancel(job, JobState.RUNNING)
    tale.work(job)


def a_job_is_cancelled_by_nobody(tale: Tale) -> None:
    tale.cancel(tale.submit())
    tale.records = [record for record in tale.records if getattr(record, "kind", "") != "cancel"]


def a_due_job_waits_for_ever(tale: Tale) -> None:
    job = tale.submit(LATER)
    tale.shown[job] = replace(tale.job(job), due_ms=LATE_MS)
    tale.wait(180_000)


def two_processes_overlap(tale: Tale) -> None:
    job = tale.play("lease run expire lease")
    first, second = tale.pid, tale.run(job)
    tale.die(first, signal=9)
    tale.exit(job, second)
    tale.finish(job)


def a_release_is_gone(tale: Tale) -> None:
    job = tale.play("lease release")
    del tale.logs[job][-1]
    tale.work(job)


def a_delay_is_forgotten(tale: Tale) -> None:
    job = tale.submit(LATER)
    tale.logs[job].clear()
    tale.scheduled(job)
    tale.act(job, "wait:60000 lease work")


def the_second_of_a_batch_goes_first(tale: Tale) -> None:
    tale.submit(JobSpec(command="first"), JobSpec(command="second"))
    tale.lease("job-2")
    tale.lease("job-1")


def the_second_goes_first(tale: Tale, *specs: JobSpec) -> None:
    first, second = (tale.submit(spec) for spec in specs)
    tale.act(second, "lease work")
    tale.act(first, "lease work")


def a_paused_queue_leases(tale: Tale) -> None:
    tale.set_queue("paused")
    tale.whole()


def a_log_has_a_hole(tale: Tale) -> None:
    job = tale.whole()
    tale.shown[job] = tale.job(job)
    del tale.logs[job][3]


def shown_otherwise(tale: Tale, **fields: int) -> None:
    job = tale.whole()
    tale.shown[job] = replace(tale.job(job), **fields)


def followed(tale: Tale, until: int | None = None) -> str:
    job = tale.whole()
    tale.follow(job, until=until)
    return job


def an_event_changes(tale: Tale) -> None:
    events = tale.logs[followed(tale)]
    events[3] = replace(events[3], body=Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"other\n"))


def a_shown_event_is_gone(tale: Tale) -> None:
    del tale.logs[followed(tale)][-1]


def a_job_goes_back(tale: Tale) -> None:
    tale.add(Observed(at_ms=0, machine="client", job=replace(tale.job(tale.whole()), last_sequence=99)))


def a_monitor_misses_one(tale: Tale) -> None:
    job = followed(tale, until=2)
    event = tale.logs[job][3]
    tale.add(Monitored(at_ms=0, monitor="monitor", job_id=job, from_sequence=1, event=event))


def a_monitor_is_shown_more_than_all(tale: Tale) -> None:
    job = followed(tale)
    beyond = replace(tale.logs[job][-1], sequence=len(tale.logs[job]) + 1)
    tale.add(Monitored(at_ms=0, monitor="monitor", job_id=job, from_sequence=1, event=beyond))


def a_monitor_resumes_too_early(tale: Tale) -> None:
    job = tale.whole()
    tale.add(Monitored(at_ms=0, monitor="monitor", job_id=job, from_sequence=4, event=tale.logs[job][2]))


def a_monitor_ends_before_the_end(tale: Tale) -> None:
    job = tale.submit()
    tale.follow(job)
    tale.act(job, "lease work")


def a_byte_is_missing(tale: Tale) -> None:
    job = tale.play("lease")
    tale.exit(job, tale.run(job, b"hello\n", b"hello"))
    tale.finish(job)


def a_refusal_is_counted(tale: Tale) -> None:
    job = tale.play("lease")
    tale.log(job, JobReleased(timestamp_ms=0, lost=True))
    tale.act(job, "lease work")


def a_refusal_ends_a_job(tale: Tale) -> None:
    job = tale.play("lease", JobSpec(command="script", args=("{}",)))
    ended = JobFinished(timestamp_ms=0, state=JobState.FAILED, exit_code=126, reason=Reason.COMMAND_NOT_FOUND)
    tale.log(job, ended)


def a_renewal_is_refused(tale: Tale) -> None:
    tale.play("lease")
    refused = {"machine": "agent-1", "request_id": tale.request_id(), "kind": "UpdateJob", "code": "no-space"}
    tale.add(RefusedReply(at_ms=0, asked_at_ms=0, **refused))


def piled(waiting_bytes: int, message_bytes: int) -> Telling:
    record = Piled(at_ms=0, machine="monitor", waiting_bytes=waiting_bytes, message_bytes=message_bytes)
    return lambda tale: tale.add(record)


BAD: Final[dict[str, dict[str, Telling]]] = {
    "acknowledged_jobs_survive": {
        "an acknowledged job is gone": lambda tale: tale.logs.pop(tale.whole()) and None,
        "a repeat is told another id": a_repeat_is_told_another_id,
        "a log cannot be read": lambda tale: tale.unread.add(tale.whole()),
        "only one of two is acknowledged": only_one_of_two_is_acknowledged,
        "another job stands under the id": lambda tale: tale.specs.update({tale.whole(): JobSpec(command="rm")}),
    },
    "nothing_runs_that_nobody_submitted": {
        "a job is there twice": lambda tale: twice(tale, tale.whole(JobSpec(command="once")), "job-2"),
        "what does not exist runs": lambda tale: a_process_is_nobodys(tale, "nobody's", 1),
        "a retry is there twice": lambda tale: twice(tale, tale.retry(tale.whole()), "job-3"),
        "a retry is of something else": lambda tale: tale.specs.update(
            {tale.retry(tale.whole()): JobSpec(command="rm")}
        ),
    },
    "a_job_ends_once": {
        "a job finishes twice": a_job_finishes_twice,
        "two are told different ends": lambda tale: tale.completed(tale.whole(), JobState.FAILED),
        "another attempt finishes it": played("lease expire lease work completed:1"),
        "a job ends without a word": a_job_ends_without_a_word,
    },
    "a_cancel_is_final": {
        "a cancelled job is leased again": played("lease cancel release lease work"),
        "a cancel is forgotten": a_cancel_is_forgotten,
        "a job is cancelled by nobody": a_job_is_cancelled_by_nobody,
        "a cancelled job waits on": lambda tale: tale.asked_to_cancel(tale.submit(), JobState.SCHEDULED),
        "a cancelled job is retried": played("lease cancel run exit:1 waits", RETRIED),
    },
    "everything_ends": {
        "a job waits for ever": played(""),
        "a due job waits for ever": a_due_job_waits_for_ever,
        "a process is left behind": played("lease run finish"),
    },
    "everybody_gets_through": {
        "a monitor starves": lambda tale: tale.add(LeftWaiting(at_ms=0, machine="monitor", job_id=tale.whole())),
        "a client is never answered": lambda tale: tale.add(LeftWaiting(at_ms=0, machine="client")),
    },
    "one_live_lease_for_each_job": {
        "an attempt is granted to two": lambda tale: tale.granted(tale.whole(), 1, tale.request_id(), "agent-2"),
        "two processes overlap": two_processes_overlap,
        "a command is run twice": played("lease run die work"),
    },
    "attempts_only_rise": {
        "an old attempt is granted again": played("lease expire lease again:1 work"),
        "an old attempt is kept": played("lease expire lease renew:1 work"),
        "an attempt is left out": played("lease:2 work"),
    },
    "what_the_broker_said_stands": {
        "a grant was not committed": lambda tale: tale.granted(tale.whole(), 2, tale.request_id()),
        "acknowledged events are gone": played("lease run exit stored:4 finish"),
        "a completion is gone": played("lease completed expire lease work"),
        "a release is gone": a_release_is_gone,
    },
    "no_lease_is_given_away_early": {
        "a lease expires early": played(f"lease expire:{VISIBILITY_MS - 1_000} lease work"),
        "a renewed lease expires early": played(f"lease wait:{VISIBILITY_MS - 1_000} renew expire:1000 lease work"),
        "a restart takes a lease away": played(f"lease wait:{VISIBILITY_MS} restart:0 expire:1000 lease work"),
    },
    "nothing_outlives_its_lease": {
        "a process outlives its lease": played("lease run expire kill lease work"),
        "a process runs before its lease": a_process_runs_before_its_lease,
        "a process runs without a lease": lambda tale: a_process_is_nobodys(tale, tale.whole(), 2),
    },
    "lost_agents_are_counted": {
        "too many agents are lost": played("lease expire lease work", LOST_ONCE),
        "a job fails before its agents are lost": played("lease expire lost"),
        "a job goes on after its last agent": played("lease expire lease expire", LOST_ONCE),
    },
    "what_was_not_begun_is_not_counted": {
        "a refusal is counted": a_refusal_is_counted,
        "a refusal ends a job": a_refusal_ends_a_job,
    },
    "what_ends_or_keeps_is_always_stored": {"a renewal is refused": a_renewal_is_refused},
    "delayed_jobs_are_never_early": {
        "a delayed job is early": played("lease work", LATER),
        "a delay is forgotten": a_delay_is_forgotten,
    },
    "retries_keep_to_their_policy": {
        "a command is retried too often": played("lease run exit:1 waits lease run exit:1 finish:1"),
        "a retry is forgotten": played("lease run exit:1 finish:1", RETRIED),
        "a retry does not pause": played(
            "lease run exit:1 waits", replace(RETRIED, retry=RetryPolicy(limit=1, backoff_ms=1_000))
        ),
    },
    "priority_and_then_submission_order_are_kept": {
        "a later job goes first": lambda tale: the_second_goes_first(
            tale, JobSpec(command="one"), JobSpec(command="two")
        ),
        "a lesser job goes first": lambda tale: the_second_goes_first(
            tale, JobSpec(command="high", priority=1), JobSpec(command="low")
        ),
        "the second of a batch goes first": the_second_of_a_batch_goes_first,
    },
    "agents_have_what_their_jobs_require": {
        "an agent without the tags leases": lambda tale: (
            tale.lease(tale.submit(JobSpec(command="true", require=LINUX)), agent=WITHOUT) and None
        ),
    },
    "a_paused_queue_leases_nothing": {"a paused queue leases": a_paused_queue_leases},
    "sequences_are_dense": {
        "a log has a hole": a_log_has_a_hole,
        "a log's end is missing": lambda tale: shown_otherwise(tale, last_sequence=99),
    },
    "events_never_change": {
        "an event changes": an_event_changes,
        "a job goes back": a_job_goes_back,
        "a shown event is gone": a_shown_event_is_gone,
    },
    "a_monitor_sees_a_prefix": {
        "a monitor misses one": a_monitor_misses_one,
        "a monitor resumes too early": a_monitor_resumes_too_early,
        "a monitor ends before the end": a_monitor_ends_before_the_end,
        "a monitor is shown more than all": a_monitor_is_shown_more_than_all,
    },
    "only_the_holder_writes": {
        "an old attempt writes": played("lease expire lease beat:1 work"),
        "nobody writes": played("lease release beat lease work"),
    },
    "completed_means_a_complete_log": {
        "a byte is missing": a_byte_is_missing,
        "the end is missing": played("lease run die finish"),
        "a failure is called a success": played("lease run exit:1 finish"),
        "nothing ran": played("lease finish"),
    },
    "nothing_is_logged_that_was_not_written": {
        "output comes twice": played("lease run output kill expire lease work"),
        "output comes behind the end": played("lease silent exit output finish"),
    },
    "a_job_is_the_fold_of_its_events": {
        "a job shows something else": lambda tale: shown_otherwise(tale, started_ms=1),
        "a waiting job expires": played("expire:0 lease work"),
    },
    "what_waits_for_a_reader_is_bounded": {
        "a reader is sent long messages": piled(65_536, 65_536),
        "too much waits for a reader": piled(100_000_000, 100),
    },
}
