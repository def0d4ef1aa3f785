"""Live answers: a stream that ends with its session, when its token expires, or when the server stops.

It ends between two messages, so the last id that was received is the one to resume from. A stream of server-sent events
says why it ends, by an event `over`; its data is `logged-out`, `expired` or `stopping`. Any other one is cut off, so
that no reader takes it for whole.
"""

from __future__ import annotations

from typing import Final

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from airunner.client.web.login import Login
from airunner.client.web.services import Services
from airunner.client.web.sessions import Over

EVENTS: Final = "text/event-stream"


class Live(Response):
    """Live answer: sends another, streaming one until that ends, or the session of `login` does.

    Return it from a route, as `Live(services, login, EventSourceResponse(…))`.
    """

    def __init__(self, services: Services, login: Login, streaming: Response) -> None:
        self._sessions = services.sessions
        self._session = login.session
        self._streaming = streaming
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. Raises `Busy`: the session has too many streams."""
        over: Over | None = None
        whole = events = False

        async def send_noted(message: Message) -> None:
            nonlocal whole, events
            if message["type"] == "http.response.start":
                events = any(
                    name.lower() == b"content-type" and value.startswith(EVENTS.encode())
                    for name, value in message.get("headers", ())
                )
            else:
                whole = not message.get("more_body", False)
            await send(message)

        async with self._sessions.stream(self._session) as woken, anyio.create_task_group() as group:

            async def stream() -> None:
                await self._streaming(scope, receive, send_noted)
                group.cancel_scope.cancel()

            group.start_soon(stream)
            over = await self._sessions.over(self._session, woken)
            group.cancel_scope.cancel()
        if over is not None and events and not whole:
            farewell = f"event: over\ndata: {over}\n\n".encode()
            await send({"type": "http.response.body", "body": farewell, "more_body": False})
