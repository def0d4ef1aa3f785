"""HTTP server of a few pages, such as /health and /metrics, without authentication, for load balancers and scrapers.

It reads one request per connection, up to `HEAD_BYTES_MAX`; only the first line and `Accept` matter. It runs in the
event loop of the broker or agent, so a process that hangs does not respond as healthy.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener
from msgspec import Struct

from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.transport.endpoints import ANY_HOST, Address, split_http

HEAD_BYTES_MAX: Final = 8_192  # head of a request: its first line and its headers
HEAD_S_MAX: Final = 5  # seconds for a client to send its request and receive the response
CONNECTIONS_MAX: Final = 64  # open connections; further ones are closed at once, because scrapers connect again
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON: Final = "application/json"
_ALL_HOSTS: Final = {ANY_HOST: "0.0.0.0", "::": None}  # noqa: S104 - as for --listen; None: IPv4 and IPv6
REST_S: Final = 0.1  # pause after a connection could not be accepted, for example for lack of descriptors


class HttpReply(Struct, frozen=True):
    """Reply to an HTTP request: the body and its Content-Type, and a status line."""

    body: bytes
    kind: str = TEXT
    status: str = "200 OK"


Page = Callable[[str], Awaitable[HttpReply]]
"""Page of an HTTP server: makes the reply to a request with this `Accept` header (empty: the request has none)."""


class HttpServer:
    """HTTP server actor; it listens at `address`, a HOST:PORT with the actual port, before it runs."""

    def __init__(self, listener: MultiListener[SocketStream]) -> None:
        self._listener = listener
        self._pages: dict[bytes, Page] = {}
        self._served = 0
        address = listener.extra(SocketAttribute.local_address)
        assert isinstance(address, tuple), "not a TCP socket"
        self.address = str(Address(address[0], address[1]))

    async def run(self, pages: Mapping[str, Page]) -> None:
        """Serve these pages, by path, until cancelled."""
        self._pages = {path.encode(): page for path, page in pages.items()}
        async with self._listener, anyio.create_task_group() as group:
            for listener in self._listener.listeners:
                assert isinstance(listener, SocketListener), "not a TCP listener"
                group.start_soon(self._accept, listener, group)

    async def _accept(self, listener: SocketListener, group: TaskGroup) -> None:
        """Accept connections; no client can end this loop."""
        while True:
            try:
                stream = await listener.accept()
            except OSError:
                await anyio.sleep(REST_S)
                continue
            if self._served < CONNECTIONS_MAX:
                self._served += 1
                group.start_soon(self._serve, stream)
            else:
                await anyio.aclose_forcefully(stream)

    async def _serve(self, stream: SocketStream) -> None:
        try:
            async with stream:
                with anyio.move_on_after(HEAD_S_MAX):
                    try:
                        await stream.send(await self._respond(await _head(stream)))
                        await stream.send_eof()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        pass  # the client has closed the connection
        finally:
            self._served -= 1

    async def _respond(self, head: bytes) -> bytes:
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [b"GET" | b"HEAD" as method, path, version] if version.startswith(b"HTTP/1."):
                page = self._pages.get(path.split(b"?", 1)[0])
            case _:
                refused = HttpReply(b"not an HTTP/1 request with GET or HEAD\n", status="400 Bad Request")
                return _response(b"GET", refused)
        if page is None:
            known = " and ".join(path.decode() for path in self._pages)
            return _response(method, HttpReply(f"this server has only {known}\n".encode(), status="404 Not Found"))
        return _response(method, await page(_accepted(head)))


async def open_http(address: str) -> HttpServer:
    """Open an HTTP server at HOST:PORT; port 0 picks a free one.

    Raises `OperatorError`: the address is invalid, or cannot be listened at.
    """
    host, port = split_http(address)
    try:
        group = await anyio.create_tcp_listener(local_host=_ALL_HOSTS.get(host, host), local_port=port)
    except OSError as error:
        raise OperatorError(
            f"cannot serve HTTP on {address}: {error.strerror or error}; choose another address with --http",
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    return HttpServer(group)


def health_reply(
    status: str,
    conditions: Mapping[str, str],
    accept: str,
    line: str = "200 OK",
    *,
    facts: Mapping[str, bool] = MappingProxyType({}),
) -> HttpReply:
    """Make the reply of /health: the status and the words of each condition, as text or, if preferred, as JSON.

    The JSON also has the `facts`.
    """
    if prefers_json(accept):
        body = {"status": status, **facts, **({"conditions": conditions} if conditions else {})}
        return HttpReply(msgspec.json.encode(body), JSON, line)
    words = "".join(f"{name}: {words}\n" for name, words in conditions.items())
    return HttpReply(f"{status}\n{words}".encode(), status=line)


def prefers_json(accept: str) -> bool:
    """Check whether an `Accept` header (RFC 9110, 12.5.1) allows JSON and ranks plain text no higher.

    `*/*` alone, as curl sends it, does not name JSON: it gets plain text.
    """
    quality: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        quality[kind] = next((_quality(word[2:]) for word in parameters if word.startswith("q=")), 1.0)
    json = quality.get("application/json", quality.get("application/*", 0.0))
    text = quality.get("text/plain", quality.get("text/*", quality.get("*/*", 0.0)))
    return json > 0 and json >= text


def _quality(word: str) -> float:
    """Parse a weight (`q=`) from 0 to 1; an invalid one counts as 0."""
    return float(word) if re.fullmatch(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", word) else 0.0


def _accepted(head: bytes) -> str:
    """Join the values of all `Accept` lines of a request."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return ",".join(value.decode("latin-1") for name, _, value in lines if name.strip().lower() == b"accept")


async def _head(stream: SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
        head += await stream.receive(HEAD_BYTES_MAX - len(head))
    return head


def _response(method: bytes, reply: HttpReply) -> bytes:
    head = (
        f"HTTP/1.1 {reply.status}\r\nContent-Type: {reply.kind}\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(reply.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else reply.body)
