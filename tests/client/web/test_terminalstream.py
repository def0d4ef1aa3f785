"""Frames of a terminal's output: what a page makes of them is what the job wrote, from any sequence on."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from airunner.client.web.terminalstream import HEAD, OUTPUT_BYTES_MAX, SIZE, FrameKind, frames
from airunner.protocol.events import (
    Event,
    EventBody,
    Heartbeat,
    JobFinished,
    JobLeased,
    Output,
    ProcessStart,
    Stream,
    TerminalResize,
)
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId


def events_of(*bodies: EventBody, attempt: int = 1) -> list[Event]:
    return [
        Event(job_id=JobId("0" * 36), sequence=number, attempt=attempt, body=body)
        for number, body in enumerate(bodies, start=1)
    ]


def out(data: bytes) -> Output:
    return Output(timestamp_ms=0, stream=Stream.STDOUT, data=data)


def decoded(stream: bytes) -> Iterator[tuple[FrameKind, int, bytes]]:
    at = 0
    while at < len(stream):
        size, kind, sequence = HEAD.unpack_from(stream, at)
        at += HEAD.size + size
        yield FrameKind(kind), int(sequence), stream[at - size : at]


def test_each_event_that_a_terminal_needs_has_a_frame() -> None:
    log = events_of(
        JobLeased(timestamp_ms=0, agent="a"),
        ProcessStart(timestamp_ms=0, pid=1, started_at=0),
        out(b"one"),
        Heartbeat(timestamp_ms=0),
        TerminalResize(timestamp_ms=0, cols=100, rows=30),
        out(b"two"),
        out(b"three"),
        JobFinished(timestamp_ms=0, state=JobState.COMPLETED),
    )
    assert list(decoded(b"".join(frames(log)))) == [
        (FrameKind.STATE, 1, b""),
        (FrameKind.STATE, 2, b""),
        (FrameKind.OUTPUT, 3, b"one"),
        (FrameKind.SIZE, 5, SIZE.pack(100, 30)),
        (FrameKind.OUTPUT, 7, b"twothree"),
        (FrameKind.END, 8, b""),
    ]


def test_another_attempt_begins_on_an_empty_screen() -> None:
    log = events_of(JobLeased(timestamp_ms=0, agent="a"), attempt=2)
    assert [kind for kind, *_ in decoded(b"".join(frames(log)))] == [FrameKind.ATTEMPT]


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=20), st.data())
def test_a_page_that_reads_on_after_any_frame_gets_every_byte_once(writes: list[bytes], drawn: st.DataObject) -> None:
    log = events_of(*map(out, writes))
    got, last = b"", 0
    while last < len(log):
        batch = log[last : last + drawn.draw(st.integers(1, 6))]  # then the connection is lost
        for _, sequence, data in decoded(b"".join(frames(batch))):
            assert sequence > last
            got, last = got + data, sequence
    assert got == b"".join(writes)


def test_frames_are_bounded() -> None:
    sizes = [len(data) for *_, data in decoded(b"".join(frames(events_of(*[out(b"x" * 40_000)] * 4))))]
    assert max(sizes) <= OUTPUT_BYTES_MAX
    assert sum(sizes) == 160_000
