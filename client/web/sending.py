"""Sending of server-sent events: what a task makes, at the pace at which it is read."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

Outlet = MemoryObjectSendStream[ServerSentEvent]
"""Where a task sends its events; it waits there until the reader has taken the last one."""


class Sending(EventSourceResponse):
    """Answer with the server-sent events that `run` sends, at the pace at which they are read."""

    def __init__(self, run: Callable[[Outlet], Coroutine[None, None, None]]) -> None:
        outlet, self._inlet = anyio.create_memory_object_stream[ServerSentEvent](0)
        events: AsyncIterable[Any] = self._inlet
        super().__init__(events, data_sender_callable=partial(run, outlet))  # pyright: ignore[reportUnknownMemberType]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        with self._inlet:
            await super().__call__(scope, receive, send)
