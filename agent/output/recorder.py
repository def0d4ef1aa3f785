"""Recorder: receives the events and the output of one attempt, redacts and limits them, and adds them to batches.

Secrets are removed first, so that none reaches the disk. While the outbox is full, `add_output` waits, so the command
blocks on its pipe. When the broker has not acknowledged anything for `UNACKNOWLEDGED_S`, the command is unblocked:
output for which there is no room is dropped, as is output beyond the log's size limit; the log says how much
(`outputlimit.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

import anyio

from airunner.agent.output.batching import Batcher
from airunner.agent.output.characters import Characters, cut
from airunner.agent.output.outbox import Outbox, now_in_ms
from airunner.agent.output.outputlimit import Gap, OutputLimit, Piece
from airunner.agent.output.redaction import Redaction
from airunner.agent.output.redactor import Redactor
from airunner.protocol.events import OUTPUT_BYTES_MAX, STREAMS, AgentBody, OutputTruncated, Stream

UNACKNOWLEDGED_S: Final = 10.0  # seconds without an acknowledgement until output may be dropped: docs/decisions/0013
_NO_SECRETS: Final = Redactor()


class Recorder:
    """Recorder of one attempt: adds events to `batcher`, which `outbox` empties; `limit` limits the output."""

    def __init__(self, batcher: Batcher, outbox: Outbox, limit: OutputLimit) -> None:
        self._batcher = batcher
        self.outbox = outbox
        self._limit = limit
        self._redaction = Redaction(_NO_SECRETS)
        self._characters = {stream: Characters() for stream in STREAMS}
        self.touched_s = anyio.current_time()  # when the last event or output was recorded

    def redact_with(self, redactor: Redactor) -> None:
        """Redact everything that is recorded from now on with `redactor`."""
        self._redaction = Redaction(redactor)

    def add(self, body: AgentBody) -> None:
        """Record an event that is not output."""
        self.touched_s = anyio.current_time()
        now_ms = int(self.touched_s * 1_000)
        self._batcher.add(self._redaction.body(body), now_ms)
        self.outbox.flush_when_due(now_ms)

    async def add_when_room(self, body: AgentBody) -> None:
        """Record an event of which there may be many, once the outbox is not full: none of them is ever dropped."""
        while self.outbox.full:
            await self.outbox.changed.wait()
        self.add(body)

    async def add_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        """Record a piece of output. While the outbox is full, first wait for room, as the module's docstring says."""
        self.touched_s = anyio.current_time()
        while self.outbox.full and not self._limit.holding:
            with anyio.move_on_after(UNACKNOWLEDGED_S) as waiting:
                await self.outbox.changed.wait()
            if waiting.cancelled_caught:
                break
        self._add_redacted(stream, self._redaction.output(stream, data), timestamp_ms)

    def holds_character(self, stream: Stream) -> bool:
        """Whether the first bytes of a character are held back, which `pass_character` records without the others."""
        return bool(self._characters[stream].held)

    def pass_character(self, stream: Stream, timestamp_ms: int) -> None:
        """Record the first bytes of a character that are held back: the others have not come in time."""
        self._add_whole(stream, self._characters[stream].finish(), timestamp_ms)

    def end_output(self, timestamp_ms: int) -> None:
        """Record the output that was held back: a process of the attempt has ended its output."""
        for stream, data in self._redaction.finish():
            self._add_redacted(stream, data, timestamp_ms)
        for stream in STREAMS:
            self.pass_character(stream, timestamp_ms)
        self._pass_on(self._limit.flush(), timestamp_ms)

    def _add_redacted(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        self._add_whole(stream, self._characters[stream].feed(data), timestamp_ms)

    def _add_whole(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        while data:  # more than once only if redaction, or bytes held back, have made it longer
            piece, data = cut(data, OUTPUT_BYTES_MAX)
            self._pass_on(self._limit.add(Piece(stream, piece, timestamp_ms), room=not self.outbox.full), timestamp_ms)

    def _pass_on(self, kept: Sequence[Piece | Gap], timestamp_ms: int) -> None:
        if not kept:
            return
        now_ms = now_in_ms()
        for piece in kept:
            match piece:
                case Piece(stream, data, read_ms):
                    self._batcher.add_output(stream, data, read_ms, now_ms)
                case Gap(omitted_bytes):
                    self._batcher.add(OutputTruncated(timestamp_ms=timestamp_ms, omitted_bytes=omitted_bytes), now_ms)
                case _:
                    assert_never(piece)
            self.outbox.flush_when_due(now_ms)
