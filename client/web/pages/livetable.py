"""Live tables: rows of a list of the broker, which the page gets again as they change.

```
 TenantChanges ── jobs or modes have changed ──┐
 nothing within `IDLE_S` ──────────────────────┴─► the list is read ─► RowDiff ─► event `rows`: what differs
```

A stream begins with all rows, so a page that was hidden, or cut off, has missed nothing. A change only says that the
list is to be read, so what is shown is what the broker counts. Agents that come and go are published by nobody: they
are seen when the list is read next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

import anyio
import msgspec
from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from airunner.client.changes import TenantChanges
from airunner.client.client import Client
from airunner.client.web.live import Live
from airunner.client.web.login import login_of
from airunner.client.web.sending import Outlet, Sending
from airunner.client.web.services import services_of
from airunner.protocol.errors import AirunnerError
from airunner.transport.ports import SYSTEM

READ_S: Final = 1.0  # between two readings of the list, while jobs change all the time
IDLE_S: Final = 10.0  # between two readings without a change, as in `airunner top`
RETRY_MS: Final = 1_000  # until a browser connects again to a stream that has ended

Shown = TypeVar("Shown")  # what a row shows, but for the time that passes


class RowDiff:
    """Difference between the rows of a table and those that its reader has; a row is named by its element's id."""

    def __init__(self) -> None:
        self._sent: Mapping[str, object] = {}
        self._order: tuple[str, ...] | None = None

    def event(self, shown: Mapping[str, Shown], html: Callable[[str], str]) -> ServerSentEvent | None:
        """Make the event of what differs: the order of all rows, and the `html` of some; None: nothing does."""
        order = tuple(shown)
        rows = {row: html(row) for row, now in shown.items() if row not in self._sent or self._sent[row] != now}
        if order == self._order and not rows:
            return None
        self._order, self._sent = order, dict(shown)
        content = msgspec.json.encode({"order": order, "rows": rows}).decode()
        return ServerSentEvent(content, event="rows", retry=RETRY_MS)


async def stream_table(
    request: Request,
    read: Callable[[Client], Awaitable[Mapping[str, Shown]]],
    html: Callable[[Shown, int], str],
) -> Response:
    """Stream a table as it changes: `read` lists what its rows show, `html` renders a row at an instant (ms)."""
    login, services = login_of(request), services_of(request)
    async with services.clients.asking(login.token) as client:  # refusals are answered as such, with their status
        await read(client)

    async def run(outlet: Outlet) -> None:
        async with outlet:
            with suppress(AirunnerError):  # it ends the stream, and the browser comes again
                async with services.clients.of(login.token) as client, TenantChanges(client) as changes:
                    await _watch(client, changes, outlet)

    async def _watch(client: Client, changes: TenantChanges, outlet: Outlet) -> None:
        diff = RowDiff()
        while True:
            await changes.next(IDLE_S)
            read_s = anyio.current_time()
            shown, now_ms = await read(client), SYSTEM.wall_ms()
            if event := diff.event(shown, lambda row: html(shown[row], now_ms)):  # noqa: B023 - called at once
                await outlet.send(event)
            await anyio.sleep_until(read_s + READ_S)

    return Live(services, login, Sending(run))
