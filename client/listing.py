"""How jobs are shown: a table for a terminal, plain columns for a pipe, and one job in full."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from airunner.client.retrying import policy_text
from airunner.client.wording import duration_text, end_text, instant_text
from airunner.protocol.job import MAX_ATTEMPTS_DEFAULT, Job, JobState, JobSummary
from airunner.protocol.messages import AgentSummary, SecretSummary
from airunner.protocol.printable import one_line
from airunner.protocol.queues import QueueSummary

HEADINGS: Final = ("ID", "STATE", "QUEUE", "SUBMITTED", "TOOK", "COMMAND")
QUEUE_HEADINGS: Final = ("QUEUE", "MODE", "WAITING", "DELAYED", "RUNNING", "OLDEST")
SECRET_HEADINGS: Final = ("SECRET", "QUEUE", "SET")
AGENT_HEADINGS: Final = ("AGENT", "SLOTS", "LEASES", "SEEN", "VERSION", "TAGS")
GAP: Final = 2
COMMAND_CHARS_MIN: Final = 16
_COLOURS: Final = {
    JobState.SCHEDULED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.COMPLETED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "magenta",
}


def print_table(jobs: Sequence[JobSummary], now_ms: int) -> None:
    """A table as wide as the terminal; a narrow one loses columns and never an id, since one copies those."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells: dict[str, list[str]] = {
        "ID": [job.id for job in jobs],
        "STATE": [_state(job) for job in jobs],
        "QUEUE": [job.queue for job in jobs],
        "AGE": [duration_text(max(0, now_ms - job.submitted_ms)) for job in jobs],
        "TOOK": [_took(job) for job in jobs],
        "COMMAND": [one_line(job.command) for job in jobs],
    }
    shown = fitting(cells, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    widths = {heading: max(map(len, (heading, *cells[heading]))) for heading in shown}
    fixed = sum(width + GAP for heading, width in widths.items() if heading != "COMMAND")
    console.width = max(console.width, fixed)
    widths["COMMAND"] = console.width - fixed
    for heading in shown:  # no width is left to rich, which would take from each column, down to nothing
        table.add_column(heading, no_wrap=True, overflow="ellipsis", width=widths[heading])
    for at, job in enumerate(jobs):
        colours = {"STATE": _COLOURS[job.state]}
        table.add_row(*(Text(cells[heading][at], style=colours.get(heading, "")) for heading in shown))
    console.print(table)


def fitting(cells: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """The headings for which there is room beside `COMMAND_CHARS_MIN` of the command."""
    widths = {heading: GAP + max(len(text) for text in (heading, *column)) for heading, column in cells.items()}
    widths["COMMAND"] = COMMAND_CHARS_MIN
    shown = list(cells)
    for dispensable in ("TOOK", "QUEUE", "AGE", "COMMAND"):
        if sum(widths[heading] for heading in shown) > width:
            shown.remove(dispensable)
    return shown


def columns(jobs: Sequence[JobSummary]) -> Iterator[str]:
    """Aligned lines under `HEADINGS`, for a pipe; the command is last and may hold spaces."""
    rows = [
        HEADINGS,
        *(
            (job.id, _state(job), job.queue, instant_text(job.submitted_ms), _took(job), one_line(job.command))
            for job in jobs
        ),
    ]
    yield from aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines whose columns stand below each other."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def queue_row(queue: QueueSummary, now_ms: int) -> Sequence[str]:
    """The cells of one queue, as `QUEUE_HEADINGS` names them."""
    oldest = "" if queue.oldest_ms is None else duration_text(max(0, now_ms - queue.oldest_ms))
    return (queue.queue, queue.mode, str(queue.waiting), str(queue.delayed), str(queue.running), oldest)


def agent_row(agent: AgentSummary, now_ms: int) -> Sequence[str]:
    """The cells of one agent, as `AGENT_HEADINGS` names them; what is not known of it is a dash."""
    seen = f"{duration_text(max(0, now_ms - agent.seen_ms))} ago" if agent.seen_ms else "-"
    slots = str(agent.slots) if agent.slots else "-"
    tags = " ".join(f"{name}={value}" for name, value in agent.tags.items())
    return (agent.name, slots, str(agent.leases), seen, agent.version or "-", tags)


def secret_row(secret: SecretSummary) -> Sequence[str]:
    """The cells of one sealed secret, as `SECRET_HEADINGS` names them."""
    return (secret.name, secret.queue, instant_text(secret.set_ms))


def job_lines(job: Job) -> Iterator[str]:
    """One job in full, one fact a line."""
    spec = job.spec
    result = job.result
    facts: list[tuple[str, str]] = [
        ("id", job.id),
        ("state", end_text(job.state, result.exit_code, result.signal, result.reason) if result else job.state),
        ("queue", spec.queue),
        ("command", shlex.join(spec.argv)),
        ("process type", f"pty, {spec.terminal.cols}x{spec.terminal.rows}" if spec.process_type == "pty" else ""),
        ("require", " ".join(f"{name}={value}" for name, value in spec.require.items())),
        ("secrets", " ".join(spec.secrets)),
        ("secret files", " ".join(spec.secret_files)),
        ("depth", str(spec.depth or "")),
        ("submodules", "yes" if spec.submodules else ""),
        ("timeout", duration_text(spec.timeout_seconds * 1_000) if spec.timeout_seconds else ""),
        ("repository", spec.repository),
        ("commit", spec.commit),
        ("branch", spec.branch),
        ("directory", spec.working_directory),
        ("owner", spec.owner),
        ("priority", str(spec.priority) if spec.priority else ""),
        ("not before", instant_text(job.due_ms) if job.due_ms is not None else ""),
        ("max attempts", str(spec.max_attempts) if spec.max_attempts != MAX_ATTEMPTS_DEFAULT else ""),
        ("retry", policy_text(spec.retry) if spec.retry else ""),
        ("retried", f"{job.retries} times" if job.retries else ""),
        ("retry of", job.origin or ""),
        ("cancelled", instant_text(job.cancel_requested_ms) if job.cancel_requested_ms is not None else ""),
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
