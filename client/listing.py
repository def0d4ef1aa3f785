"""How jobs are shown: a table for a terminal, plain columns for a pipe, and one job in full."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from airunner.client.wording import duration_text, end_text, instant_text, one_line
from airunner.protocol.job import Job, JobState, JobSummary

HEADINGS: Final = ("ID", "STATE", "QUEUE", "SUBMITTED", "TOOK", "COMMAND")
_COLOURS: Final = {
    JobState.SCHEDULED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.COMPLETED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "magenta",
}


def print_table(jobs: Sequence[JobSummary], now_ms: int) -> None:
    """A table as wide as the terminal; ids are never cut, since one copies them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", no_wrap=True, min_width=36)
    table.add_column("STATE", no_wrap=True)
    table.add_column("QUEUE", overflow="ellipsis", no_wrap=True)
    table.add_column("AGE", no_wrap=True)
    table.add_column("TOOK", no_wrap=True)
    table.add_column("COMMAND", overflow="ellipsis", no_wrap=True, ratio=1)
    for job in jobs:
        state = Text(_state(job), style=_COLOURS[job.state])
        age = duration_text(max(0, now_ms - job.submitted_ms))
        row = (job.id, state, job.queue, age, _took(job), one_line(job.command))
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console().print(table)


def columns(jobs: Sequence[JobSummary]) -> Iterator[str]:
    """Aligned lines under `HEADINGS`, for a pipe; the command is last and may hold spaces."""
    rows = [
        HEADINGS,
        *(
            (job.id, _state(job), job.queue, instant_text(job.submitted_ms), _took(job), one_line(job.command))
            for job in jobs
        ),
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def job_lines(job: Job) -> Iterator[str]:
    """One job in full, one fact a line."""
    spec = job.spec
    result = job.result
    facts: list[tuple[str, str]] = [
        ("id", job.id),
        ("state", end_text(job.state, result.exit_code, result.signal, result.reason) if result else job.state),
        ("queue", spec.queue),
        ("command", shlex.join(spec.argv)),
        ("process type", spec.process_type if spec.process_type != "pipe" else ""),
        ("timeout", duration_text(spec.timeout_seconds * 1_000) if spec.timeout_seconds else ""),
        ("repository", spec.repository),
        ("commit", spec.commit),
        ("branch", spec.branch),
        ("directory", spec.working_directory),
        ("owner", spec.owner),
        ("attempt", str(job.attempt) if job.attempt else ""),
        ("agent", job.agent or ""),
        ("submitted", instant_text(job.submitted_ms)),
        ("started", instant_text(job.started_ms) if job.started_ms is not None else ""),
        ("finished", instant_text(job.finished_ms) if job.finished_ms is not None else ""),
        ("took", _took(job)),
        ("events", str(job.last_sequence)),
        *(("environment", f"{name}={value}") for name, value in spec.environment.items()),
        *(("metadata", f"{name}={value}") for name, value in spec.metadata.items()),
    ]
    for name, fact in facts:
        if fact:
            yield f"{name + ':':<14}{one_line(fact)}"


def _state(job: JobSummary) -> str:
    result = job.result
    if result is None or job.state is not JobState.FAILED:
        return str(job.state)
    if result.signal is not None:
        return f"{job.state} signal {result.signal}"
    return f"{job.state} {result.exit_code if result.exit_code is not None else result.reason or ''}".rstrip()


def _took(job: JobSummary | Job) -> str:
    if job.started_ms is None or job.finished_ms is None:
        return ""
    return duration_text(job.finished_ms - job.started_ms)
