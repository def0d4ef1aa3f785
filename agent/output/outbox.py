"""Outbox: stores the batches of one attempt on disk until the broker has acknowledged them.

A batch is on disk before it is sent, and does not change (except in `drop_output_from`), so that it can be sent again
byte for byte. Memory holds the newest batch; of the others it holds positions. A batch that the disk refuses is sent
from memory, and no other batch is made before the broker has acknowledged it. The attempt's result is sent last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

import anyio
from msgspec.structs import replace

from airunner.agent.flag import Flag
from airunner.agent.output.batching import PIPE_WINDOW_MS, Batcher
from airunner.agent.output.logsigning import LogSigning, Signer
from airunner.agent.output.spool import Record, Spool, SpoolFailed
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.protocol.compression import compressed
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    AgentBody,
    Heartbeat,
    LogSigned,
    Output,
    OutputTruncated,
    check_batch,
    encode_bodies,
)
from airunner.protocol.frames import LIVE_BYTES_MAX
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import LAST_BYTES_MAX, CompleteJob, EventBatch
from airunner.transport.bell import Bell

LATER_S: Final = 0.005  # how long the result of a short job waits for the next request for jobs, to be sent with it
TOGETHER: Final = 4  # full batches of a fast job that are sent in one request: 1 MiB of output
LAST_EVENTS_MAX: Final = 16  # most events of a cancelled job that are still sent after its output was dropped


class Sender(Protocol):
    """Sender of the batches in an agent's outboxes: the methods of `EventPublisher` that an outbox calls."""

    busy: bool  # whether a request is in flight: new events may wait for its reply
    room: SpoolRoom  # the disk space that the spools of all outboxes share

    def wake(self) -> None:
        """Look for batches and results to send."""
        ...

    def wake_later(self, pause_s: float) -> None:
        """Look for batches and results to send at the next `wake`, at most `pause_s` from now."""
        ...

    def flush_at(self, due_ms: int) -> None:
        """Look for outboxes that are due, and flush them, at `due_ms` (anyio's clock) or earlier."""
        ...


class Outbox:
    """Outbox of one attempt, whose lease is `lease`.

    `lost` is set when nothing more of this attempt is sent, usually because the broker refuses it; `broken` when the
    spool cannot be read, and `failure` says why. `changed` rings at each acknowledgement, completion, loss or failure.
    """

    def __init__(
        self,
        lease: JobLease,
        spool: Spool,
        batcher: Batcher,
        sender: Sender,
        cancelled: Flag | None = None,
        signer: Signer | None = None,
    ) -> None:
        self.lease = lease
        self.spool = spool
        self._batcher = batcher
        self._sender = sender
        self._cancelled = cancelled or Flag()
        self.lost = Flag()
        self.broken = Flag()
        self.failure: SpoolFailed | None = None
        self.changed = Bell()
        self.when_over: Callable[[], None] = nothing  # called when it becomes `over`; the slot sets it
        self.state: JobState | None = None  # state of the job, after the broker has stored the result
        self._result: Result | None = None
        self._signing = LogSigning(lease.job_id, lease.attempt, signer) if signer and lease.signed else None
        self.held = False  # its events wait for its result, and this for others': the attempt sets it, for a short job
        self._output_dropped = False
        self._sent = 0  # index of the first event that is not sent
        self._gathered = 0  # batches on disk since some were last sent: they go in one request
        self._newest: Record | None = None
        self._accounted_bytes = 0  # bytes of this spool that the room counts

    @property
    def over(self) -> bool:
        """Whether it is completed, lost or broken."""
        return self.state is not None or self.lost.is_set() or self.broken.is_set()

    @property
    def behind(self) -> bool:
        """Whether there are events that the broker has not acknowledged."""
        return self.spool.pending or not self._batcher.empty

    @property
    def full(self) -> bool:
        """Whether output must wait for room on the disk. A full spool room still takes one batch of each attempt."""
        return self.spool.full or (self._sender.room.full and self.spool.pending)

    # --- from the recorder to the disk ---

    def due_ms(self, now_ms: int) -> int | None:
        """Return when the next batch is due; None: it would be empty, or the spool is full."""
        return None if self.spool.full else self._batcher.due_ms(now_ms, busy=self._sender.busy)

    def flush_when_due(self, now_ms: int) -> None:
        """Flush if a batch is due; otherwise ask the sender to flush when it will be.

        Batches that are full before their time are sent together: a request costs more than the batch that it carries.
        They wait for `TOGETHER` of them, and not longer than other output does.
        """
        due_ms = None if self.held else self.due_ms(now_ms)
        if due_ms is None:
            return
        if due_ms > now_ms:
            self._sender.flush_at(due_ms)
        elif self._batcher.full and self._gathered < TOGETHER - 1:
            self._write()
            self._sender.wake_later(min(self._batcher.window_ms, PIPE_WINDOW_MS) / 1_000)
        else:
            self.flush()

    def flush(self) -> None:
        """Write the gathered events to disk, in batches. While the spool is full, they stay in the batcher."""
        if self._write():
            self._sender.wake()

    def _write(self) -> bool:
        """Write the gathered events to disk; return whether there were any."""
        written = False
        while not self.spool.full and not (self._batcher.empty and not self._ends_unsigned):
            count, raw = self._encoded(self._batcher.next_batch(now_in_ms()))
            self._newest = self.spool.append(self.spool.next_index, count, self._packed(raw))
            self._gathered += 1
            self._account()
            written = True
        return written

    def _encoded(self, bodies: list[AgentBody]) -> tuple[int, bytes]:
        """Encode a batch, signed when it is due, and return how many events it has."""
        if self._signing is None:
            return len(bodies), encode_bodies(bodies)
        result = self._result if self._batcher.empty else None
        signing, self._signing = self._signing, None if result is not None else self._signing
        return signing.encoded(bodies, result)

    @property
    def _ends_unsigned(self) -> bool:
        """Whether the attempt has ended, and the signature of its end is still to be written."""
        return self._result is not None and self._signing is not None

    def _packed(self, raw: bytes) -> bytes:
        """Compress an encoded batch, unless it is short enough to be published live, or the broker is older."""
        return compressed(raw) if self.lease.zstd and len(raw) > LIVE_BYTES_MAX else raw

    def finish(self, result: Result) -> None:
        """Set the attempt's result, which is sent after all of its events. No event may be recorded after this call."""
        self._result = result
        self._write()
        if self.held:
            self._sender.wake_later(LATER_S)
        else:
            self._sender.wake()

    # --- from the disk to the broker ---

    def unsent(self, batches_max: int, bytes_max: int) -> list[EventBatch]:
        """Return the next batches to send, and count them as sent. Only the first may exceed `bytes_max`."""
        if self.lost.is_set() or self.broken.is_set() or self._sent >= self.spool.next_index:
            return []
        if self._newest is not None and self._newest.first_index == self._sent:
            records = [self._newest]
        else:
            try:
                records = self.spool.read_from(self._sent, bytes_max)[:batches_max]
            except SpoolFailed as error:
                self._break(error)
                return []
        self._sent = records[-1].next_index
        self._gathered = 0
        return [self.spool.header.batch(record) for record in records]

    def completion(self) -> CompleteJob | None:
        """Return the request that completes the attempt; None: no result yet, unsent events, or completed or lost."""
        if self._result is None or self.state is not None or self.lost.is_set():
            return None
        if self._sent < self.spool.next_index or not self._batcher.empty or self._ends_unsigned:
            return None
        count = self.spool.next_index
        usage = self._result.usage and replace(self._result.usage, events=count)
        return CompleteJob(lease=self.lease.ref, event_count=count, result=replace(self._result, usage=usage))

    @property
    def bytes_to_end(self) -> float:
        """The unacknowledged bytes of an attempt that has ended and is not completed; infinite for any other."""
        ends = self._result is not None and self.state is None and not self.lost.is_set()
        return self.spool.pending_bytes if ends else math.inf

    # --- replies of the broker ---

    def acknowledge(self, next_index: int) -> None:
        """Drop the events before `next_index`: the broker has stored them."""
        if next_index > self.spool.kept_index:
            self._sent = max(self._sent, next_index)
            try:
                self.spool.acknowledge(next_index)
            except SpoolFailed as error:
                self._break(error)
            self._account()
            if not self._batcher.empty and (due_ms := self.due_ms(now_in_ms())) is not None:
                self._sender.flush_at(due_ms)  # a batch may have become due while the spool was full
            elif self._ends_unsigned:
                self.flush()
            self.changed.ring()

    def resend_from(self, next_index: int) -> None:
        """Send events from `next_index` on again. If the broker has lost acknowledged events, the attempt is lost."""
        if next_index < self.spool.kept_index:
            self.lose()
        else:
            self._sent = next_index
            self._sender.wake()

    def complete(self, state: JobState) -> None:
        """Note that the broker has stored the result, and that the job is now in `state`."""
        self.state = state
        self.changed.ring()
        self.when_over()

    def lose(self) -> None:
        """Note that the attempt is lost: send nothing more of it."""
        self.lost.set()
        self.changed.ring()
        self.when_over()

    def drop_output_from(self, next_index: int) -> bool:
        """Drop the output of a cancelled job from event `next_index` on, because the broker has no room for it.

        Otherwise the job could not end before there is room, even if its own log takes up that room. An event in the
        log says how much is missing. Returns False if the attempt has not ended or is lost, the job is not cancelled,
        the rest is small enough to be stored with the result, output was dropped before, or the spool fails.
        """
        if self._result is None or not (self._cancelled.is_set() or self._result.reason is Reason.CANCELLED):
            return False
        if self._output_dropped or self.spool.pending_bytes <= LAST_BYTES_MAX or self.lost.is_set():
            return False
        try:
            self._drop_output_from(next_index)
        except SpoolFailed:
            self.lose()  # the agent's disk fails too: the lease expires, and the broker ends the cancelled job
            return False
        return True

    # --- the end of the attempt ---

    async def deliver(self) -> None:
        """Wait until the broker has all events, or the attempt is lost. Raises `SpoolFailed`: cannot read the spool."""
        self.flush()
        while self.behind and not self.lost.is_set():
            if self.failure is not None:
                raise self.failure
            await self.changed.wait()
            self.flush()

    async def settled(self) -> JobState | None:
        """Wait until the broker has the result, and return the job's state; None: the attempt is lost or broken."""
        while not self.over:
            await self.changed.wait()
        return self.state

    def free_room(self) -> None:
        """Stop counting this spool's bytes: the spool is removed, or left for the next agent."""
        self._sender.room.account(-self._accounted_bytes)
        self._accounted_bytes = 0

    def _drop_output_from(self, next_index: int) -> None:
        """Keep of the events from `next_index` on only the last; no output, no heartbeats. Raises `SpoolFailed`.

        They are not signed: the chain counts those that are dropped.
        """
        omitted_bytes = 0
        kept: list[AgentBody] = []
        index = next_index
        while records := self.spool.read_from(index, OUTPUT_BYTES_MAX):
            index = records[-1].next_index
            for body in (body for record in records for body in check_batch(record.events)):
                if isinstance(body, Output):
                    omitted_bytes += len(body.data)
                elif isinstance(body, OutputTruncated):
                    omitted_bytes += body.omitted_bytes
                elif not isinstance(body, Heartbeat | LogSigned):
                    kept.append(body)
        timestamp_ms = kept[0].timestamp_ms if kept else 0
        truncated = OutputTruncated(timestamp_ms=timestamp_ms, omitted_bytes=max(1, omitted_bytes))
        bodies: list[AgentBody] = [truncated, *kept[-LAST_EVENTS_MAX:]]
        while len(events := encode_bodies(bodies)) > LAST_BYTES_MAX:
            del bodies[1]
        self.spool.truncate(next_index)
        self._signing = None
        self._newest = self.spool.append(next_index, len(bodies), events)
        self._output_dropped = True
        self._sent = next_index
        self._account()
        self._sender.wake()

    def _break(self, error: SpoolFailed) -> None:
        self.failure = error
        self.broken.set()
        self.changed.ring()
        self.when_over()

    def _account(self) -> None:
        self._sender.room.account(self.spool.pending_bytes - self._accounted_bytes)
        self._accounted_bytes = self.spool.pending_bytes


def nothing() -> None:
    """Do nothing."""


def now_in_ms() -> int:
    """Return the instant of anyio's clock, in whole milliseconds."""
    return int(anyio.current_time() * 1_000)
