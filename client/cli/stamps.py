"""Timestamps in front of a job's lines, of the time of day, of the time since its command began, or in full. Pure.

A line gets the time at which its first byte was written, even if the line comes in several pieces; lines of stdout and
stderr are separate. Text that overwrites a line after a carriage return is a line too.
"""

from __future__ import annotations

import re
import time
from enum import StrEnum
from typing import Final

from airunner.client.cli.wording import millisecond_text
from airunner.protocol.events import AgentBody, Event, Output, ProcessStart, Stream

_LINES: Final = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")


class Timestamps(StrEnum):
    """Timestamp of a line: local time of day `[14:03:59]`; since the command began `[+3.0s]`; or RFC 3339 in UTC."""

    CLOCK = "clock"
    RELATIVE = "relative"
    FULL = "full"


class Stamps:
    """Timestamps of a job's lines.

    Relative timestamps never compare two clocks: they count from the start of the attempt's command, or before it from
    the first event of its agent; the broker's own events have none.
    """

    def __init__(self, kind: Timestamps) -> None:
        self._kind = kind
        self._starts: dict[Stream, bytes] = dict.fromkeys(Stream, b"\n")  # last byte of the output; empty within a line
        self._attempt = 0
        self._began_ms: int | None = None

    def note(self, event: Event) -> None:
        """Record the start of an attempt or its command from the next event, whether it is shown or not."""
        if event.attempt != self._attempt:
            self._attempt, self._began_ms = event.attempt, None
        if isinstance(event.body, ProcessStart) or (self._began_ms is None and isinstance(event.body, AgentBody)):
            self._began_ms = event.timestamp_ms

    def stamp(self, event: Event) -> str:
        """Format the timestamp in front of a line of this event, with a space after it."""
        if self._kind is Timestamps.FULL:
            return f"{millisecond_text(event.timestamp_ms)} "
        if self._kind is Timestamps.CLOCK:
            return time.strftime("[%H:%M:%S] ", time.localtime(event.timestamp_ms / 1_000))
        if self._began_ms is None or not isinstance(event.body, AgentBody):
            return ""
        return f"[{(event.timestamp_ms - self._began_ms) / 1_000:+.1f}s] "

    def lines(self, event: Event, output: Output) -> bytes:
        """Format output with a timestamp at the beginning of each line."""
        stamp = self.stamp(event).encode()
        pieces: list[bytes] = []
        before = self._starts[output.stream]
        for piece in _LINES.findall(output.data):
            if not piece:
                break
            if before and not (before == b"\r" and piece == b"\n"):
                pieces.append(stamp)
            pieces.append(piece)
            before = piece[-1:] if piece[-1:] in b"\r\n" else b""
        self._starts[output.stream] = before
        return b"".join(pieces)
