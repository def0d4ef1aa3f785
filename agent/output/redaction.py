"""Redaction of one attempt: removes the job's secrets from streams of output and from messages. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

import msgspec

from airunner.agent.output.redactor import Redactor
from airunner.protocol.events import (
    STREAMS,
    AgentBody,
    Artifact,
    GitCloneEnd,
    GitCloneError,
    GitCloneProgress,
    GitCloneStart,
    Heartbeat,
    Kept,
    LogSigned,
    Output,
    OutputTruncated,
    ProcessEnd,
    ProcessError,
    ProcessStart,
    Returned,
    Stream,
    TerminalResize,
)
from airunner.protocol.names import TEXT_CHARS_MAX


class Redaction:
    """Redaction of one attempt. The last bytes of a stream may be held back for a time (see `redactor.py`)."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._streams = {stream: redactor.stream() for stream in STREAMS}

    def output(self, stream: Stream, piece: bytes) -> bytes:
        """Redact a piece of output; return the bytes to log now, which may be more than the piece."""
        return self._streams[stream].feed(piece)

    def finish(self) -> Iterator[tuple[Stream, bytes]]:
        """Return the bytes that each stream held back: the output has ended."""
        for stream, redacting in self._streams.items():
            if rest := redacting.finish():
                yield stream, rest

    def body(self, body: AgentBody) -> AgentBody:
        """Redact an event that is not output."""
        if self._redactor.idle:
            return body
        match body:
            case GitCloneStart():
                return msgspec.structs.replace(
                    body,
                    repository=self._text(body.repository),
                    commit=self._text(body.commit),
                    branch=self._text(body.branch),
                )
            case GitCloneProgress() | GitCloneError() | ProcessError():
                return msgspec.structs.replace(body, message=self._text(body.message))
            case Artifact():
                return msgspec.structs.replace(body, path=self._text(body.path), target=self._text(body.target))
            case (
                GitCloneEnd()
                | ProcessStart()
                | ProcessEnd()
                | Heartbeat()
                | TerminalResize()
                | OutputTruncated()
                | Returned()
                | Kept()
            ):
                return body  # has only numbers and hashes
            case Output():
                raise AssertionError("Output must be redacted by `output`")
            case LogSigned():
                raise AssertionError("the outbox signs what is redacted")
            case _:
                assert_never(body)

    def _text(self, text: str) -> str:
        return self._redactor.text(text)[: max(len(text), TEXT_CHARS_MAX)]
