"""Recorder: takes in the events and the output of one attempt, and puts them into batches for its outbox.

Secrets are removed first, so that none reaches the disk. While the broker takes events, nothing is left out: when the
outbox has no room, the recorder stops reading, and the command blocks on its pipe. When the broker has taken nothing
for `PATIENCE_S`, the command is not held up any longer: what there is no room for is left out, and the log says how
much (see `outputbound`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

import anyio

from airunner.agent.output.batching import Batcher
from airunner.agent.output.outbox import Outbox, now_in_ms
from airunner.agent.output.outputbound import Gap, OutputBound, Piece
from airunner.agent.output.redaction import Redaction
from airunner.agent.output.redactor import Redactor
from airunner.protocol.events import OUTPUT_BYTES_MAX, AgentBody, OutputTruncated, Stream

PATIENCE_S: Final = 10.0


class Recorder:
    """Recorder of one attempt: adds to the `batcher` that the `outbox` empties, within the attempt's `bound`."""

    def __init__(self, batcher: Batcher, outbox: Outbox, bound: OutputBound) -> None:
        self._batcher = batcher
        self.outbox = outbox
        self._bound = bound
        self._redaction = Redaction(Redactor())
        self.touched_s = anyio.current_time()  # when something last came in

    def redact(self, redactor: Redactor) -> None:
        """Remove these secrets from everything that follows."""
        self._redaction = Redaction(redactor)

    def add(self, body: AgentBody) -> None:
        """Record an event; it is sent as soon as the publisher is free."""
        now_ms = now_in_ms()
        self.touched_s = anyio.current_time()
        self._batcher.add(self._redaction.body(body), now_ms)
        self.outbox.cut_when_due(now_ms)

    async def add_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        """Record a piece of output; wait while the outbox has no room and the broker is making some."""
        self.touched_s = anyio.current_time()
        while self.outbox.full and not self._bound.holding:
            with anyio.move_on_after(PATIENCE_S) as patience:
                await self.outbox.changed.wait()
            if patience.cancelled_caught:
                break
        self._add_redacted(stream, self._redaction.output(stream, data), timestamp_ms)

    def end_output(self, timestamp_ms: int) -> None:
        """Record what was withheld: the command writes nothing more."""
        for stream, data in self._redaction.finish():
            self._add_redacted(stream, data, timestamp_ms)
        self._pass_on(self._bound.finish(), timestamp_ms)

    def _add_redacted(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        for at in range(0, len(data), OUTPUT_BYTES_MAX):  # several pieces only where marks have made it longer
            piece = data[at : at + OUTPUT_BYTES_MAX] if len(data) > OUTPUT_BYTES_MAX else data
            self._pass_on(self._bound.add(Piece(stream, piece, timestamp_ms), room=not self.outbox.full), timestamp_ms)

    def _pass_on(self, kept: Sequence[Piece | Gap], timestamp_ms: int) -> None:
        now_ms = now_in_ms()
        for piece in kept:
            match piece:
                case Piece(stream, data, read_ms):
                    self._batcher.add_output(stream, data, read_ms, now_ms)
                case Gap(omitted_bytes):
                    self._batcher.add(OutputTruncated(timestamp_ms=timestamp_ms, omitted_bytes=omitted_bytes), now_ms)
                case _:
                    assert_never(piece)
            self.outbox.cut_when_due(now_ms)
