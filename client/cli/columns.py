"""Columns of a list of jobs: a table of all columns, and how to fit them to a terminal or a pipe.

A terminal gets the columns that fit: empty columns are left out, then the least important ones, but never id and state.
Its ids are short: as many characters as tell the jobs of the list apart, which commands accept. A pipe gets every
column of `PIPE`, whole, so that a script finds them in the same place.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from airunner.client.cli.console import colours_are_wanted
from airunner.client.cli.wording import CELLS, duration_text, instant_text, short_duration
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import JobState, JobSummary, Reason, Result
from airunner.protocol.printable import one_line

GAP: Final = 2  # spaces between columns
TITLE_CHARS_MIN: Final = 16  # least width of the columns in `_STRETCHED`
TITLE_CHARS: Final = 40  # width that they have before less important columns are shown
ID_CHARS_MIN: Final = 8  # of a short id
SPARED: Final = 1  # columns of this number or a lower one are left out before titles are cut to less
_STRETCHED: Final = ("title", "command")  # columns that get the room that is left
REPOSITORY_CHARS_MAX: Final = 32  # on a terminal, which gets the end of a longer address
NOTHING: Final = "-"  # an empty cell in a pipe: scripts that split lines at spaces count columns
_SCHEME: Final = re.compile(r"^[a-z][a-z0-9+.-]*://")
PLAIN, BOLD = 0, 1  # SGR of ECMA-48, as are the colours
_COLOURS: Final = {
    JobState.BLOCKED: 33,  # yellow
    JobState.SCHEDULED: 33,
    JobState.RUNNING: 36,  # cyan
    JobState.COMPLETED: 32,  # green
    JobState.FAILED: 31,  # red
    JobState.CANCELLED: 35,  # magenta
    JobState.SKIPPED: 35,
}


class Column(Struct, frozen=True):
    """Column of a list."""

    heading: str
    cell: Callable[[JobSummary, int], str]  # formats the cell of a job, at the present instant in ms
    kept: int | None  # if there is no room, the column with the lowest number is left out first; None: it stays


_ENDS: Final = {Reason.TIMEOUT: "TIMED OUT", Reason.AGENT_LOST: "AGENT LOST", Reason.EXPIRED: "EXPIRED"}


def reason_text(job: JobSummary, now_ms: int) -> str:
    """Format the reason why a job waits, shortly; empty if it was not looked for."""
    from airunner.client.cli.causes import short_text

    why = getattr(job, "why", None)
    return "" if why is None else short_text(why, now_ms)


def ran_text(job: JobSummary, now_ms: int) -> str:
    """Format how long a running job has run, since its first attempt began."""
    if job.state is not JobState.RUNNING or job.started_ms is None:
        return ""
    return short_duration(max(0, now_ms - job.started_ms))


def state_text(job: JobSummary) -> str:
    """Format the state of a job in a list; see `end_state_text`."""
    return end_state_text(job.state, job.result)


def end_state_text(state: JobState, result: Result | None) -> str:
    """Format how a job ended: `FAILED 3`, `FAILED signal 9`, `TIMED OUT`, `AGENT LOST`; other states by name."""
    if state is not JobState.FAILED or result is None:
        return str(state)
    if result.reason is not None and result.reason in _ENDS:
        return _ENDS[result.reason]
    if result.signal is not None:
        return f"{state} signal {result.signal}"
    return f"{state} {result.exit_code if result.exit_code is not None else result.reason or ''}".rstrip()


def short_took(job: JobSummary) -> str:
    """Format how long a job ran, shortly; empty before its end."""
    if job.started_ms is None or job.finished_ms is None:
        return ""
    return short_duration(job.finished_ms - job.started_ms)


def took_text(started_ms: int | None, finished_ms: int | None) -> str:
    """Format how long a job ran; empty before its end."""
    return "" if started_ms is None or finished_ms is None else duration_text(finished_ms - started_ms)


COLUMNS: Final[Mapping[str, Column]] = MappingProxyType(
    {
        "id": Column("ID", lambda job, _: job.id, None),
        "state": Column("STATE", lambda job, _: state_text(job), None),
        "title": Column("NAME OR COMMAND", lambda job, _: job.name or job.command, 5),
        "name": Column("NAME", lambda job, _: job.name, 4),
        "queue": Column("QUEUE", lambda job, _: job.queue, 3),
        "reason": Column("REASON", reason_text, 1),
        "owner": Column("OWNER", lambda job, _: job.owner, 1),
        "age": Column("AGE", lambda job, now_ms: short_duration(max(0, now_ms - job.submitted_ms)), 4),
        "submitted": Column("SUBMITTED", lambda job, _: instant_text(job.submitted_ms), 4),
        "took": Column("TOOK", lambda job, _: short_took(job), 2),
        "ran": Column("RUNNING FOR", ran_text, 3),
        "repository": Column("REPOSITORY", lambda job, _: job.repository, 0),
        "command": Column("COMMAND", lambda job, _: job.command, 5),
        **{name: Column(name.upper(), cell, 5) for name, cell in CELLS.items()},
    }
)
"""Columns by name."""

TERMINAL: Final = ("id", "state", "title", "queue", "reason", "age", "took", "owner", "repository")
PIPE: Final = ("id", "state", "name", "queue", "owner", "submitted", "took", "repository", "command")


def columns_of(text: str) -> tuple[str, ...]:
    """Parse the columns that `--columns` names, in its order. Raises `OperatorError` for an unknown column."""
    names = [word.strip().lower() for word in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise OperatorError(f"--columns {name!r}: there is no such column; the columns are {', '.join(COLUMNS)}")
    return tuple(dict.fromkeys(names))


def table_text(
    jobs: Sequence[JobSummary], now_ms: int, names: Sequence[str] = TERMINAL, width: int | None = None
) -> str:
    """Format a table as wide as the terminal, or of another width.

    If id and state alone do not fit, each job takes two lines instead.
    """
    from rich.cells import cell_len

    width = width or shutil.get_terminal_size().columns
    cells = {name: [_short(name, one_line(COLUMNS[name].cell(job, now_ms))) for job in jobs] for name in names}
    if "id" in cells:
        cells["id"] = short_ids([job.id for job in jobs])
    widths = {name: max(map(cell_len, (COLUMNS[name].heading, *column))) for name, column in cells.items()}
    some = [name for name in names if any(cells[name]) or COLUMNS[name].kept is None or not jobs]
    shown = fitting(some, widths, width)
    stretched = next((name for name in reversed(shown) if name in _STRETCHED), None)
    if stretched is None and COLUMNS[shown[-1]].kept is not None:
        stretched = shown[-1]
    if stretched is not None:
        left = max(0, width - sum(widths[name] + GAP for name in shown if name != stretched))
        widths[stretched] = left if stretched == shown[-1] else min(left, widths[stretched])
    elif sum(widths[name] + GAP for name in shown) - GAP > width:
        return "".join(_stacked(texts, width) for texts in zip(*(cells[name] for name in names), strict=True))
    coloured = colours_are_wanted()
    columns: list[list[str]] = []
    for name in shown:
        texts = (COLUMNS[name].heading, *cells[name])
        styles = (BOLD, *(_COLOURS[job.state] if name == "state" else PLAIN for job in jobs))
        columns.append([_cell(*pair, widths[name], coloured=coloured) for pair in zip(texts, styles, strict=True)])
    return "".join(f"{(' ' * GAP).join(line).rstrip()}\n" for line in zip(*columns, strict=True))


def _cell(text: str, style: int, width: int, *, coloured: bool) -> str:
    """Truncate or pad `text` to a width on a terminal, in an SGR style."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        text = f"{set_cell_size(text, max(0, width - 1))}…"
    fill = " " * (width - cell_len(text))
    return f"\x1b[{style}m{text}\x1b[{PLAIN}m{fill}" if coloured and style != PLAIN else text + fill


def fitting(names: Sequence[str], widths: Mapping[str, int], width: int) -> list[str]:
    """Select the columns that fit in `width`, with room for titles: some for every column, more for the last two."""
    shown = list(names)
    removable = sorted((kept, name) for name in names if (kept := COLUMNS[name].kept) is not None)
    for kept, removed in removable:
        title = TITLE_CHARS if kept <= SPARED else TITLE_CHARS_MIN
        needed = {name: min(title, widths[name]) if name in _STRETCHED else widths[name] for name in shown}
        if sum(needed.values()) + GAP * (len(shown) - 1) > width:
            shown.remove(removed)
    return shown


def short_ids(ids: Sequence[str]) -> list[str]:
    """Shorten ids to as many characters, at least `ID_CHARS_MIN`, as tell these jobs apart."""
    different = set(ids)
    chars = next(n for n in range(ID_CHARS_MIN, 65) if len({job_id[:n] for job_id in different}) == len(different))
    return [job_id[:chars] for job_id in ids]


class Table:
    """Table of jobs for a pipe, in pieces: one line of headings, and columns as wide as in the first piece."""

    def __init__(self) -> None:
        self._widths: Sequence[int] | None = None

    def lines(self, jobs: Sequence[JobSummary], now_ms: int = 0, names: Sequence[str] = PIPE) -> Iterator[str]:
        """Format a piece in aligned lines; a command may contain spaces."""
        rows = [row(job, now_ms, names) for job in jobs]
        if self._widths is None:
            rows.insert(0, tuple(COLUMNS[name].heading for name in names))
            self._widths = widths_of(rows)
        yield from aligned(rows, self._widths)


def row(job: JobSummary, now_ms: int, names: Sequence[str] = PIPE) -> tuple[str, ...]:
    """Format the cells of a job; a dash for an empty cell."""
    return tuple(one_line(COLUMNS[name].cell(job, now_ms)) or NOTHING for name in names)


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """Compute the width of each column."""
    return [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None) -> Iterator[str]:
    """Align rows of cells into lines, in columns of these widths or as wide as needed."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = widths or widths_of(rows)
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _stacked(texts: Sequence[str], width: int) -> str:
    """Stack a job on two lines: the first column, which the terminal may wrap, and below it the columns that fit."""
    from rich.cells import set_cell_size

    first, *rest = texts
    below = set_cell_size("  " + "  ".join(filter(None, rest)), max(1, width - 1)).rstrip()
    return f"{first}\n{below}\n"


def _short(name: str, text: str) -> str:
    """Shorten the repository to its end, for a terminal; other columns stay as they are."""
    if name != "repository":
        return text
    text = _SCHEME.sub("", text).removesuffix("/").removesuffix(".git")
    return text if len(text) <= REPOSITORY_CHARS_MAX else f"…{text[1 - REPOSITORY_CHARS_MAX :]}"
