"""Histories in which machines are short of something, and somebody pays for it who should not."""

from __future__ import annotations

from airunner.protocol.events import JobFinished, JobReleased
from airunner.protocol.job import JobSpec, JobState, Reason
from tests.simulation.history import LeftWaiting, Piled, RefusedReply
from tests.simulation.tale import Tale


def a_refusal_is_counted(tale: Tale) -> None:
    job = tale.submit()
    tale.lease(job)
    tale.log(job, JobReleased(timestamp_ms=0, lost=True))
    tale.lease(job)
    tale.work(job)


def a_monitor_starves(tale: Tale) -> None:
    job = tale.whole()
    tale.add(LeftWaiting(at_ms=0, machine="monitor", job_id=job))


def a_client_is_never_answered(tale: Tale) -> None:
    tale.whole()
    tale.add(LeftWaiting(at_ms=0, machine="client"))


def a_refusal_ends_a_job(tale: Tale) -> None:
    job = tale.submit(JobSpec(command="script", args=("{}",)))
    tale.lease(job)
    ended = JobFinished(timestamp_ms=0, state=JobState.FAILED, exit_code=126, reason=Reason.COMMAND_NOT_FOUND)
    tale.log(job, ended)


def a_renewal_is_refused(tale: Tale) -> None:
    tale.lease(tale.submit())
    refused = {"machine": "agent-1", "request_id": tale.request_id(), "kind": "UpdateJob", "code": "no-space"}
    tale.add(RefusedReply(at_ms=0, asked_at_ms=0, **refused))


def a_reader_is_sent_long_messages(tale: Tale) -> None:
    tale.add(Piled(at_ms=0, machine="monitor", waiting_bytes=65_536, message_bytes=65_536))


def too_much_waits_for_a_reader(tale: Tale) -> None:
    tale.add(Piled(at_ms=0, machine="monitor", waiting_bytes=100_000_000, message_bytes=100))
