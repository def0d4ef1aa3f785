"""Attempts of a job are listed with agent, time and end."""

from __future__ import annotations

from airunner.client.cli.attempts import SHOWN_MAX, attempts_of
from airunner.protocol import events
from airunner.protocol.events import Event, EventBody
from airunner.protocol.job import JobState, Reason
from airunner.protocol.names import JobId


def log(*bodies: EventBody) -> list[Event]:
    """Events of a job; each lease begins an attempt."""
    attempt, made = 0, list[Event]()
    for body in bodies:
        attempt += isinstance(body, events.JobLeased)
        made.append(Event(job_id=JobId("j"), sequence=len(made) + 1, attempt=attempt, body=body))
    return made


def leased(agent: str) -> events.JobLeased:
    return events.JobLeased(timestamp_ms=1_000, agent=agent)


def test_each_end_of_an_attempt_is_said() -> None:
    submitted, again = (events.JobScheduled(timestamp_ms=3_000, queue="q", retry=retry) for retry in (0, 1))
    killed = events.ProcessEnd(timestamp_ms=2_000, pid=7, signal=9, duration_ms=1)
    failed = events.GitCloneError(timestamp_ms=2_000, message="no")
    end = events.JobFinished(timestamp_ms=4_000, state=JobState.FAILED, reason=Reason.AGENT_LOST)
    first = log(submitted, leased("a"), killed, again, leased("b"), failed, again)
    rest = log(
        *(
            leased("c"),
            events.JobReleased(timestamp_ms=1_500),
            leased("d"),
            events.JobReleased(timestamp_ms=1_500, lost=True),
        ),
        *(leased("e"), events.JobExpired(timestamp_ms=1_500), leased("f"), end, leased("g")),
    )
    at = "at 1970-01-01T00:00:01Z"
    assert attempts_of(first) == [
        f"1 on a {at} for 2.0 s: signal 9, tried again",
        f"2 on b {at} for 2.0 s: the checkout failed, tried again",
    ]
    assert attempts_of(rest) == [
        f"1 on c {at} for 500 ms: released by its agent",
        f"2 on d {at} for 500 ms: its agent was lost",
        f"3 on e {at} for 500 ms: its agent was not heard from",
        f"4 on f {at} for 3.0 s: FAILED (agent-lost)",
        f"5 on g {at}: running",
    ]
    many = log(*[leased("a"), again] * (SHOWN_MAX + 1))
    assert len(attempts_of(many)) == SHOWN_MAX
