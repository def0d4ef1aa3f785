"""View of `airunner list`: how its jobs are printed, for a terminal, a pipe or a program, once or as they change."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airunner.client.cli.columns import PIPE, TERMINAL, Table, table_text
from airunner.client.cli.console import Console
from airunner.protocol.job import JobSummary
from airunner.transport.ports import SYSTEM

if TYPE_CHECKING:
    from airunner.client.cli.waiting import Reasons
    from airunner.client.client import Client

REASON_COLUMNS: Final = 100  # width of a terminal from which on a list says why jobs wait


class ListView:
    """View of a list of jobs in the columns `chosen` (None: the usual ones), or only their ids, or as JSON."""

    def __init__(self, console: Console, chosen: Sequence[str] | None, *, ids: bool, json: bool) -> None:
        self._console = console
        self._ids = ids
        self._json = json
        self._terminal = sys.stdout.isatty() and not ids
        self._columns = chosen or (TERMINAL if self._terminal else PIPE)
        self._table = Table()
        self._reasons: Reasons | None = None
        wide = self._terminal and chosen is None and shutil.get_terminal_size().columns >= REASON_COLUMNS
        self.needs_details = json or wide or (chosen is not None and "reason" in chosen)

    def show(self, jobs: Sequence[JobSummary]) -> None:
        """Show a piece of the list."""
        if self._json:
            for job in jobs:
                self._console.out_json(job)
        elif self._ids:
            for job in jobs:
                self._console.out_line(job.id)
        elif self._terminal:
            self._console.out(table_text(jobs, SYSTEM.wall_ms(), self._columns).encode(errors="replace"))
        else:
            for line in self._table.lines(jobs, SYSTEM.wall_ms(), self._columns):
                self._console.out_line(line)

    async def with_reasons(self, client: Client, jobs: Sequence[JobSummary]) -> Sequence[JobSummary]:
        """Add the reasons why jobs wait, where they are shown. Raises the errors of `Client`."""
        if not self.needs_details:
            return jobs
        from airunner.client.cli.waiting import Reasons

        self._reasons = self._reasons or Reasons(client)
        return await self._reasons.add(jobs)

    async def watch(self, client: Client, size: int, wanted: dict[str, Any]) -> None:
        """Show the newest jobs as they change, until cancelled. Reasons would have to be asked for again and again."""
        from airunner.client.changes import TenantChanges
        from airunner.client.cli.watchlist import JsonLines, Lines, Screen, View, watch_list
        from airunner.client.jobboard import JobBoard

        view: View = JsonLines(self._console)
        if not self._json:
            view = (Screen if self._terminal else Lines)(self._console, self._columns)
        filters: dict[str, Any] = {**wanted, "details": self._json}
        async with TenantChanges(client, wanted["queue"]) as changes:
            board = JobBoard(size, **filters)
            await watch_list(
                changes.next,
                lambda: client.list_page(**filters, page_size=size),
                board,
                view,
                SYSTEM.wall_ms,
            )
