"""Streams of a job: what is sent piece by piece, while the job writes it and the reader takes it.

A piece waits until the reader has taken what is before it, and the log is read no faster; so memory stays flat. A
reader that takes nothing for `SEND_S` loses its stream, and resumes it from the last id that it has received. What
cannot be sent whole is cut off, so that no reader takes it for whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airunner.client.web.api.operation import Call
from airunner.client.web.live import Live
from airunner.protocol.errors import AirunnerError

SEND_S: Final = 30.0  # in which a reader takes the next piece; a slow link carries a piece in 8 s
PING_S: Final = 15  # between two comments: proxies close a connection that is silent for a minute
PIECE_BYTES: Final = 65_536
EVENT_STREAM: Final = "text/event-stream"


class _CutError(Exception):
    """The stream cannot go on."""


class _Streaming(EventSourceResponse):
    """Streaming answer of any media type; a stream that is cut has no end that could be taken for its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        with suppress(SendTimeoutError, _CutError):
            await super().__call__(scope, receive, send)


def streamed(
    call: Call[object],
    pieces: AsyncGenerator[bytes],
    kind: str,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Make the answer that sends these pieces, until they or the session end. An error of airunner cuts it off."""
    streaming = _Streaming(
        _cut(pieces),
        status_code=status,
        headers=headers,
        media_type=kind,
        ping=PING_S if kind == EVENT_STREAM else 0,
        ping_message_factory=lambda: ServerSentEvent(comment="", sep="\n"),
        sep="\n",
        send_timeout=SEND_S,
    )
    return Live(call.services, call.login, streaming)


async def _cut(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                for part in parts_of(piece):
                    yield part
    except AirunnerError as error:
        raise _CutError from error


def parts_of(piece: bytes) -> Iterator[bytes]:
    """Divide a piece into parts that are sent one after the other."""
    for at in range(0, len(piece), PIECE_BYTES):
        yield piece[at : at + PIECE_BYTES]
