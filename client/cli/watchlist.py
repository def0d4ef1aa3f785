"""Live list of jobs, `airunner list --watch`: shows the list again as it changes.

The broker publishes each change; the list itself is read when it begins, and when a change was lost or cannot be
judged, at most every `AGAIN_S`. As in kubectl, a pipe gets a line for each job that is new or has changed, and a
terminal a table that is drawn over the last one.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import anyio

from airunner.client.changes import JobNews
from airunner.client.cli.columns import COLUMNS, aligned, row, table_text, widths_of
from airunner.client.cli.console import Console
from airunner.client.jobboard import JobBoard
from airunner.protocol.job import JobSummary
from airunner.protocol.replies import JobsListed

AGAIN_S: Final = 1.0  # seconds between two readings of the list, on a broker that changes more jobs than it publishes
REDRAW_S: Final = 1.0  # seconds until a terminal's ages are drawn again
SPARE_ROWS: Final = 2  # rows of a terminal for the headings and the cursor's own line
WIDTHS: Final = {"id": 36, "state": 9, "name": 8, "queue": 8, "submitted": 20}  # of columns in a list that is empty yet
_STYLES: Final = re.compile(r"\x1b\[[0-9;]*m")
_UP: Final = "\x1b[{}A\r\x1b[J"  # moves the cursor up some lines, and clears everything below


class View(Protocol):
    """View of a list that changes."""

    redraw_s: float  # seconds after which it is shown again, though nothing has changed

    def show(self, jobs: Sequence[JobSummary], changed: Sequence[JobSummary], now_ms: int, /) -> None:
        """Show the list, of which these jobs are new or have changed, the oldest change first."""
        ...


async def watch_list(
    news: Callable[[float], Awaitable[JobNews]],
    ask: Callable[[], Awaitable[JobsListed]],
    board: JobBoard,
    view: View,
    wall_ms: Callable[[], int],
) -> None:
    """Watch a list until cancelled: show it whenever `news` comes, and read it with `ask` when that is needed."""
    asked_s, unsure = -math.inf, False
    while True:
        came = await news(max(0, min(view.redraw_s, asked_s + AGAIN_S - anyio.current_time() if unsure else math.inf)))
        unsure |= came.again
        for message in came.messages:
            for change in message.jobs:
                unsure |= not board.apply(change)
        if unsure and anyio.current_time() >= asked_s + AGAIN_S:
            asked_s, unsure = anyio.current_time(), False
            board.replace((await ask()).jobs)
        view.show(board.jobs, board.take_changed(), wall_ms())


class JsonLines:
    """JSON view: each job that is new or has changed, as an object on stdout."""

    redraw_s: float = math.inf

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, _jobs: Sequence[JobSummary], changed: Sequence[JobSummary], _now_ms: int) -> None:
        """Show what has changed."""
        for job in changed:
            self._console.out_json(job)


class Lines:
    """Line view: the list, and then a line for each job that is new or has changed, in columns that only get wider."""

    redraw_s: float = math.inf

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._names = names
        self._widths = [WIDTHS.get(name, 0) for name in names]
        self._begun = False

    def show(self, _jobs: Sequence[JobSummary], changed: Sequence[JobSummary], now_ms: int) -> None:
        """Show what has changed."""
        rows = [row(job, now_ms, self._names) for job in changed]
        if not self._begun:
            self._begun = True
            rows = [tuple(COLUMNS[name].heading for name in self._names), *reversed(rows)]
        if rows:
            self._widths = list(map(max, self._widths, widths_of(rows)))
        for line in aligned(rows, self._widths):
            self._console.out_line(line)


def rows_of(lines: Sequence[str], columns: int) -> int:
    """Count the rows that these lines take on a terminal, which wraps wider lines."""
    return sum(max(1, -(-len(_STYLES.sub("", line).rstrip()) // columns)) for line in lines)


class Screen:
    """Screen view: a table drawn over the last one, with as many jobs as the terminal has rows for."""

    redraw_s: float = REDRAW_S

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._names = names
        self._rows = 0

    def show(self, jobs: Sequence[JobSummary], _changed: Sequence[JobSummary], now_ms: int) -> None:
        """Show the list as it is now."""
        size = shutil.get_terminal_size()
        room = max(1, size.lines - SPARE_ROWS)
        text = table_text(jobs[:room], now_ms, self._names)
        lines = text.splitlines(keepends=True)
        if rows_of(lines, size.columns) > room + 1:  # on a narrow terminal a job takes several rows
            fewer = max(1, room * len(jobs[:room]) // rows_of(lines, size.columns))
            text = table_text(jobs[:fewer], now_ms, self._names)
        over = _UP.format(self._rows) if self._rows else ""
        self._rows = rows_of(text.splitlines(), size.columns)
        self._console.out(f"{over}{text}".encode(errors="replace"))
