"""Lines that a search shows: whole, cut at their end, or of a progress bar what a terminal shows at the end."""

from __future__ import annotations

import pytest

from airunner.protocol.events import Stream
from airunner.protocol.logsearch import SHOWN_BYTES_MAX, LogLine, shown_of

LONG = b"x" * (SHOWN_BYTES_MAX + 100)
BAR = b"".join(b"\rcoverage %d %%" % percent for percent in range(1_000))


@pytest.mark.parametrize(
    ("line", "begins", "ends", "cut_bytes"),
    [
        (b"short\n", b"short", b"short\n", 0),
        (b"x" * SHOWN_BYTES_MAX, b"x", b"x", 0),
        (LONG + b"\n", b"x", b"x", 101),
        (LONG + b"\r\n", b"x", b"x", 102),
        (b"9 %\r" + LONG + b"\n", b"9 %", b"x", 105),
        (BAR, b"coverage ", b"coverage 999 %", 0),
        (BAR + b" done\n", b"coverage ", b"coverage 999 % done\n", 0),
        (LONG + b"\rdone\r\n", b"done", b"done\r\n", 0),
    ],
)
def test_a_long_line_is_cut_at_its_end_and_a_progress_bar_at_its_beginning(
    line: bytes, begins: bytes, ends: bytes, cut_bytes: int
) -> None:
    data = shown_of(line)
    assert len(data) <= SHOWN_BYTES_MAX
    assert (data[: len(begins)], data[-len(ends) :]) == (begins, ends)
    hit = LogLine(line=1, sequence=1, attempt=1, stream=Stream.STDOUT, timestamp_ms=0, data=data, size_bytes=len(line))
    assert hit.cut_bytes == cut_bytes
