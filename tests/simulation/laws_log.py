"""The laws of the event log: dense, written by its holder alone, complete, and the same for every reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from airunner.protocol.events import (
    Event,
    JobFinished,
    Output,
    OutputTruncated,
    ProcessEnd,
    ProcessStart,
    Stream,
)
from airunner.protocol.frames import LIVE_BYTES_MAX
from airunner.protocol.job import JobState, Reason
from airunner.transport.ports import EVENTS_MESSAGES_MAX
from tests.simulation.evidence import Case, Evidence, Found, Life
from tests.simulation.history import FollowEnded, Monitored, Piled

ENVELOPE_BYTES_MAX: Final = 256  # around the events of a live message: topic, seal, numbers


def sequences_are_dense(evidence: Evidence) -> Found:
    """A log counts 1, 2, 3, … without a hole, to the job's `last_sequence`."""
    for job_id, case in evidence.cases.items():
        sequences = [event.sequence for event in case.events]
        if sequences != list(range(1, case.job.last_sequence + 1)):
            yield job_id, f"has events {sequences} and last_sequence {case.job.last_sequence}"


def events_never_change(evidence: Evidence) -> Found:
    """What a monitor was ever shown under a sequence stands there in the end, to the byte."""
    logs = {job_id: {event.sequence: event for event in case.events} for job_id, case in evidence.cases.items()}
    for seen in evidence.history.of(Monitored):
        event = logs.get(seen.job_id, {}).get(seen.event.sequence)
        if seen.job_id in evidence.unread:
            continue
        if event is None:
            yield seen.job_id, f"event {seen.event.sequence} was shown to {seen.monitor} and is not there"
        elif event != seen.event:
            yield seen.job_id, f"event {seen.event.sequence} was shown to {seen.monitor} as {seen.event} and is {event}"


def a_monitor_sees_a_prefix(evidence: Evidence) -> Found:
    """A monitor that begins at n is given exactly n, n + 1, …; if it ends by itself, through JOB_FINISHED."""
    following: dict[tuple[str, str], int] = {}
    finished: set[tuple[str, str]] = set()
    for record in evidence.history:
        if isinstance(record, Monitored):
            key = record.monitor, record.job_id
            expected = following.get(key, record.from_sequence)
            if record.event.sequence != expected:
                yield record.job_id, f"{record.monitor} was given {record.event.sequence} and {expected} was due"
            if key in finished:
                yield record.job_id, f"{record.monitor} was given {record.event.sequence} behind the end"
            following[key] = record.event.sequence + 1
            finished.update([key] if isinstance(record.event.body, JobFinished) else [])
        elif isinstance(record, FollowEnded) and (record.monitor, record.job_id) not in finished:
            case = evidence.cases.get(record.job_id)
            if case is not None and record.from_sequence <= case.job.last_sequence:
                yield record.job_id, f"{record.monitor} ended and was never shown the end"


def only_the_holder_writes(evidence: Evidence) -> Found:
    """An agent's event stands between JOB_LEASED of its own attempt and the end of that lease, nowhere else."""
    for job_id, case in evidence.cases.items():
        holder: int | None = None
        for event in case.events:
            if event.kind == "JOB_LEASED":
                holder = event.attempt
            elif event.kind in ("JOB_RELEASED", "JOB_EXPIRED", "JOB_SCHEDULED", "JOB_FINISHED"):
                holder = None
            elif not event.kind.startswith("JOB_") and event.attempt != holder:
                yield job_id, f"event {event.sequence} {event.kind} is of attempt {event.attempt}, and {holder} held it"


def completed_means_a_complete_log(evidence: Evidence) -> Found:
    """Of a command that ended by itself the log has its start, every byte it wrote, its end, and then JOB_FINISHED."""
    for job_id, case in evidence.cases.items():
        ended = case.job.result
        own_end = ended is not None and ended.reason in (None, Reason.EXIT_CODE)
        if case.job.state not in (JobState.COMPLETED, JobState.FAILED) or not own_end:
            continue
        lives = [life for life in evidence.lives.get(job_id, ()) if life.started.attempt == case.job.attempt]
        if len(lives) != 1:
            yield job_id, f"is {case.job.state}, and its last attempt had {len(lives)} processes"
            continue
        yield from ((job_id, what) for what in _incomplete(case, lives[0]))


def nothing_is_logged_that_was_not_written(evidence: Evidence) -> Found:
    """In each attempt's log stands, in order, a first part of what its process wrote, between its start and end."""
    for job_id, case in evidence.cases.items():
        for lease in case.folded.leases:
            events = case.of_attempt(lease.attempt)
            kinds = [event.kind for event in events if event.kind in ("PROCESS_START", "OUTPUT", "PROCESS_END")]
            starts, ends = kinds.count("PROCESS_START"), kinds.count("PROCESS_END")
            ordered = kinds[:1] in ([], ["PROCESS_START"]) and (not ends or kinds[-1] == "PROCESS_END")
            if starts > 1 or ends > 1 or not ordered:
                yield job_id, f"attempt {lease.attempt} has its process's events as {kinds}"
            if any(isinstance(event.body, OutputTruncated) for event in events):
                continue
            lives = [life for life in evidence.lives.get(job_id, ()) if life.started.attempt == lease.attempt]
            for stream in Stream:
                logged = _logged(events, stream)
                if not any(life.written.get(stream, b"").startswith(logged) for life in lives) and logged:
                    yield job_id, f"attempt {lease.attempt} logged {len(logged)} bytes of {stream} that nobody wrote"


def a_job_is_the_fold_of_its_events(evidence: Evidence) -> Found:
    """The events follow each other as a job's life goes, and what they come to is what the broker shows of the job.

    What it used is its agent's word alone, and in no event.
    """
    for job_id, case in evidence.cases.items():
        job, folded = case.job, case.folded
        yield from ((job_id, wrong) for wrong in folded.wrongs)
        pairs = {
            "state": (job.state, folded.state),
            "attempt": (job.attempt, folded.attempt),
            "retries": (job.retries, folded.retries),
            "submitted_ms": (job.submitted_ms, folded.submitted_ms),
            "started_ms": (job.started_ms, folded.started_ms),
            "finished_ms": (job.finished_ms, folded.finished_ms),
            "cancel_requested_ms": (job.cancel_requested_ms, folded.cancel_requested_ms),
            "origin": (job.origin, folded.origin),
            "result": (job.result and replace(job.result, usage=None), folded.result),
            "agent": (job.agent or folded.agent, folded.agent),
        }
        for name, (shown, came_to) in pairs.items():
            if shown != came_to:
                yield job_id, f"shows {name} {shown!r}, and its events come to {came_to!r}"


def what_waits_for_a_reader_is_bounded(evidence: Evidence) -> Found:
    """However slowly a subscriber reads, and if it is stopped: few live messages wait for it, and each is small."""
    most_bytes = LIVE_BYTES_MAX + ENVELOPE_BYTES_MAX
    for piled in evidence.history.of(Piled):
        if piled.message_bytes > most_bytes or piled.waiting_bytes > 2 * EVENTS_MESSAGES_MAX * most_bytes:
            yield None, f"{piled.waiting_bytes} bytes waited for {piled.machine}, {piled.message_bytes} in one message"


def _incomplete(case: Case, life: Life) -> Iterator[str]:
    """What of the last attempt's process is not in its log."""
    events = [event for event in case.of_attempt(case.job.attempt) if not event.kind.startswith("JOB_")]
    starts = [event.body for event in events if isinstance(event.body, ProcessStart)]
    ends = [event.body for event in events if isinstance(event.body, ProcessEnd)]
    if [start.pid for start in starts] != [life.started.pid] or [end.pid for end in ends] != [life.started.pid]:
        yield f"its log has {len(starts)} starts and {len(ends)} ends of process {life.started.pid}"
        return
    assert case.job.result is not None, "a job that has ended by itself has a result"
    exits = {ends[0].exit_code, case.job.result.exit_code, None if life.gone is None else life.gone.exit_code}
    if len(exits) != 1:
        yield f"process, log and result do not agree how it ended: {exits}"
    if any(isinstance(event.body, OutputTruncated) for event in events):
        return
    for stream in Stream:
        logged, written = _logged(events, stream), life.written.get(stream, b"")
        if logged != written:
            yield f"wrote {len(written)} bytes to {stream}, and {len(logged)} are in its log"


def _logged(events: list[Event], stream: Stream) -> bytes:
    return b"".join(
        event.body.data for event in events if isinstance(event.body, Output) and event.body.stream is stream
    )
