"""Wording of durations, instants, sizes, ends of jobs and their usage, for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from airunner.protocol.job import Job, JobState, JobSummary, Reason, Usage
from airunner.protocol.sizes import bytes_text

_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
SHORT_COMMIT_CHARS: Final = 12


def duration_text(ms: int | None) -> str:
    """Format a duration: `350 ms`, `4.2 s`, `3 min 07 s`, `2 h 05 min`, `3 d 04 h`; empty for None."""
    if ms is None:
        return ""
    if ms < _SECOND_MS:
        return f"{max(0, ms)} ms"
    if ms < _MINUTE_MS:
        return f"{ms // 100 / 10:.1f} s"
    if ms < _HOUR_MS:
        return f"{ms // _MINUTE_MS} min {ms % _MINUTE_MS // _SECOND_MS:02} s"
    if ms < _DAY_MS:
        return f"{ms // _HOUR_MS} h {ms % _HOUR_MS // _MINUTE_MS:02} min"
    return f"{ms // _DAY_MS} d {ms % _DAY_MS // _HOUR_MS:02} h"


def short_duration(ms: int) -> str:
    """Format a duration for a column: `350ms`, `4.2s`, `3m07s`, `2h05m`, `3d04h`."""
    return re.sub(r" (ms|s|m|h|d)(in)? ?", r"\1", duration_text(ms))


def instant_text(ms: int | None) -> str:
    """Format an instant in UTC, as in RFC 3339, to the second; None is empty, and a year after 9999 a number of ms."""
    if ms is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def millisecond_text(ms: int) -> str:
    """Format an instant as `instant_text` does, to the millisecond."""
    return re.sub(r"Z$", f".{ms % 1_000:03}Z", instant_text(ms))


_PLAIN: Final = (None, Reason.EXIT_CODE, Reason.SIGNAL, Reason.CANCELLED, Reason.SKIPPED)


def end_text(state: JobState, exit_code: int | None, signal: int | None, reason: Reason | None) -> str:
    """Format the end of a job: `COMPLETED, exit code 0`; `FAILED by signal 9`; `FAILED (agent-lost)`."""
    if signal is not None:
        ending = f"{state} by signal {signal}"
    elif exit_code is not None:
        ending = f"{state}, exit code {exit_code}"
    else:
        ending = str(state)
    return ending if reason in _PLAIN else f"{ending} ({reason})"


def usage_facts(job: Job, ran_ms: int | None = None) -> list[tuple[str, str]]:
    """List the usage of the last attempt by name, with how long its command ran; an unknown figure is empty."""
    usage = (job.result.usage if job.result is not None else None) or Usage()
    cpu = usage.cpu_user_ms + usage.cpu_system_ms
    written = usage.stdout_bytes + usage.stderr_bytes
    disk = usage.read_bytes + usage.written_bytes
    output = f"{bytes_text(usage.stdout_bytes)} on stdout, {bytes_text(usage.stderr_bytes)} on stderr"
    times = f"{duration_text(usage.cpu_user_ms)} user, {duration_text(usage.cpu_system_ms)} system"
    read = f"{bytes_text(usage.read_bytes)} read, {bytes_text(usage.written_bytes)} written"
    return [
        ("waited", duration_text(job.waited_ms)),
        ("checkout", duration_text(usage.checkout_ms) if usage.checkout_ms else ""),
        ("ran", duration_text(ran_ms)),
        ("output", output if written else ""),
        ("cpu", times if cpu else ""),
        ("memory", f"{bytes_text(usage.memory_peak_bytes)} at most in one process" if usage.memory_peak_bytes else ""),
        ("disk", read if disk else ""),
    ]


def _of_usage(words: Callable[[int], str], figure: Callable[[Usage], int]) -> Callable[[JobSummary, int], str]:
    def cell(job: JobSummary, _now_ms: int) -> str:
        usage = job.result.usage if job.result is not None else None
        return words(figure(usage)) if usage is not None and figure(usage) else ""

    return cell


CELLS: Final[Mapping[str, Callable[[JobSummary, int], str]]] = MappingProxyType(
    {
        "waited": lambda job, _: duration_text(job.waited_ms),
        "checkout": _of_usage(duration_text, lambda usage: usage.checkout_ms),
        "events": _of_usage(str, lambda usage: usage.events),
        "stdout": _of_usage(bytes_text, lambda usage: usage.stdout_bytes),
        "stderr": _of_usage(bytes_text, lambda usage: usage.stderr_bytes),
        "cpu": _of_usage(duration_text, lambda usage: usage.cpu_user_ms + usage.cpu_system_ms),
        "memory": _of_usage(bytes_text, lambda usage: usage.memory_peak_bytes),
        "read": _of_usage(bytes_text, lambda usage: usage.read_bytes),
        "written": _of_usage(bytes_text, lambda usage: usage.written_bytes),
    }
)
"""Cells of optional columns, by name: shown only if `--columns` names them."""
