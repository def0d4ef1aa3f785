"""Histories in which no law is broken, each with something that only looks so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from airunner.protocol.events import JobFinished
from airunner.protocol.job import JobSpec, JobState, Reason
from airunner.protocol.messages import Verdict
from tests.simulation.history import Invoked, Observed
from tests.simulation.tale import LOST_ONCE, RETRIED, VISIBILITY_MS, WALL_MS, Tale

Telling = Callable[[Tale], None]
HOURS_MS: Final = 3_600_000
LATE_MS: Final = WALL_MS + 60_000


def a_job_runs(tale: Tale) -> None:
    job = tale.whole()
    tale.follow(job)
    tale.follow(job, from_sequence=4, monitor="resumed")
    tale.add(Observed(at_ms=0, machine="client", job=tale.job(job)))


def the_reply_to_a_submit_is_lost(tale: Tale) -> None:
    job = tale.submit(told=False)
    tale.lease(job)
    tale.work(job)
    tale.add(
        Invoked(at_ms=0, machine="client", request_id=b"never arrived 16", kind="enqueue", jobs=(JobSpec(command="x"),))
    )


def a_grant_is_repeated(tale: Tale) -> None:
    job = tale.submit()
    request_id = tale.lease(job)
    tale.granted(job, 1, request_id)
    tale.work(job)
    tale.completed(job, JobState.COMPLETED)


def an_agent_is_lost(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    pid = tale.run(job, b"one two", b"one")
    tale.renew(job)
    tale.die(pid, signal=9)
    tale.expire(job)
    tale.lease(job, "agent-2")
    tale.work(job)


def the_last_agent_is_lost(tale: Tale) -> None:
    job = tale.submit(LOST_ONCE)
    tale.lease(job)
    tale.expire(job)
    tale.log(job, JobFinished(timestamp_ms=0, state=JobState.FAILED, reason=Reason.AGENT_LOST))


def a_job_comes_back_and_keeps_its_place(tale: Tale) -> None:
    first, second = tale.submit(), tale.submit()
    tale.lease(first)
    tale.lease(second, "agent-2")
    tale.release(first)
    tale.lease(first)
    for job in (first, second):
        tale.work(job)


def a_command_is_retried(tale: Tale) -> None:
    job = tale.submit(RETRIED)
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.scheduled(job, retry=1)
    tale.completed(job, JobState.SCHEDULED, attempt=1)
    tale.lease(job)
    tale.exit(job, tale.run(job), 1)
    tale.finish(job, 1)
    tale.completed(job, JobState.SCHEDULED, attempt=1)


def an_ended_job_is_retried(tale: Tale) -> None:
    job = tale.retry(tale.whole())
    tale.lease(job)
    tale.work(job)


def waiting_and_running_jobs_are_cancelled(tale: Tale) -> None:
    tale.cancel(tale.submit())
    running = tale.submit()
    request_id = tale.lease(running)
    pid = tale.run(running)
    tale.cancel(running)
    tale.granted(running, 1, request_id)
    tale.renew(running, Verdict.CANCEL)
    tale.die(pid, signal=15)
    tale.log(running, JobFinished(timestamp_ms=0, state=JobState.CANCELLED, reason=Reason.CANCELLED))
    tale.completed(running, JobState.CANCELLED)
    tale.asked_to_cancel(running, JobState.CANCELLED)
    done = tale.whole()
    tale.asked_to_cancel(done, JobState.COMPLETED)


def a_clock_is_set_back_under_a_delayed_job(tale: Tale) -> None:
    job = tale.submit(JobSpec(command="true", not_before_ms=LATE_MS))
    tale.restart(HOURS_MS)
    tale.restart(-2 * HOURS_MS)
    tale.lease(job)
    tale.work(job)


def a_broker_restarts_under_a_lease(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.wait(VISIBILITY_MS // 2)
    tale.restart(HOURS_MS)
    tale.expire(job)
    tale.lease(job)
    tale.work(job)


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
    job = tale.submit(JobSpec(command="true", not_before_ms=LATE_MS))
    tale.restart(-HOURS_MS)
    tale.shown[job] = replace(tale.job(job), due_ms=LATE_MS)
    tale.wait(120_000)


def a_queue_is_paused_and_opened(tale: Tale) -> None:
    job = tale.submit()
    tale.set_queue("paused")
    tale.wait(5_000)
    tale.set_queue("open", told=False)
    tale.lease(job)
    tale.work(job)
    tale.set_queue("paused")  # nobody knows whether the opening arrives only now
    tale.whole()


GOOD: Final[list[Telling]] = [
    a_job_runs,
    the_reply_to_a_submit_is_lost,
    a_grant_is_repeated,
    an_agent_is_lost,
    the_last_agent_is_lost,
    a_job_comes_back_and_keeps_its_place,
    a_command_is_retried,
    an_ended_job_is_retried,
    waiting_and_running_jobs_are_cancelled,
    a_clock_is_set_back_under_a_delayed_job,
    a_broker_restarts_under_a_lease,
    better_jobs_go_first,
    a_clock_is_set_back_to_the_end,
    a_queue_is_paused_and_opened,
]
