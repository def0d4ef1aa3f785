"""The laws of jobs as their submitters see them: none lost, none made up, each ended once and for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from airunner.protocol.dependencies import dependency_of
from airunner.protocol.events import (
    JobCancelRequested,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    JobUnblocked,
)
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from tests.simulation.evidence import Case, Evidence, Found
from tests.simulation.history import Acknowledged, Completed, Granted, Healed, Invoked, LeftWaiting

JUST_DUE_MS: Final = 60_000  # time enough to be leased, run and completed


def acknowledged_jobs_survive(evidence: Evidence) -> Found:
    """Every job whose submitter was told its id is there in the end, as it was asked for, under that id for ever."""
    invoked = {record.request_id: record for record in evidence.history.of(Invoked)}
    told: dict[bytes, tuple[str, ...]] = {}
    for job_id in evidence.unread:
        yield job_id, "is listed, and its log could not be read"
    for record in evidence.history.of(Acknowledged):
        if record.kind not in ("enqueue", "retry"):
            continue
        if told.setdefault(record.request_id, record.job_ids) != record.job_ids:
            yield None, f"one request was told {told[record.request_id]} and then {record.job_ids}"
        yield from (
            (job_id, "was acknowledged and is gone") for job_id in record.job_ids if job_id not in _known(evidence)
        )
        asked = invoked.get(record.request_id)
        if asked is None or asked.kind != "enqueue":
            continue
        if len(asked.jobs) != len(record.job_ids):
            yield None, f"{len(asked.jobs)} jobs were asked for and {len(record.job_ids)} acknowledged"
        for spec, job_id in zip(asked.jobs, record.job_ids, strict=False):
            if job_id in evidence.cases and evidence.cases[job_id].job.spec != spec:
                yield job_id, "is not what was asked for under its id"


def nothing_runs_that_nobody_submitted(evidence: Evidence) -> Found:
    """No more jobs exist than were asked for, acknowledged or not; and only what exists is leased and runs."""
    asked: Counter[str] = Counter()
    retried: Counter[str | None] = Counter()
    for request_id, record in {record.request_id: record for record in evidence.history.of(Invoked)}.items():
        assert request_id, "every request has an id"
        asked.update(_print(spec) for spec in record.jobs)
        retried.update([record.job_id] if record.kind == "retry" else [])
    for job_id, case in evidence.cases.items():
        origin = case.job.origin
        if origin is None:
            asked[_print(case.job.spec)] -= 1
            if asked[_print(case.job.spec)] < 0:
                yield job_id, "was never asked for, or was asked for once and is there twice"
            continue
        retried[origin] -= 1
        if retried[origin] < 0:
            yield job_id, f"retries job {origin}, and nobody asked for that, or not so often"
        if origin in evidence.cases and replace(evidence.cases[origin].job.spec, after=()) != case.job.spec:
            yield job_id, f"is not what it retries, job {origin}"
    active = {**evidence.grants, **evidence.lives}
    yield from ((job_id, "was leased or ran and does not exist") for job_id in active if job_id not in _known(evidence))


def a_job_ends_once(evidence: Evidence) -> Found:
    """A terminal state is reached once, is the last of the log, never changes, and is told in one way to all."""
    for job_id, case in evidence.cases.items():
        ends = [event for event in case.events if isinstance(event.body, JobFinished)]
        if len(ends) > 1:
            yield job_id, f"finished {len(ends)} times"
        if ends and case.events[-1] is not ends[0]:
            yield job_id, f"goes on after it finished: event {case.events[-1].sequence} is {case.events[-1].kind}"
        if ends and isinstance(ends[0].body, JobFinished) and ends[0].body.state is not case.job.state:
            yield job_id, f"finished {ends[0].body.state} and is {case.job.state}"
        if not ends and case.job.state.terminal:
            yield job_id, f"is {case.job.state} and never finished"
    for job_id, state, whose in _told_terminal(evidence):
        if job_id in evidence.cases and evidence.cases[job_id].job.state is not state:
            yield job_id, f"was told {state} to {whose} and is {evidence.cases[job_id].job.state}"
    for record in evidence.history.of(Completed):
        events = evidence.cases[record.job_id].events if record.job_id in evidence.cases else ()
        if events and record.state.terminal and events[-1].attempt != record.attempt:
            yield record.job_id, f"was finished by attempt {record.attempt} and ended in {events[-1].attempt}"


def a_cancel_is_final(evidence: Evidence) -> Found:
    """Once a cancel was acknowledged the job is never leased again; one that waited is CANCELLED at once.

    A lease that was given before and is only told again is none. A job is CANCELLED only if somebody asked.
    """
    cancels = [record for record in evidence.history.of(Invoked) if record.kind == "cancel"]
    asked = {record.request_id: record.job_id for record in cancels}
    for job_id, case in evidence.cases.items():
        yield from ((job_id, what) for what in _after_cancel(case))
        if case.job.state is JobState.CANCELLED and job_id not in asked.values():
            yield job_id, "is CANCELLED, and nobody asked for it"
    leased_before: dict[str, int] = {}
    for record in evidence.history:
        if isinstance(record, Acknowledged) and record.kind == "cancel":
            told = evidence.cases.get(asked.get(record.request_id) or "")
            if told is not None:
                yield from ((told.job.id, what) for what in _told_of_cancel(told, record.state))
                leased_before.setdefault(told.job.id, _attempts_before_cancel(told))
        elif isinstance(record, Granted) and record.attempt > leased_before.get(record.job_id, record.attempt):
            yield record.job_id, f"attempt {record.attempt} was granted after its cancel was acknowledged"


def everything_ends(evidence: Evidence) -> Found:
    """After the faults have healed every job ends, and so does every process.

    Not a job that is not due yet, or has been only just, where the clock of the last broker is hours behind.
    """
    if not evidence.history.of(Healed):
        return
    now_ms = evidence.clocks.last_shown_ms
    for job_id, case in evidence.cases.items():
        due_ms = case.job.due_ms
        delayed = due_ms is not None and now_ms is not None and due_ms > now_ms - JUST_DUE_MS
        ends = [evidence.cases.get(dependency_of(text).job_id) for text in case.job.spec.after]
        blocked = case.job.state is JobState.BLOCKED and any(end and not end.job.state.terminal for end in ends)
        if not case.job.state.terminal and not delayed and not blocked:
            yield job_id, f"is {case.job.state} to the end"
    for job_id, lives in evidence.lives.items():
        yield from ((job_id, f"process {life.started.pid} runs to the end") for life in lives if life.gone is None)


def no_client_or_monitor_waits_to_the_end(evidence: Evidence) -> Found:
    """After the faults have healed every client is answered and every monitor sees the end, over a slow link too."""
    for left in evidence.history.of(LeftWaiting):
        case = evidence.cases.get(left.job_id) if left.job_id is not None else None
        if case is None or case.job.state.terminal:
            yield left.job_id, f"{left.machine} waits to the end"


def _known(evidence: Evidence) -> set[str]:
    return {*evidence.cases, *evidence.unread}


def _print(spec: JobSpec) -> str:
    """The same for equal specs: they hold maps and cannot be keys."""
    return repr(spec)


def _told_terminal(evidence: Evidence) -> Iterator[tuple[str, JobState, str]]:
    """Whoever was told that a job has ended, and how."""
    asked = {record.request_id: record.job_id for record in evidence.history.of(Invoked)}
    for record in evidence.history:
        if isinstance(record, Completed) and record.state.terminal:
            yield record.job_id, record.state, record.machine
        elif isinstance(record, Acknowledged) and record.kind == "cancel" and record.state is not None:
            job_id = asked.get(record.request_id)
            if job_id is not None and record.state.terminal:
                yield job_id, record.state, record.machine


def _told_of_cancel(case: Case, state: JobState | None) -> Iterator[str]:
    """What is wrong with an acknowledged cancel, told that the job is in `state`."""
    if state is JobState.SCHEDULED:
        yield "was cancelled, and is said to wait still"
    if state in (JobState.RUNNING, JobState.CANCELLED) and case.folded.cancel_requested_ms is None:
        yield f"was told to be {state} by a cancel, and its log knows of none"


def _after_cancel(case: Case) -> Iterator[str]:
    """What the log may not go on with once a cancel stands in it."""
    requested = waiting = False
    for event in case.events:
        body = event.body
        if waiting and requested and not (isinstance(body, JobFinished) and body.state is JobState.CANCELLED):
            yield f"was to be cancelled while it waited, and then came event {event.sequence} {event.kind}"
        elif requested and isinstance(body, JobLeased | JobScheduled):
            yield f"was to be cancelled, and then came event {event.sequence} {event.kind}"
        requested = requested or isinstance(body, JobCancelRequested)
        waiting = isinstance(body, JobScheduled | JobUnblocked | JobReleased | JobExpired) or (
            waiting and isinstance(body, JobCancelRequested)
        )


def _attempts_before_cancel(case: Case) -> int:
    attempts = 0
    for event in case.events:
        if isinstance(event.body, JobCancelRequested):
            break
        attempts = max(attempts, event.attempt)
    return attempts
