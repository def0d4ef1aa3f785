"""Output in blocks is that of `LineSplitter`, line for line, whatever is asked for of it."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from airunner.client import loglines
from airunner.client.loglines import LineSplitter
from airunner.client.web.api import outputorder
from airunner.client.web.api.byteranges import WantedBytes, wanted_bytes
from airunner.client.web.api.outputorder import LineWindow, OutputOrder
from airunner.protocol.events import STREAMS, Event, Heartbeat, Output, Stream
from airunner.protocol.names import JobId

LONG = 6  # bytes after which a line is cut, instead of 64 KiB

output = st.builds(
    Output,
    timestamp_ms=st.just(0),
    stream=st.sampled_from(STREAMS),
    data=st.lists(st.sampled_from([b"a", b"bcd", b"efghi", b"\n"]), min_size=1, max_size=5).map(b"".join),
)
bodies = st.lists(st.tuples(st.integers(0, 1), output | st.just(Heartbeat(timestamp_ms=0))), max_size=12)
streams = st.sets(st.sampled_from(STREAMS), min_size=1)


def numbered(log: list[tuple[int, Output | Heartbeat]]) -> list[Event]:
    """The events of a log, of which some begin another attempt."""
    attempt = 1
    events: list[Event] = []
    for more, body in log:
        attempt += more
        events.append(Event(job_id=JobId("j"), sequence=len(events) + 1, attempt=attempt, body=body))
    return events


@given(bodies, streams, st.integers(0, 9), st.none() | st.integers(0, 9))
def test_some_lines_of_the_output_are_those_of_the_line_splitter(
    log: list[tuple[int, Output | Heartbeat]], shown: set[Stream], skip: int, count: int | None
) -> None:
    events = numbered(log)
    with patch.object(loglines, "LINE_BYTES_MAX", LONG), patch.object(outputorder, "LINE_BYTES_MAX", LONG):
        splitter, order, window = LineSplitter(), OutputOrder(), LineWindow(shown, skip, count)
        lines = [line for event in events for line in splitter.feed(event)] + [*splitter.finish()]
        blocks = [block for event in events for block in order.feed(event)] + [*order.finish()]
        found = b"".join(map(window.part, blocks))
    assert sum(block.lines for block in blocks) == len(lines)
    wanted = lines[skip:] if count is None else lines[skip : skip + count]
    assert found == b"".join(line.data for line in wanted if line.stream in shown)


def test_a_range_is_of_the_bytes_that_are_there() -> None:
    whole = b"0123456789"
    table = {
        "bytes=0-3": b"0123",
        "bytes=7-": b"789",
        "bytes=7-99": b"789",
        "bytes=-4": b"6789",
        "bytes=-99": whole,
        "bytes= 9-9 ": b"9",
        "bytes=10-": None,
        "bytes=-0": None,
    }
    for header, part in table.items():
        wanted = wanted_bytes(header)
        assert wanted is not None, header
        found = wanted.of(len(whole))
        assert (None if found is None else whole[found.start : found.stop]) == part, header
    assert WantedBytes(0, 0).of(0) is None
    for ignored in ("", "bytes=-", "bytes=3-2", "lines=0-1", "bytes=0-1,3-4", "bytes=a-b", "bytes=0-1x"):
        assert wanted_bytes(ignored) is None, ignored
