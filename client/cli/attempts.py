"""Attempts of a job, as `airunner show` lists them: agent, times and end of each, from the job's log. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airunner.client.cli.wording import duration_text, end_text, instant_text
from airunner.protocol import events
from airunner.protocol.events import Event

ATTEMPT_KINDS: Final = (
    "JOB_SCHEDULED",
    "JOB_LEASED",
    "JOB_RELEASED",
    "JOB_EXPIRED",
    "JOB_FINISHED",
    "GIT_CLONE_ERROR",
    "PROCESS_END",
)
SHOWN_MAX: Final = 20  # attempts, the last ones


def attempts_of(log: Iterable[Event]) -> list[str]:
    """List attempts: `1 on build-7 at 2027-01-31T03:00:00Z for 2.3 s: exit code 1, tried again`."""
    lines: list[str] = []
    begun: tuple[int, str, int] | None = None  # number, agent and beginning of the attempt that runs
    said = ""  # how its checkout or its command has ended
    for event in log:
        body = event.body
        if isinstance(body, events.JobLeased):
            begun, said = (event.attempt, body.agent, body.timestamp_ms), ""
        elif isinstance(body, events.GitCloneError):
            said = "the checkout failed"
        elif isinstance(body, events.ProcessEnd):
            said = f"exit code {body.exit_code}" if body.signal is None else f"signal {body.signal}"
        elif begun is not None and (end := _end(body, said)):
            number, agent, began_ms = begun
            took = duration_text(event.timestamp_ms - began_ms)
            lines.append(f"{number} on {agent} at {instant_text(began_ms)} for {took}: {end}")
            begun = None
    if begun is not None:
        lines.append(f"{begun[0]} on {begun[1]} at {instant_text(begun[2])}: running")
    return lines[-SHOWN_MAX:]


def _end(body: object, said: str) -> str:
    match body:
        case events.JobReleased(lost=lost):
            return "its agent was lost" if lost else "released by its agent"
        case events.JobExpired():
            return "its agent was not heard from"
        case events.JobScheduled():
            return f"{said or 'failed'}, tried again"
        case events.JobFinished():
            return end_text(body.state, body.exit_code, body.signal, body.reason)
        case _:
            return ""
