"""What a log comes to: the job's state, written down a second time and from the events alone.

`fold` walks the events of one job as DESIGN has them follow each other. What cannot follow stands in `wrongs`
and the walk goes on, so that one fault is told once and not again with every event after it.
"""

from __future__ import annotations

from msgspec import Struct, field

from airunner.protocol.events import (
    Event,
    JobCancelRequested,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    JobUnblocked,
    UnknownBody,
)
from airunner.protocol.job import JobState, Result


class Stretch(Struct):
    """A time of the job in which it waited, or was leased: from one event to another, or without an end."""

    attempt: int
    begin: Event
    end: Event | None = None


class Folded(Struct):
    """What a walk over the events has come to."""

    state: JobState | None = None
    attempt: int = 0
    retries: int = 0
    lost: int = 0
    agent: str | None = None
    submitted_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    cancel_requested_ms: int | None = None
    origin: str | None = None
    result: Result | None = None
    waits: list[Stretch] = field(default_factory=list)
    leases: list[Stretch] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)

    def lease(self, attempt: int) -> Stretch | None:
        """The lease with this number."""
        return next((lease for lease in self.leases if lease.attempt == attempt), None)


def fold(events: tuple[Event, ...]) -> Folded:
    """Walk over all of them."""
    folded = Folded()
    for event in events:
        _step(folded, event)
    return folded


def _step(folded: Folded, event: Event) -> None:
    expected = folded.attempt
    match event.body:
        case JobScheduled() as body:
            _schedule(folded, event, body)
        case JobUnblocked():
            _require(folded, event, JobState.BLOCKED)
            _wait(folded, event)
        case JobLeased(agent=agent, timestamp_ms=now_ms):
            expected += 1
            _require(folded, event, JobState.SCHEDULED)
            folded.state, folded.attempt, folded.agent = JobState.RUNNING, event.attempt, agent
            folded.started_ms = now_ms if folded.started_ms is None else folded.started_ms
            _end(folded.waits, event)
            folded.leases.append(Stretch(event.attempt, event))
        case JobReleased(lost=lost):
            _require(folded, event, JobState.RUNNING)
            folded.lost += lost
            _wait(folded, event)
        case JobExpired():
            _require(folded, event, JobState.RUNNING)
            folded.lost += 1
            _wait(folded, event)
        case JobCancelRequested(timestamp_ms=now_ms):
            _require(folded, event, JobState.BLOCKED, JobState.SCHEDULED, JobState.RUNNING)
            if folded.cancel_requested_ms is not None:
                folded.wrongs.append(f"event {event.sequence}: cancelled twice")
            folded.cancel_requested_ms = now_ms
        case JobFinished() as body:
            _require(folded, event, JobState.BLOCKED, JobState.SCHEDULED, JobState.RUNNING)
            folded.state, folded.finished_ms = body.state, body.timestamp_ms
            folded.result = Result(exit_code=body.exit_code, signal=body.signal, reason=body.reason)
            _end(folded.waits, event)
            _end(folded.leases, event)
        case UnknownBody(kind=kind):
            folded.wrongs.append(f"event {event.sequence} is {kind}, which nobody here writes")
        case _:
            _require(folded, event, JobState.RUNNING)
    if event.attempt != expected:
        folded.wrongs.append(
            f"event {event.sequence} {event.kind} is of attempt {event.attempt}, and it was {expected}'s turn"
        )


def _schedule(folded: Folded, event: Event, body: JobScheduled) -> None:
    if folded.state is None:
        folded.submitted_ms, folded.origin = body.timestamp_ms, body.origin
    else:
        _require(folded, event, JobState.RUNNING)
        folded.retries += 1
    if body.retry != folded.retries:
        folded.wrongs.append(f"event {event.sequence}: retry {body.retry} where {folded.retries} is due")
    if body.unmet:
        folded.state = JobState.BLOCKED
    else:
        _wait(folded, event)


def _wait(folded: Folded, event: Event) -> None:
    _end(folded.leases, event)
    folded.state = JobState.SCHEDULED
    folded.waits.append(Stretch(event.attempt, event))


def _end(stretches: list[Stretch], event: Event) -> None:
    if stretches and stretches[-1].end is None:
        stretches[-1].end = event


def _require(folded: Folded, event: Event, *states: JobState) -> None:
    if folded.state not in states:
        folded.wrongs.append(f"event {event.sequence}: {event.kind} of a job that is {folded.state}")
