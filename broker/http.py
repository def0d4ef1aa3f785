"""/health and /metrics over HTTP/1.1, without authentication: a load balancer's and a scraper's door.

One request a connection, of which only the first line matters; everything else it could say is read no
further than `HEAD_BYTES_MAX`. It answers from the event loop, so a broker that hangs is not healthy.
"""

from __future__ import annotations

from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener

from airunner.broker.counts import Counts
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError
from airunner.protocol.names import PORT_MAX

HEAD_BYTES_MAX: Final = 8_192
HEAD_S_MAX: Final = 5
CONNECTIONS_MAX: Final = 64  # further ones are closed at once: a scraper comes again
REST_S: Final = 0.1  # when the system has no descriptor for another connection


class HttpDoor:
    """The actor; `address` is where it really listens."""

    def __init__(self, listener: MultiListener[SocketStream], counts: Counts) -> None:
        self._listener = listener
        self._counts = counts
        self._served = 0
        address = listener.extra(SocketAttribute.local_address)
        assert isinstance(address, tuple), "a TCP socket's address"
        self.address = f"{address[0]}:{address[1]}"

    async def run(self) -> None:
        """Serve for ever."""
        async with self._listener, anyio.create_task_group() as group:
            for listener in self._listener.listeners:
                assert isinstance(listener, SocketListener), "what a TCP listener is made of"
                group.start_soon(self._accept, listener, group)

    async def _accept(self, listener: SocketListener, group: TaskGroup) -> None:
        """Let them in; whoever knocks here may be anybody, and ends nothing."""
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
                        await stream.send(self._respond(await _head(stream)))
                        await stream.send_eof()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        pass  # the asker has left
        finally:
            self._served -= 1

    def _respond(self, head: bytes) -> bytes:
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [b"GET" | b"HEAD" as method, path, version] if version.startswith(b"HTTP/1."):
                route = path.split(b"?", 1)[0]
            case _:
                return _response(b"GET", "400 Bad Request", "only GET is answered here\n")
        if route == b"/health":
            return _response(method, "200 OK", "ok\n")
        if route == b"/metrics":
            return _response(method, "200 OK", self._counts.exposition())
        return _response(method, "404 Not Found", "there are /health and /metrics\n")


async def open_http(address: str, counts: Counts) -> HttpDoor:
    """The door at HOST:PORT; port 0 picks a free one.

    Raises `OperatorError`.
    """
    host, _, port = address.removeprefix("http://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise OperatorError(f"--http {address!r} is not an address; write HOST:PORT")
    try:
        group = await anyio.create_tcp_listener(local_host=host, local_port=int(port))
    except OSError as error:
        raise OperatorError(
            f"cannot serve HTTP on {address}: {error.strerror or error}; name another address with --http",
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    return HttpDoor(group, counts)


async def _head(stream: SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
        head += await stream.receive(HEAD_BYTES_MAX - len(head))
    return head


def _response(method: bytes, status: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
