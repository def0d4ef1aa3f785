"""Connections of the web server: uvicorn's HTTP/1.1, with deadlines for clients that hold a connection and do nothing.

There are `CONNECTIONS_MAX` connections. Without these deadlines a client that sends half of a request on each, or reads
no answer, would keep all others out for ever.

| a connection waits for | and ends after |
|---|---|
| a whole head of a request, once it is open or a byte of it is there | `HEAD_S` |
| the rest of a body that was answered already, such as one that is too large | `HEAD_S` |
| the next request | `KEEP_ALIVE_S`, by uvicorn |
| a body that a route reads | `BODY_S`, by the guards |
| the client to read what was sent | `STALL_S` |
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_S: Final = 10.0  # for a head: it is one packet, even by a slow network
STALL_S: Final = 60.0  # for 64 KiB of an answer to be read: a network that is slower is none


class Timer(Protocol):
    """Timer of the event loop."""

    def cancel(self) -> None:
        """Prevent its call."""
        ...


class Connection(H11Protocol):
    """Connection of a client, with the deadlines above."""

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*given, **named)
        self._head: Timer | None = None
        self._stall: Timer | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's, which nothing else here needs
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        """Wait for the client to read the rest of an answer, also when the connection closes then."""
        super().on_response_complete()
        if self._stall is None and self.transport.get_write_buffer_size():
            self._stall = self.loop.call_later(STALL_S, self._end_stalled)

    def pause_writing(self) -> None:
        """Wait for the client, which reads slower than is written."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_S, self._end_stalled)

    def resume_writing(self) -> None:
        """Write on: the client reads."""
        super().resume_writing()
        _cancel(self._stall)
        self._stall = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End the deadlines with the connection."""
        _cancel(self._head)
        _cancel(self._stall)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        """Start the deadline of a head that has not come whole; its next bytes do not extend it."""
        cycle: RequestResponseCycle | None = getattr(self, "cycle", None)  # None at first, whatever its type says
        is_answering = cycle is not None and not cycle.response_complete
        if is_answering or self.transport.is_closing():
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.transport.abort)

    def _end_stalled(self) -> None:
        self._stall = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()


def _cancel(timer: Timer | None) -> None:
    if timer is not None:
        timer.cancel()
