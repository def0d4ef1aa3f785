"""Batching: groups the events of an attempt into batches, and decides when each batch is due. Pure.

Output that comes `window_ms` or more after the last batch is sent at once, so that a prompt is seen as soon as it is
written; earlier output is gathered until then, so that a chatty command does not send many small batches. While a
request is in flight, all events are gathered, for at most `window_ms` and up to `flush_bytes` (as in Nagle's algorithm,
RFC 896): so the output and the end of a short command are sent in one request. Adjacent pieces of one stream
become one OUTPUT event, up to `OUTPUT_BYTES_MAX`; nothing is ever reordered. Of a fast job several full batches are one
request (see `outbox`).
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from airunner.agent.output.characters import incomplete_bytes
from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    AgentBody,
    Artifact,
    GitCloneError,
    GitCloneProgress,
    Kept,
    Output,
    ProcessError,
    Returned,
    Stream,
)

PIPE_WINDOW_MS: Final = 100  # default `window_ms` of a job with pipes
TERMINAL_WINDOW_MS: Final = 20  # default `window_ms` in a terminal, where a user may be typing
FLUSH_BYTES: Final = 4 * OUTPUT_BYTES_MAX  # default: when so much output has gathered, it becomes a batch at once
FLUSH_EVENTS: Final = 512  # when so many events have gathered, they become a batch at once; also the most of one batch
FLUSH_MS_MIN: Final = 5  # shortest `window_ms`: a shorter one makes no difference, a request takes as long
FLUSH_MS_MAX: Final = 10_000  # longest `window_ms`: with a longer one a job would seem to hang
BATCH_BYTES_ROUGH_MAX: Final = FLUSH_BYTES + OUTPUT_BYTES_MAX  # estimated; encoded it must be within BATCH_BYTES_MAX
_CHAR_BYTES_MAX: Final = 4  # size of a character in UTF-8
_SMALL_BYTES: Final = 256  # estimated size of an event without output or message
_SLICE_BYTES: Final = 48  # estimated size of an artifact's slice


class FlushPlan(Struct, frozen=True):
    """Flush plan: output is sent after `window_ms` (None: the default for pipes or a terminal), or at `size_bytes`."""

    window_ms: int | None = None
    size_bytes: int = FLUSH_BYTES

    def batcher(self, *, terminal: bool) -> Batcher:
        """Make the batcher of one attempt."""
        usual_ms = TERMINAL_WINDOW_MS if terminal else PIPE_WINDOW_MS
        return Batcher(usual_ms if self.window_ms is None else self.window_ms, self.size_bytes)


def flush_plan(interval: str | None, size_kib: int) -> FlushPlan:
    """Make the plan that `--flush-interval` and `--flush-kib` describe. Raises `OperatorError`: a bad interval."""
    if interval is None:
        return FlushPlan(size_bytes=size_kib << 10)
    window_ms = of_flag("--flush-interval", duration_ms, interval)
    if not FLUSH_MS_MIN <= window_ms <= FLUSH_MS_MAX:
        raise OperatorError(f"--flush-interval {interval}: expected {FLUSH_MS_MIN}ms to {FLUSH_MS_MAX // 1_000}s")
    return FlushPlan(window_ms, size_kib << 10)


class Batcher:
    """Batcher of one attempt: gathers events until they become a batch.

    A batch is due `window_ms` after the one before; earlier or, while a request is in flight, later: see `due_ms`.
    """

    def __init__(self, window_ms: int, flush_bytes: int = FLUSH_BYTES) -> None:
        self.window_ms = window_ms
        self._flush_bytes = flush_bytes
        self._bodies: list[AgentBody] = []
        self._bytes = 0
        self._pieces: list[bytes] = []  # output that is not in an event yet
        self._piece_bytes = 0
        self._piece_stream = Stream.STDOUT
        self._piece_ms = 0
        self._flushed_ms = -window_ms
        self._began_ms: int | None = None  # when the first event was added since the batcher was last empty
        self._urgent = False  # whether an event that is not output was added since then

    def add(self, body: AgentBody, now_ms: int) -> None:
        """Add an event that is not output: it makes the batch due at once, unless a request is in flight."""
        self._begin(now_ms)
        self._close_piece()
        self._bodies.append(body)
        self._urgent = True

    def add_output(self, stream: Stream, data: bytes, timestamp_ms: int, now_ms: int) -> None:
        """Add output, at most `OUTPUT_BYTES_MAX` bytes."""
        self._begin(now_ms)
        assert 0 < len(data) <= OUTPUT_BYTES_MAX
        # The first bytes of a character that never became one are an event of their own: no text is lost to base64.
        alone = incomplete_bytes(data) == len(data) or (self._pieces and incomplete_bytes(self._pieces[-1]))
        if alone or stream is not self._piece_stream or self._piece_bytes + len(data) > OUTPUT_BYTES_MAX:
            self._close_piece()
        if not self._pieces:
            self._piece_stream = stream
            self._piece_ms = timestamp_ms
        self._pieces.append(data)
        self._piece_bytes += len(data)
        self._bytes += len(data)

    def due_ms(self, now_ms: int, *, busy: bool = False) -> int | None:
        """Return when the next batch is due; None: it is empty. `busy`: a request is in flight, so events may wait."""
        if self._began_ms is None:
            return None
        if self.full:
            return now_ms
        if busy:
            return max(now_ms, self._began_ms + self.window_ms)
        return now_ms if self._urgent else max(now_ms, self._flushed_ms + self.window_ms)

    @property
    def full(self) -> bool:
        """Whether so much has gathered that it becomes a batch at once."""
        return self._bytes >= self._flush_bytes or len(self._bodies) >= FLUSH_EVENTS

    @property
    def empty(self) -> bool:
        """Whether the next batch would be empty."""
        return self._began_ms is None

    def next_batch(self, now_ms: int) -> list[AgentBody]:
        """Return the next batch: all gathered events, up to `FLUSH_EVENTS` and `BATCH_BYTES_ROUGH_MAX`."""
        self._close_piece()
        count = size = 0
        for body in self._bodies[:FLUSH_EVENTS]:
            size += _bytes_of(body)
            if count and size > BATCH_BYTES_ROUGH_MAX:
                break
            count += 1
        bodies, self._bodies = self._bodies[:count], self._bodies[count:]
        self._bytes = sum(map(_bytes_of, self._bodies))
        if not self._bodies:
            self._began_ms = None
            self._urgent = False
        self._flushed_ms = now_ms
        return bodies

    def _begin(self, now_ms: int) -> None:
        if self._began_ms is None:
            self._began_ms = now_ms

    def _close_piece(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)  # a single piece is not copied
            self._bodies.append(Output(timestamp_ms=self._piece_ms, stream=self._piece_stream, data=data))
            self._pieces.clear()
            self._piece_bytes = 0


def _bytes_of(body: AgentBody) -> int:
    """Estimate the size of an event when encoded."""
    match body:
        case Output(data=data):
            return len(data)
        case ProcessError(message=text) | GitCloneError(message=text) | GitCloneProgress(message=text):
            return _CHAR_BYTES_MAX * len(text)
        case Returned(slices=slices, index=index):
            return _SMALL_BYTES + _SLICE_BYTES * (len(slices) + len(index))
        case Artifact(path=path, target=target, slices=slices, index=index):
            texts_bytes = _CHAR_BYTES_MAX * (len(path) + len(target))
            return _SMALL_BYTES + texts_bytes + _SLICE_BYTES * (len(slices) + len(index))
        case Kept(slices=slices):
            return _SMALL_BYTES + _SLICE_BYTES * len(slices)
        case _:
            return _SMALL_BYTES
