"""Lines of a job's output: put together from events, searched, and kept from the end. Pure.

```
 OUTPUT events ──► LineSplitter ──lines──► Search (--grep, -C) ──► Tail (--tail) ──► printed
```

A line has the time and the sequence of the event in which it begins; lines of stdout and stderr are separate. Memory is
bounded: a line is cut after `LINE_BYTES_MAX`, and a tail has at most `TAIL_BYTES_MAX`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from airunner.protocol.events import STREAMS, Event, Output, Stream
from airunner.protocol.logsearch import LINE_BYTES_MAX

OUTPUT_KINDS: Final = ("OUTPUT", "OUTPUT_TRUNCATED")
"""Kinds of the events of which output consists: the output, and where some of it is missing."""
TAIL_BYTES_MAX: Final = 64 * 1_048_576
TAIL_LINES_MAX: Final = 1_000_000
CONTEXT_LINES_MAX: Final = 1_000
_COLOURS: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a search ignores them: ^error finds a red one too


class Line(Struct, frozen=True):
    """Line of output, with its newline unless it is cut or not ended; `partial`: its beginning may be missing."""

    stream: Stream
    data: bytes
    sequence: int
    attempt: int
    timestamp_ms: int
    partial: bool = False

    @property
    def text(self) -> str:
        """Text of the line without its newline; what is not UTF-8 is replaced."""
        return self.data.decode(errors="replace").rstrip("\r\n")


SEPARATOR: Final = Line(Stream.STDOUT, b"--\n", 0, 0, 0)
"""Line between two places that a search has found, as grep prints it."""


class LineSplitter:
    """Line splitter: puts a job's lines together from its output, read from the beginning or from anywhere."""

    def __init__(self, *, from_beginning: bool = True) -> None:
        self._begun: dict[Stream, tuple[Line, bytearray]] = {}  # each unfinished line, and its text so far
        self._attempt = 0
        self._unread = set[Stream]() if from_beginning else set(STREAMS)  # streams whose next output may go on a line

    def feed(self, event: Event) -> Iterator[Line]:
        """Split the next event into the lines that end in it. A new attempt ends the lines of the one before."""
        if not isinstance(event.body, Output):
            return
        if event.attempt != self._attempt:
            if self._attempt:
                self._unread.clear()
            self._attempt = event.attempt
            yield from self.finish()
        stream = event.body.stream
        fresh = Line(stream, b"", event.sequence, event.attempt, event.timestamp_ms)
        if stream in self._unread:
            self._unread.remove(stream)
            self._begun[stream] = replace(fresh, partial=True), bytearray()
        *ends, rest = event.body.data.split(b"\n")
        for end in ends:
            if stream in self._begun:
                first, text = self._begun.pop(stream)
                yield replace(first, data=bytes(text) + end + b"\n")
            else:
                yield Line(stream, end + b"\n", fresh.sequence, fresh.attempt, fresh.timestamp_ms)
        if rest:
            first, begun = self._begun.setdefault(stream, (fresh, bytearray()))
            begun += rest
            if len(begun) > LINE_BYTES_MAX:
                yield replace(first, data=bytes(self._begun.pop(stream)[1]))

    def finish(self) -> Iterator[Line]:
        """Return the unfinished lines: no more output comes."""
        begun, self._begun = self._begun, {}
        for first, text in begun.values():
            yield replace(first, data=bytes(text))


class Search:
    """Search for lines that match `pattern`, with `context` lines before and after each, as `grep -C` does.

    Colours are ignored. Bytes that are not UTF-8 match no character of a pattern but `.` and the like.
    """

    def __init__(self, pattern: re.Pattern[str], context: int = 0) -> None:
        self._pattern = pattern
        self._context = context
        self._before: deque[Line] = deque(maxlen=context)
        self._after = 0  # lines to come that belong to the last match
        self._skipped = False  # whether lines were left out since the last line found
        self._found = False

    def feed(self, line: Line) -> Iterator[Line]:
        """Return the lines that are known to be wanted with the next one."""
        text = line.data.decode(errors="surrogateescape").rstrip("\r\n")
        if self._pattern.search(_COLOURS.sub("", text) if "\x1b" in text else text):
            if self._context and self._found and self._skipped:
                yield SEPARATOR
            yield from self._before
            yield line
            self._before.clear()
            self._after, self._found, self._skipped = self._context, True, False
        elif self._after:
            self._after -= 1
            yield line
        else:
            self._skipped |= len(self._before) == self._context
            self._before.append(line)


class Tail:
    """Tail of lines: the last `lines_max`, or as many of them as fit in `bytes_max`."""

    def __init__(self, lines_max: int, bytes_max: int = TAIL_BYTES_MAX) -> None:
        self.lines: deque[Line] = deque()
        self.fed = 0  # lines in all
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._bytes = 0

    @property
    def too_large(self) -> bool:
        """Whether lines are missing because they would take too much memory."""
        return len(self.lines) < min(self._lines_max, self.fed)

    def feed(self, lines: Iterable[Line]) -> None:
        """Add the next lines, and drop those that are not among the last any more."""
        for line in lines:
            self.fed += 1
            self.lines.append(line)
            self._bytes += len(line.data)
            while len(self.lines) > self._lines_max or self._bytes > self._bytes_max:
                self._bytes -= len(self.lines.popleft().data)
