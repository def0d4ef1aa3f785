"""Output of a job in the order of its lines, as `airunner logs` prints it, in few large pieces; and some lines of it.

`LineSplitter` is the law: a line stands where it ends, a new attempt ends the lines of the one before, and a line that
is too long is cut. Here whole blocks of lines stay together, so that a large log is not split into a million pieces.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

from airunner.protocol.events import STREAMS, Event, Output, Stream
from airunner.protocol.logsearch import LINE_BYTES_MAX, START, SearchPlace

NEWLINE: Final = b"\n"


class Block(Struct, frozen=True):
    """Block of whole lines of one stream, as many as `lines`."""

    stream: Stream
    data: bytes
    lines: int


class OutputOrder:
    """Order of output, from a place in the log on: takes events, and returns the lines that end in them."""

    def __init__(self, place: SearchPlace = START) -> None:
        self._skipped = place.sequence, place.offset  # bytes of an event before the place
        self._attempt = place.attempt
        self._begun = {line.stream: bytearray(line.data) for line in place.unfinished}  # in the order of their begins

    def feed(self, event: Event) -> Iterator[Block]:
        """Return the lines that end in the next event."""
        if not isinstance(event.body, Output):
            return
        if event.attempt != self._attempt:
            self._attempt = event.attempt
            yield from self.finish()
        stream, data = event.body.stream, event.body.data
        if event.sequence == self._skipped[0]:
            data = data[self._skipped[1] :]
        if end := data.rfind(NEWLINE) + 1:
            whole = bytes(self._begun.pop(stream, b"")) + data[:end]
            yield Block(stream, whole, data.count(NEWLINE))
        if end < len(data):
            begun = self._begun.setdefault(stream, bytearray())
            begun += data[end:]
            if len(begun) > LINE_BYTES_MAX:
                yield Block(stream, bytes(self._begun.pop(stream)), 1)

    def finish(self) -> Iterator[Block]:
        """Return the unfinished lines: no more output comes."""
        begun, self._begun = self._begun, {}
        for stream, text in begun.items():
            yield Block(stream, bytes(text), 1)


class LineWindow:
    """Window of a log: of the next blocks, `skip` lines are left out, and `lines` follow, or all; of some streams."""

    def __init__(self, streams: Collection[Stream] = STREAMS, skip: int = 0, lines: int | None = None) -> None:
        self._streams = streams
        self._skip = skip
        self._left = lines

    @property
    def done(self) -> bool:
        """Whether nothing of what follows is in the window."""
        return self._left == 0

    def part(self, block: Block) -> bytes:
        """Return what of the next block is in the window."""
        data, lines = block.data, block.lines
        if self._skip:
            skipped = min(self._skip, lines)
            self._skip -= skipped
            data, lines = data[_end_of(data, skipped, lines) :], lines - skipped
        if self._left is not None:
            kept = min(self._left, lines)
            self._left -= kept
            data = data[: _end_of(data, kept, lines)]
        return data if block.stream in self._streams else b""


def _end_of(data: bytes, line: int, lines: int) -> int:
    """Return where a line of a block ends, counted from 1; the block has so many lines."""
    if line == lines:
        return len(data)
    return len(data) - len(data.split(NEWLINE, line)[-1]) if line else 0
