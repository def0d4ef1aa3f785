"""Log search: the lines that a search finds, and the place where the next request goes on; for requests and replies.

Lines are numbered from 1, in the order in which `airunner logs` prints them: a line has its place where it ends, lines
of stdout and stderr are separate, and a new attempt ends the lines of the one before. A line is cut after the event
with which it has more than `LINE_BYTES_MAX`.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from airunner.protocol.events import OUTPUT_BYTES_MAX, STREAMS, Stream
from airunner.protocol.names import Natural, Positive

LINE_BYTES_MAX: Final = 65_536  # a longer line is cut into several
SHOWN_BYTES_MAX: Final = 8_192  # bytes of a line that are shown: far more than a screen has room for
CONTEXT_MAX: Final = 16  # lines of context before a match, and as many after it: the place carries them
LIMIT_MAX: Final = 1_000  # lines in one reply
PATTERN_CHARS_MAX: Final = 1_024

ShownBytes = Annotated[bytes, Meta(max_length=SHOWN_BYTES_MAX)]
Context = Annotated[int, Meta(ge=0, le=CONTEXT_MAX)]


class LogLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Line of a log, with its newline unless it is cut or not ended; `data` are those of its bytes in `shown_of`.

    It begins in the event `sequence`, at `offset` in the bytes of that event's output. `line` is its number.
    """

    line: Positive
    sequence: Positive
    offset: Natural = 0
    attempt: Natural
    stream: Stream
    timestamp_ms: Natural
    data: ShownBytes
    size_bytes: Natural  # of the whole line
    match: bool = True  # false: context of a match

    @property
    def text(self) -> str:
        """Text of `data` without its newline; what is not UTF-8 is replaced."""
        return self.data.decode(errors="replace").rstrip("\r\n")

    @property
    def cut_bytes(self) -> int:
        """Number of bytes at the end of the line that are not in `data`; 0 also if those at its beginning are not."""
        return self.size_bytes - len(self.data) if len(self.data) == SHOWN_BYTES_MAX else 0


def shown_of(line: bytes) -> bytes:
    """Return the bytes of a line that are shown: all, or its first `SHOWN_BYTES_MAX`.

    Of a long line that carriage returns overwrite, as a progress bar, they are its last ones, from a carriage return on
    and fewer than `SHOWN_BYTES_MAX`: what a terminal shows of it at the end.
    """
    if len(line) <= SHOWN_BYTES_MAX:
        return line
    overwritten = line.find(b"\r", len(line) - SHOWN_BYTES_MAX) + 1
    end = len(line.rstrip(b"\r\n"))
    return line[overwritten:] if 0 < overwritten < end else line[:SHOWN_BYTES_MAX]


class UnfinishedLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Unfinished line of a stream at a place in the log: where it begins, and its bytes so far."""

    stream: Stream
    sequence: Positive
    offset: Natural = 0
    attempt: Natural
    timestamp_ms: Natural
    data: Annotated[bytes, Meta(min_length=1, max_length=LINE_BYTES_MAX)]


class SearchPlace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Place in a log where a search goes on: at `offset` in the output of the event `sequence`, after `lines` lines.

    A place from one reply is valid for any search of the same job; `before` and `after` are of the search that it is
    from: lines that a match may need as context, and how many lines are still context of the last match.
    """

    sequence: Positive
    offset: Annotated[int, Meta(ge=0, le=OUTPUT_BYTES_MAX)] = 0
    lines: Natural = 0
    attempt: Natural = 0  # of the last output before this place
    unfinished: Annotated[tuple[UnfinishedLine, ...], Meta(max_length=len(STREAMS))] = ()
    before: Annotated[tuple[LogLine, ...], Meta(max_length=CONTEXT_MAX)] = ()
    after: Context = 0

    def __post_init__(self) -> None:
        """Check the unfinished lines; raises `ValueError`: two of them are of one stream."""
        if len({line.stream for line in self.unfinished}) < len(self.unfinished):
            raise ValueError("place: a stream has one unfinished line at most")


START: Final = SearchPlace(sequence=1)
"""Place where every log begins."""
