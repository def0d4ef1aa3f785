"""Exchanges with the application in one process: requests, and their answers as a reader takes them, piece by piece."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from msgspec.structs import replace
from starlette.applications import Starlette

from airunner.broker.blobs.keeper import Blobs
from airunner.client.client import Client
from airunner.client.web.app import make_app
from airunner.client.web.clients import Clients
from airunner.client.web.cookies import Cookies
from airunner.client.web.endedsessions import EndedSessions
from airunner.client.web.loginlinks import LoginLinks
from airunner.client.web.services import Services
from airunner.client.web.sessions import Sessions
from tests.client.web.api.described import violations
from tests.client.wire import Wire, brokered

HOST = "web.example"
WALL_S = 1_700_000_000


def token(expires_s: float = 2 * WALL_S, **claims: Any) -> str:
    """A token that nobody has signed: the broker of these tests looks at none."""
    claimed = {"sub": "me", "tenant": "default", "roles": ["read", "submit"], "exp": expires_s, **claims}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claimed).encode()).decode().rstrip('=')}.c2ln"


class Exchange:
    """One request, and what has come of its answer."""

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.over = False  # whether the application has said that this was all
        self.ended = anyio.Event()  # whether the application has returned
        self.to_reader, self._pieces = anyio.create_memory_object_stream[bytes](0)
        self._gone = anyio.Event()

    async def read(self, pieces: float = math.inf) -> bytes:
        """Take the next pieces, or all."""
        taken = 0
        while taken < pieces:
            try:
                self.body += await self._pieces.receive()
            except anyio.EndOfStream:
                break
            taken += 1
        return self.body

    async def until(self, words: bytes) -> bytes:
        """Take pieces until the body ends with these words."""
        while not self.body.endswith(words):
            self.body += await self._pieces.receive()
        return self.body

    def leave(self) -> None:
        """Close the connection, as a reader does that is killed."""
        self._gone.set()
        self._pieces.close()

    async def run(self, app: Starlette, scope: dict[str, Any], body: bytes) -> None:
        received = False

        async def receive() -> dict[str, Any]:
            nonlocal received
            if not received:
                received = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                return
            self.over = not message.get("more_body", False)
            if message.get("body"):
                await self.to_reader.send(message["body"])

        try:
            await app(scope, receive, send)
        finally:
            self.to_reader.close()
            self.ended.set()


class Served:
    """The application on an in-process broker, and a client of that broker."""

    def __init__(self, wire: Wire, client: Client, services: Services, group: Any) -> None:
        self.wire = wire
        self.client = client
        self.services = services
        self._group = group
        self._app = make_app(services, (HOST,))
        self._exchanges: list[Exchange] = []

    def open(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b"", **claims: Any
    ) -> Exchange:
        """Send a request; its answer is in the exchange as it comes."""
        path, _, query = path.partition("?")
        own = {"host": HOST, "authorization": f"Bearer {token(**claims)}"}
        sent = own | {name.lower(): text for name, text in (headers or {}).items()}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), text.encode()) for name, text in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": (HOST, 80),
            "root_path": "",
        }
        self._exchanges.append(exchange := Exchange(method, path))
        self._group.start_soon(exchange.run, self._app, scope, body)
        return exchange

    def close(self) -> None:
        """Let every reader go. What they have read was as it is described."""
        for exchange in self._exchanges:
            exchange.leave()
        for each in self._exchanges:
            assert not violations(each.method, each.path, each.status, each.headers, each.body)

    async def get(self, path: str, **options: Any) -> Exchange:
        """Send a request, and read its whole answer."""
        exchange = self.open(path, **options)
        await exchange.read()
        return exchange


@asynccontextmanager
async def served(folder: Path, blobs: Blobs | None = None) -> AsyncIterator[Served]:
    """The application on an in-process broker, on virtual time; the broker keeps blobs, if they are given."""
    async with brokered(blobs) as (wire, client), anyio.create_task_group() as group:
        reach = replace(client._entered.reach, close=lambda: None)

        def now_s() -> float:
            return WALL_S + anyio.current_time()

        async with Clients(reach, lambda _: None) as clients:
            services = Services(
                clients=clients,
                cookies=Cookies(bytes(32), secure=False),
                links=LoginLinks(folder),
                sessions=Sessions(now_s, EndedSessions(folder)),
                public_url=f"http://{HOST}",
                now_s=now_s,
            )
            web = Served(wire, client, services, group)
            try:
                yield web
            finally:
                web.close()
                group.cancel_scope.cancel()
