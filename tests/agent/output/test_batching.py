"""When what a job writes goes out: prompts at once, floods in pieces, and short jobs in one request."""

from __future__ import annotations

import pytest

from airunner.agent.output.batching import (
    FLUSH_BYTES,
    FLUSH_EVENTS,
    PIPE_WINDOW_MS,
    TERMINAL_WINDOW_MS,
    Batcher,
    FlushPlan,
    flush_plan,
)
from airunner.protocol.blobs import Slice
from airunner.protocol.compression import BATCH_BYTES_MAX
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import OUTPUT_BYTES_MAX, SLICES_MAX, Artifact, Heartbeat, Output, Stream, encode_bodies

LATER_MS = 1_000_000


def wrote(batcher: Batcher, data: bytes, now_ms: int, stream: Stream = Stream.STDOUT) -> None:
    batcher.add_output(stream, data, now_ms, now_ms)


@pytest.mark.parametrize("window_ms", [PIPE_WINDOW_MS, TERMINAL_WINDOW_MS])
def test_the_first_bytes_after_quiet_are_due_at_once_and_what_follows_after_the_window(window_ms: int) -> None:
    batcher = Batcher(window_ms)
    assert batcher.due_ms(LATER_MS) is None
    wrote(batcher, b"Password: ", LATER_MS)
    assert batcher.due_ms(LATER_MS) == LATER_MS
    batcher.next_batch(LATER_MS)
    wrote(batcher, b"more", LATER_MS + 1)
    assert batcher.due_ms(LATER_MS + 1) == LATER_MS + window_ms


def test_while_an_answer_is_owed_all_gathers_but_no_longer_than_the_window() -> None:
    batcher = Batcher(PIPE_WINDOW_MS)
    batcher.add(Heartbeat(timestamp_ms=1), LATER_MS)
    wrote(batcher, b"out", LATER_MS + 50)
    assert batcher.due_ms(LATER_MS + 50, busy=True) == LATER_MS + PIPE_WINDOW_MS
    assert batcher.due_ms(LATER_MS + 50) == LATER_MS + 50
    assert batcher.due_ms(LATER_MS + 2 * PIPE_WINDOW_MS, busy=True) == LATER_MS + 2 * PIPE_WINDOW_MS
    batcher.next_batch(LATER_MS + 200)
    batcher.add(Heartbeat(timestamp_ms=1), LATER_MS + 300)
    assert batcher.due_ms(LATER_MS + 300, busy=True) == LATER_MS + 300 + PIPE_WINDOW_MS


def test_what_is_not_output_waits_for_no_window() -> None:
    batcher = Batcher(PIPE_WINDOW_MS)
    batcher.next_batch(LATER_MS)
    batcher.add(Heartbeat(timestamp_ms=1), LATER_MS + 1)
    assert batcher.due_ms(LATER_MS + 1) == LATER_MS + 1


def test_a_full_batch_is_due_at_once_whatever_is_owed() -> None:
    batcher = Batcher(PIPE_WINDOW_MS)
    batcher.next_batch(LATER_MS)
    for _ in range(FLUSH_BYTES // OUTPUT_BYTES_MAX):
        assert batcher.due_ms(LATER_MS + 1, busy=True) != LATER_MS + 1
        wrote(batcher, bytes(OUTPUT_BYTES_MAX), LATER_MS + 1)
    assert batcher.due_ms(LATER_MS + 1, busy=True) == LATER_MS + 1
    batcher.next_batch(LATER_MS + 1)
    for _ in range(FLUSH_EVENTS):
        batcher.add(Heartbeat(timestamp_ms=1), LATER_MS + 2)
    assert batcher.due_ms(LATER_MS + 2, busy=True) == LATER_MS + 2


def test_when_output_goes_out_is_the_operators_to_say() -> None:
    usual = flush_plan(None, 256)
    assert usual == FlushPlan()
    for terminal, window_ms in ((False, PIPE_WINDOW_MS), (True, TERMINAL_WINDOW_MS)):
        assert _second_due_ms(usual.batcher(terminal=terminal)) == window_ms
        assert _second_due_ms(flush_plan("1.5s", 256).batcher(terminal=terminal)) == 1_500
    small = flush_plan("10s", 2).batcher(terminal=False)
    small.next_batch(LATER_MS)
    wrote(small, bytes(2_047), LATER_MS)
    assert small.due_ms(LATER_MS) == LATER_MS + 10_000
    wrote(small, b"x", LATER_MS)
    assert small.due_ms(LATER_MS) == LATER_MS


@pytest.mark.parametrize("interval", ["1ms", "11s", "100", "soon", ""])
def test_an_interval_that_helps_nobody_is_refused(interval: str) -> None:
    with pytest.raises(OperatorError, match="--flush-interval"):
        flush_plan(interval, 256)


def _second_due_ms(batcher: Batcher) -> int:
    wrote(batcher, b"a", LATER_MS)
    batcher.next_batch(LATER_MS)
    wrote(batcher, b"b", LATER_MS)
    due_ms = batcher.due_ms(LATER_MS)
    assert due_ms is not None
    return due_ms - LATER_MS


def test_neighbours_of_one_stream_become_one_event_and_nothing_is_reordered() -> None:
    batcher = Batcher(PIPE_WINDOW_MS)
    wrote(batcher, b"a", 1)
    wrote(batcher, b"b", 2)
    wrote(batcher, b"c", 3, Stream.STDERR)
    batcher.add(Heartbeat(timestamp_ms=4), 4)
    wrote(batcher, bytes(OUTPUT_BYTES_MAX - 1), 5)
    wrote(batcher, b"de", 6)
    shown = [(one.stream, len(one.data)) if isinstance(one, Output) else one for one in batcher.next_batch(7)]
    assert shown == [
        (Stream.STDOUT, 2),
        (Stream.STDERR, 1),
        Heartbeat(timestamp_ms=4),
        (Stream.STDOUT, OUTPUT_BYTES_MAX - 1),
        (Stream.STDOUT, 2),
    ]
    assert batcher.next_batch(8) == []


def test_a_full_piece_is_not_copied() -> None:
    batcher = Batcher(PIPE_WINDOW_MS)
    pieces = [bytes([number]) * OUTPUT_BYTES_MAX for number in range(3)]
    for piece in pieces:
        wrote(batcher, piece, LATER_MS)
    bodies = batcher.next_batch(LATER_MS)
    assert len(bodies) == len(pieces)
    for body, piece in zip(bodies, pieces, strict=True):
        assert isinstance(body, Output)
        assert body.data is piece


def test_a_batch_of_large_files_is_within_the_bound_of_a_batch() -> None:
    batcher = Batcher(PIPE_WINDOW_MS)
    slices = tuple(Slice(bytes([number % 256]) * 32, number * 1_000_000, 1_000_000) for number in range(SLICES_MAX))
    for number in range(100):
        path = "\U0001f600" * 4_096
        batcher.add(Artifact(timestamp_ms=number, path=path, target=path, slices=slices, index=slices), LATER_MS)
    while not batcher.empty:
        assert len(encode_bodies(batcher.next_batch(LATER_MS))) <= BATCH_BYTES_MAX
