"""Status line of several jobs: how many have ended, for how long the command waits, and why the next one waits.

`[#####...............] 12 of 50 ended, 2 not completed, 8 s; 6b89b533: no agent serves queue gpu`
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio

from airunner.client.cli.columns import short_ids
from airunner.client.cli.console import Console, continues
from airunner.client.cli.status import REASON_S, TICK_S, whole_seconds
from airunner.client.cli.watching import WaitingReason
from airunner.client.taskgroups import first_error
from airunner.protocol.errors import OperatorError, PeerError
from airunner.protocol.job import Job, JobState
from airunner.protocol.requests import PAGE_SIZE_MAX

if TYPE_CHECKING:
    from airunner.client.client import Client

BAR_CHARS: Final = 20


def progress_text(ends: Collection[Job], total: int) -> str:
    """Format how many jobs have ended, with a bar: `[#######...] 35 of 50 ended, 2 not completed`."""
    filled = BAR_CHARS * len(ends) // total
    failed = sum(end.state is not JobState.COMPLETED for end in ends)
    bad = f", {failed} not completed" if failed else ""
    return f"[{'#' * filled}{'.' * (BAR_CHARS - filled)}] {len(ends)} of {total} ended{bad}"


class SetStatus:
    """Set status: draws the line of jobs that are `waiting` or have `ended`, and keeps the farewell up to date.

    Both are read again each time; each job is in one of them.
    """

    def __init__(self, client: Client, console: Console, waiting: Collection[str], ended: Collection[Job]) -> None:
        self._client = client
        self._console = console
        self._waiting = waiting
        self._ended = ended
        self._began_s = anyio.current_time()
        self._why = WaitingReason(client, "", console)
        self._reason = ""

    def show(self) -> None:
        """Draw the line, after a job has ended or something was printed."""
        self._console.farewell = continues(*self._waiting, verb="wait")
        if self._console.has_status:
            line = progress_text(self._ended, len(self._waiting) + len(self._ended))
            elapsed = whole_seconds(int((anyio.current_time() - self._began_s) * 1_000))
            self._console.show_status(f"{line}, {elapsed}{self._reason}")

    async def run(self) -> None:
        """Draw the line each second, and ask why the first job in the queues waits, until cancelled."""
        ask_s = self._began_s
        while self._console.has_status:
            await anyio.sleep(TICK_S)
            await self._console.no_question()
            if anyio.current_time() >= ask_s:
                with suppress(PeerError, OperatorError):
                    await self._ask()
                ask_s = anyio.current_time() + REASON_S
            self.show()

    async def _ask(self) -> None:
        page = await self._client.list_page(state=JobState.SCHEDULED, page_size=PAGE_SIZE_MAX)
        self._why.job_id = next((job.id for job in reversed(page.jobs) if job.id in self._waiting), "")
        why = await self._why.ask() if self._why.job_id else ""
        self._reason = f"; {short_ids([self._why.job_id])[0]}: {why}" if why else ""


@asynccontextmanager
async def set_status(
    client: Client, console: Console, waiting: Collection[str], ended: Collection[Job]
) -> AsyncGenerator[Callable[[], None]]:
    """Keep a status line in this block, which calls what it gets after each end."""
    with first_error():
        async with anyio.create_task_group() as group:
            status = SetStatus(client, console, waiting, ended)
            status.show()
            group.start_soon(status.run)
            yield status.show
            group.cancel_scope.cancel()
    console.farewell = ""
