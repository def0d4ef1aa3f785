"""Live list of jobs, `airunner list --watch`: shows the list again as it changes.

The broker publishes no changes of the list, so the client requests it again `WATCH_S` after each reply. As
in kubectl, a pipe gets a line for each job that is new or has changed, and a terminal a table that is drawn over the
last one.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio

from airunner.client.cli.columns import COLUMNS, aligned, row, table_text, widths_of
from airunner.client.cli.console import Console
from airunner.protocol.job import JobSummary
from airunner.protocol.replies import JobsListed

WATCH_S: Final = 2.0  # seconds from a reply to the next request
SPARE_ROWS: Final = 2  # rows of a terminal for the headings and the cursor's own line
_STYLES: Final = re.compile(r"\x1b\[[0-9;]*m")
_UP: Final = "\x1b[{}A\r\x1b[J"  # moves the cursor up some lines, and clears everything below


async def watch_list(
    ask: Callable[[], Awaitable[JobsListed]],
    show: Callable[[Sequence[JobSummary], int], None],
    wall_ms: Callable[[], int],
    times: float = math.inf,
) -> None:
    """Watch a list: request and show it, until cancelled or `times` times."""
    shown = 0
    while True:
        show((await ask()).jobs, wall_ms())
        shown += 1
        if shown >= times:
            return
        await anyio.sleep(WATCH_S)


class _Changes:
    """View of changes: jobs that are new or have changed, oldest first."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[str, JobSummary] = {}

    def _changed(self, jobs: Sequence[JobSummary]) -> list[JobSummary]:
        changed = [job for job in reversed(jobs) if self._known.get(job.id) != job]
        self._known = {job.id: job for job in jobs}
        return changed


class JsonLines(_Changes):
    """JSON view: each job that is new or has changed, as an object on stdout."""

    def show(self, jobs: Sequence[JobSummary], _now_ms: int) -> None:
        """Show what has changed."""
        for job in self._changed(jobs):
            self._console.out_json(job)


class Lines(_Changes):
    """Line view: the list, and then a line for each job that is new or has changed, in columns of the same widths."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        super().__init__(console)
        self._names = names
        self._widths: list[int] | None = None

    def show(self, jobs: Sequence[JobSummary], now_ms: int) -> None:
        """Show what has changed."""
        rows = [row(job, now_ms, self._names) for job in self._changed(jobs)]
        if self._widths is None:
            rows = [tuple(COLUMNS[name].heading for name in self._names), *reversed(rows)]
            self._widths = widths_of(rows)
        for line in aligned(rows, self._widths):
            self._console.out_line(line)


def rows_of(lines: Sequence[str], columns: int) -> int:
    """Count the rows that these lines take on a terminal, which wraps wider lines."""
    return sum(max(1, -(-len(_STYLES.sub("", line).rstrip()) // columns)) for line in lines)


class Screen:
    """Screen view: a table drawn over the last one, with as many jobs as the terminal has rows for."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._names = names
        self._rows = 0

    def show(self, jobs: Sequence[JobSummary], now_ms: int) -> None:
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
