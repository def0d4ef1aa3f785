"""Stream of a log's lines to a page: what is new, as server-sent events, at a bounded rate.

```
 follow ── any event ──► bell ──► SearchLog from the end of what was sent ──► lines {total, lines, open}
     └──── not output ─────────────────────────────────────────────────────► state               … end
```

Events of the job only ring a bell: numbers and lines come from the broker's search, so they are those of every other
window. A page that is behind by more than `FRESH_LINES` is only sent their number, and reads those that it shows.
"""

from __future__ import annotations

from typing import Any, Final

import anyio
import msgspec
from sse_starlette import ServerSentEvent

from airunner.client.client import Client
from airunner.client.web.lines import BEYOND, shown
from airunner.client.web.linestyle import LineStyles
from airunner.client.web.logindex import LogIndex, unfinished, whole_lines
from airunner.client.web.sending import Outlet
from airunner.protocol.errors import AirunnerError
from airunner.protocol.events import (
    BrokerBody,
    Event,
    GitCloneEnd,
    GitCloneStart,
    ProcessEnd,
    ProcessError,
    ProcessStart,
)
from airunner.protocol.job import Job
from airunner.protocol.replies import LogSearched
from airunner.transport.bell import Bell

FRESH_LINES: Final = 200  # lines that are sent as they come: more than a screen has
UPDATE_S: Final = 0.1  # between two messages: people read no faster
STATE_BODIES: Final = (BrokerBody, GitCloneStart, GitCloneEnd, ProcessStart, ProcessEnd, ProcessError)


class LogStream:
    """Stream of one job's log to one page, which has the lines up to `total` already.

    `seen` is the last event that the page knows of: what it shows of the job may have changed since, also before the
    stream began.
    """

    def __init__(self, client: Client, index: LogIndex, job: Job, total: int, seen: int) -> None:
        self._client = client
        self._index = index
        self._job = job
        self._total = total
        self._place = index.before(total + 1)
        self._styles = LineStyles()
        self._open: list[dict[str, Any]] = []
        self._came = Bell()
        self._news = True  # events have come since the last search
        self._ended = job.state.terminal
        self._changed = job.last_sequence > seen  # what the page shows of the job may have changed

    async def run(self, outlet: Outlet) -> None:
        """Send what is new until the job has ended."""
        async with outlet:
            try:
                async with anyio.create_task_group() as group:
                    if not self._ended:
                        group.start_soon(self._listen)
                    await self._send(outlet)
                    group.cancel_scope.cancel()
            except* AirunnerError as errors:
                await outlet.send(_event("failed", {"detail": _first(errors).message}))

    async def _listen(self) -> None:
        async with self._client.follow(self._job, self._job.last_sequence + 1) as events:
            while batch := await events.next_batch():
                self._note(batch)
        self._ended = self._news = True
        self._came.ring()

    def _note(self, batch: list[Event]) -> None:
        self._changed |= any(isinstance(event.body, STATE_BODIES) for event in batch)
        self._news = True
        self._came.ring()

    async def _send(self, outlet: Outlet) -> None:
        while True:
            ended, self._news = self._ended, False
            if self._changed:
                self._changed = False
                await outlet.send(_event("state", {}))
            await self._catch_up(outlet)
            if ended:
                await outlet.send(_event("end", {"total": self._total}))
                return
            await anyio.sleep(UPDATE_S)
            while not self._news:
                await self._came.wait()

    async def _catch_up(self, outlet: Outlet) -> None:
        """Send the lines that are new, or the number of all and the last ones where they are many."""
        page = await self._search(self._total + 1, FRESH_LINES)
        many = page.place is not None
        if many:
            await self._count(outlet)
            self._styles = LineStyles()
            page = await self._search(self._total + 1, FRESH_LINES)
        while page.place is not None and not page.hits:  # it ended before these lines: the broker has a deadline
            page = await self._search(self._total + 1, FRESH_LINES)
        self._news |= page.place is not None  # there is more
        whole = whole_lines(page)
        lines = await shown((line for line in page.hits if line.line <= whole), self._styles)
        opened = await shown(unfinished(page))
        if many or lines or opened != self._open:
            self._open = opened
            await self._send_lines(outlet, whole, {"lines": lines, "open": opened})

    async def _count(self, outlet: Outlet) -> None:
        """Count the lines up to the end of the log, and send how many there are so far."""
        sent_s = anyio.current_time()
        while True:
            page = await self._search(BEYOND, 1)
            self._total = whole_lines(page)
            if page.place is None:
                return
            if anyio.current_time() - sent_s >= UPDATE_S:
                sent_s = anyio.current_time()
                await self._send_lines(outlet, self._total, {"counting": True})

    async def _search(self, first: int, limit: int) -> LogSearched:
        page = await self._client.search_page(self._job, from_line=first, limit=limit, place=self._place)
        self._index.note(page)
        self._place = page.place or page.end or self._place
        return page

    async def _send_lines(self, outlet: Outlet, total: int, news: dict[str, object]) -> None:
        self._total = total
        await outlet.send(_event("lines", {"total": total, **news}, str(total)))


def _event(kind: str, content: object, number: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(msgspec.json.encode(content).decode(), event=kind, id=number)


def _first(errors: BaseExceptionGroup[AirunnerError]) -> AirunnerError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AirunnerError)
    return error
