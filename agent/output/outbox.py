"""Outbox: keeps the batches of one attempt on disk until the broker has acknowledged them.

A batch is on disk before it is sent, and its boundaries never change, so that it can be sent again byte for byte. Of
what is on disk, memory holds only offsets and the newest batch. Where the disk refuses a batch, that batch is sent from
memory, one at a time. Behind the last event goes the result of the attempt.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import anyio
from msgspec.structs import replace

from airunner.agent.flag import Flag
from airunner.agent.output.batching import Batcher
from airunner.agent.output.spool import Record, Spool, SpoolFailed
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    AgentBody,
    Heartbeat,
    Output,
    OutputTruncated,
    check_batch,
    encode_bodies,
)
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import LAST_BYTES_MAX, CompleteJob, EventBatch
from airunner.transport.bell import Bell

KEPT_EVENTS_MAX: Final = 16  # behind output that is left out: the command's end, and messages about it


class Sender(Protocol):
    """Sender of what an agent's outboxes hold."""

    busy: bool  # the broker owes a reply that events may wait for
    room: SpoolRoom  # the disk space that all spools of the agent share

    def wake(self) -> None:
        """Look for something to send."""
        ...

    def flush_at(self, due_ms: int) -> None:
        """Have a batch cut at `due_ms` (anyio's clock), or earlier."""
        ...


class Outbox:
    """Outbox of the attempt that `lease` is for.

    `lost` is set when the broker takes nothing more of this attempt; `broken` when the spool cannot be read, for the
    reason in `failure`. `changed` rings when the broker has acknowledged something, or nothing more will be sent.
    """

    def __init__(
        self, lease: JobLease, spool: Spool, batcher: Batcher, sender: Sender, cancelled: Flag | None = None
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
        self.state: JobState | None = None  # the job's, once it has been completed
        self._result: Result | None = None
        self._abridged = False
        self._sent = 0  # the index of the first event that is not sent
        self._newest: Record | None = None
        self._accounted_bytes = 0  # of the room

    @property
    def behind(self) -> bool:
        """Whether events wait for the broker."""
        return self.spool.pending or not self._batcher.empty

    @property
    def full(self) -> bool:
        """Whether output has to wait. One batch of each attempt has room, however much the others take."""
        return self.spool.full or (self._sender.room.full and self.spool.pending)

    # --- from the recorder to the disk ---

    def due_ms(self, now_ms: int) -> int | None:
        """Return when a batch is to be cut; None while there is nothing to cut, or one waits for the broker already."""
        return None if self.spool.full else self._batcher.due_ms(now_ms, busy=self._sender.busy)

    def cut_when_due(self, now_ms: int) -> None:
        """Cut a batch if it is due, or have it cut when it will be."""
        due_ms = self.due_ms(now_ms)
        if due_ms is None:
            return
        if due_ms <= now_ms:
            self.cut()
        else:
            self._sender.flush_at(due_ms)

    def cut(self) -> None:
        """Cut batches of what has gathered, and write them to disk; while the spool is full, it goes on gathering."""
        while not self.spool.full and (bodies := self._batcher.next_batch(now_in_ms())):
            self._newest = self.spool.append(self.spool.next_index, len(bodies), encode_bodies(bodies))
            self._account()
            self._sender.wake()

    def finish(self, result: Result) -> None:
        """Send the attempt's result behind all of its events; nothing is recorded after it."""
        self._result = result
        self.cut()
        self._sender.wake()

    # --- from the disk to the broker ---

    def unsent(self, batches_max: int, bytes_max: int) -> list[EventBatch]:
        """Return the next batches to send, which then count as sent. Only the first may exceed `bytes_max`."""
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
        return [self.spool.header.batch(record) for record in records]

    def completion(self) -> CompleteJob | None:
        """Return the request that completes the job, once every event is sent."""
        if self._result is None or self.state is not None or self.lost.is_set():
            return None
        if self._sent < self.spool.next_index or not self._batcher.empty:
            return None
        count = self.spool.next_index
        usage = self._result.usage and replace(self._result.usage, events=count)
        return CompleteJob(lease=self.lease.ref, event_count=count, result=replace(self._result, usage=usage))

    @property
    def bytes_to_end(self) -> float:
        """How many bytes an attempt that has ended has still to send; infinite for another."""
        ends = self._result is not None and self.state is None and not self.lost.is_set()
        return self.spool.pending_bytes if ends else math.inf

    # --- replies of the broker ---

    def acknowledge(self, next_index: int) -> None:
        """Forget the events before `next_index`, which the broker has."""
        if next_index > self.spool.kept_index:
            self._sent = max(self._sent, next_index)
            try:
                self.spool.acknowledge(next_index)
            except SpoolFailed as error:
                self._break(error)
            self._account()
            if not self._batcher.empty and (due_ms := self.due_ms(now_in_ms())) is not None:
                self._sender.flush_at(due_ms)  # it may have been due while the disk was full
            self.changed.ring()

    def resend_from(self, next_index: int) -> None:
        """Send events again from `next_index` on; the attempt is lost where the broker has lost acknowledged ones."""
        if next_index < self.spool.kept_index:
            self.lose()
        else:
            self._sent = next_index
            self._sender.wake()

    def complete(self, state: JobState) -> None:
        """Note that the broker has the result, and the state that the job is in now."""
        self.state = state
        self.changed.ring()

    def lose(self) -> None:
        """Note that the attempt is lost: the broker takes nothing more of it."""
        self.lost.set()
        self.changed.ring()

    def abridge_from(self, next_index: int) -> bool:
        """Leave out the output of a cancelled job from event `next_index` on, for which the broker has no room.

        Otherwise the job could not end before there is room, and its own log would be what takes it. The log says how
        much is missing. Returns False where the job has not ended or is not cancelled, or where what is left is small
        enough to be taken with its end. A job that ended by itself before it was cancelled ends as it had.
        """
        if self._result is None or not (self._cancelled.is_set() or self._result.reason is Reason.CANCELLED):
            return False
        if self._abridged or self.spool.pending_bytes <= LAST_BYTES_MAX or self.lost.is_set():
            return False
        try:
            self._abridge_from(next_index)
        except SpoolFailed:
            self.lose()  # its disk fails too; the lease runs out, and the broker ends the cancelled job
            return False
        return True

    # --- how it ends ---

    async def deliver(self) -> None:
        """Wait until the broker has all of it, or the attempt is lost. Raises `SpoolFailed`: it cannot be read."""
        self.cut()
        while self.behind and not self.lost.is_set():
            if self.failure is not None:
                raise self.failure
            await self.changed.wait()
            self.cut()

    async def settled(self) -> JobState | None:
        """Wait until the broker knows the result, and return the job's state; None: the attempt is lost or broken."""
        while self.state is None and not self.lost.is_set() and not self.broken.is_set():
            await self.changed.wait()
        return self.state

    def free_room(self) -> None:
        """Stop counting this spool's bytes: it is removed, or left for the next agent."""
        self._sender.room.account(-self._accounted_bytes)
        self._accounted_bytes = 0

    def _abridge_from(self, next_index: int) -> None:
        """Replace the spool's end; raises `SpoolFailed` where the disk fails."""
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
                elif not isinstance(body, Heartbeat):
                    kept.append(body)
        timestamp_ms = kept[0].timestamp_ms if kept else 0
        truncated = OutputTruncated(timestamp_ms=timestamp_ms, omitted_bytes=max(1, omitted_bytes))
        bodies: list[AgentBody] = [truncated, *kept[-KEPT_EVENTS_MAX:]]
        while len(events := encode_bodies(bodies)) > LAST_BYTES_MAX:
            del bodies[1]
        self.spool.cut_back(next_index)
        self._newest = self.spool.append(next_index, len(bodies), events)
        self._abridged = True
        self._sent = next_index
        self._account()
        self._sender.wake()

    def _break(self, error: SpoolFailed) -> None:
        self.failure = error
        self.broken.set()
        self.changed.ring()

    def _account(self) -> None:
        self._sender.room.account(self.spool.pending_bytes - self._accounted_bytes)
        self._accounted_bytes = self.spool.pending_bytes


def now_in_ms() -> int:
    """Return the instant of anyio's clock, in whole milliseconds."""
    return int(anyio.current_time() * 1_000)
