"""Wording of durations, instants and ends of jobs, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from airunner.protocol.job import JobState, Reason

_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
SHORT_COMMIT_CHARS: Final = 12


def duration_text(ms: int) -> str:
    """Format a duration: `350 ms`, `4.2 s`, `3 min 07 s`, `2 h 05 min`, `3 d 04 h`."""
    if ms < _SECOND_MS:
        return f"{max(0, ms)} ms"
    if ms < _MINUTE_MS:
        return f"{ms // 100 / 10:.1f} s"
    if ms < _HOUR_MS:
        return f"{ms // _MINUTE_MS} min {ms % _MINUTE_MS // _SECOND_MS:02} s"
    if ms < _DAY_MS:
        return f"{ms // _HOUR_MS} h {ms % _HOUR_MS // _MINUTE_MS:02} min"
    return f"{ms // _DAY_MS} d {ms % _DAY_MS // _HOUR_MS:02} h"


def instant_text(ms: int) -> str:
    """Format an instant in UTC, as in RFC 3339, to the second; as a number where no calendar holds it."""
    try:
        return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def end_text(state: JobState, exit_code: int | None, signal: int | None, reason: Reason | None) -> str:
    """Format the end of a job: `COMPLETED, exit code 0`; `FAILED by signal 9`; `FAILED (agent-lost)`."""
    if signal is not None:
        ending = f"{state} by signal {signal}"
    elif exit_code is not None:
        ending = f"{state}, exit code {exit_code}"
    else:
        ending = str(state)
    return ending if reason in (None, Reason.EXIT_CODE, Reason.SIGNAL, Reason.CANCELLED) else f"{ending} ({reason})"
