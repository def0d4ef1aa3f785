"""One attempt's events on their way: batched, spooled, sent, acknowledged, forgotten.

```
 Attempt ─add─► Redaction ─► OutputBound ─► Batcher ─batch─► Spool (disk) ─► Publisher ─► broker
                                                                  ▲──acknowledged─────────────┘
```

Secrets are taken out first of all, so that nothing on the disk holds any. A batch is on disk before it is sent, and its
boundaries never change, so that it can be sent again to the byte. Of what is on disk only offsets are kept in memory,
and the newest batch.

A command that outruns a broker which answers is read no further while the spools are full: it blocks on its pipe, and
nothing is lost. So it does while the disk is full: a batch that it refuses goes out from memory, one at a time. When
the broker has taken nothing for `PATIENCE_S` it is away, and the command is not held up for that: what there is no room
for is left out, and the log says how much (see `outputbound`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol, assert_never

import anyio
from msgspec.structs import replace

from airunner.agent.flag import Flag
from airunner.agent.output.batching import Batcher
from airunner.agent.output.outputbound import Gap, OutputBound, Piece
from airunner.agent.output.redaction import Redaction
from airunner.agent.output.redactor import Redactor
from airunner.agent.output.spool import Record, Spool, SpoolFailed
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    AgentBody,
    Heartbeat,
    Output,
    OutputTruncated,
    Stream,
    check_batch,
    encode_bodies,
)
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.messages import LAST_BYTES_MAX, CompleteJob, EventBatch, JobLease

PATIENCE_S: Final = 10.0
KEPT_EVENTS_MAX: Final = 16  # behind output that is left out: how the command ended, and what was said of it


class Sender(Protocol):
    """Who sends what the journals of an agent hold."""

    @property
    def busy(self) -> bool:
        """Whether the broker owes an answer that events may wait for."""
        ...

    @property
    def room(self) -> SpoolRoom:
        """What all spools take."""
        ...

    def wake(self) -> None:
        """There is something to send."""
        ...

    def flush_at(self, due_ms: int) -> None:
        """Have a batch cut then (anyio's clock), or before."""
        ...


class Journal:
    """The log of `lease`'s attempt. `broken` is set when what it holds cannot be read, for the reason in `failure`."""

    def __init__(
        self,
        lease: JobLease,
        spool: Spool,
        batcher: Batcher,
        sender: Sender,
        bound: OutputBound,
        cancelled: Flag | None = None,
    ) -> None:
        self.lease = lease
        self._cancelled = cancelled or Flag()
        self.lost = Flag()
        self.broken = Flag()
        self.failure: SpoolFailed | None = None
        self._spool = spool
        self._batcher = batcher
        self._sender = sender
        self._bound = bound
        self._room = sender.room
        self._taken_bytes = 0  # of the room
        self._redaction = Redaction(Redactor())
        self.state: JobState | None = None  # the job's, once it has been completed
        self._result: Result | None = None
        self.touched_s = anyio.current_time()  # when something last came in
        self._abridged = False
        self._sent = 0
        self._newest: Record | None = None
        self._moved = anyio.Event()

    def redact(self, redactor: Redactor) -> None:
        """Take these secrets out of all that comes from now on."""
        self._redaction = Redaction(redactor)

    def add(self, body: AgentBody) -> None:
        """Take in an event; it goes out as soon as the sender is free."""
        now_ms = now_in_ms()
        self.touched_s = anyio.current_time()
        self._batcher.add(self._redaction.body(body), now_ms)
        self._cut_or_wait(now_ms)

    async def add_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        """Take in a piece of output; waits while there is no room and the broker is making some."""
        self.touched_s = anyio.current_time()
        while self._tight and not self._bound.holding:
            with anyio.move_on_after(PATIENCE_S) as patience:
                await self._moved.wait()
            if patience.cancelled_caught:
                break
        self._put_output(stream, self._redaction.output(stream, data), timestamp_ms)

    def end_output(self, timestamp_ms: int) -> None:
        """Nothing more is written; what waited for more goes out."""
        for stream, data in self._redaction.finish():
            self._put_output(stream, data, timestamp_ms)
        self._put(self._bound.finish(), timestamp_ms)

    @property
    def behind(self) -> bool:
        """Whether the broker has yet to take something."""
        return self._spool.pending or not self._batcher.empty

    def due_ms(self, now_ms: int) -> int | None:
        """When a batch is to be cut; None while there is nothing to cut, or one waits for the broker already."""
        return None if self._spool.full else self._batcher.due_ms(now_ms, busy=self._sender.busy)

    def cut(self) -> None:
        """Put what has gathered on the disk; where one batch waits for the broker already it gathers on."""
        while not self._spool.full and (bodies := self._batcher.next_batch(now_in_ms())):
            self._newest = self._spool.append(self._spool.next_index, len(bodies), encode_bodies(bodies))
            self._count()
            self._sender.wake()

    def unsent(self, batches_max: int, bytes_max: int) -> list[EventBatch]:
        """The next batches to send, within both bounds but for the first; they count as sent from here on."""
        if self.lost.is_set() or self.broken.is_set() or self._sent >= self._spool.next_index:
            return []
        if self._newest is not None and self._newest.first_index == self._sent:
            records = [self._newest]
        else:
            try:
                records = self._spool.read_from(self._sent, bytes_max)[:batches_max]
            except SpoolFailed as error:
                self._break(error)
                return []
        self._sent = records[-1].next_index
        return [self._batch(record) for record in records]

    def acknowledge(self, next_index: int) -> None:
        """The broker has the events before `next_index`."""
        if next_index > self._spool.kept_index:
            self._sent = max(self._sent, next_index)
            try:
                self._spool.acknowledge(next_index)
            except SpoolFailed as error:
                self._break(error)
            self._count()
            if not self._batcher.empty and (due_ms := self.due_ms(now_in_ms())) is not None:
                self._sender.flush_at(due_ms)  # it may have been due while the disk was full
            self._move()

    def resend_from(self, next_index: int) -> None:
        """The broker has only the events before `next_index`. One that has lost what it had is not to be helped."""
        if next_index < self._spool.kept_index:
            self.lose()
        else:
            self._sent = next_index
            self._sender.wake()

    def abridge_from(self, next_index: int) -> bool:
        """Leave out the output of a cancelled job from event `next_index` on, for which the broker has no room.

        Else the job could not end before there is room, and would itself be what takes it. The log says how much is
        missing. False: the job has not ended or is not cancelled, or what is left of it is small enough to be taken
        with its end. One that had ended by itself before it was cancelled ends as it had.
        """
        if self._result is None or not (self._cancelled.is_set() or self._result.reason is Reason.CANCELLED):
            return False
        if self._abridged or self._spool.pending_bytes <= LAST_BYTES_MAX or self.lost.is_set():
            return False
        try:
            self._abridge_from(next_index)
        except SpoolFailed:
            self.lose()  # its disk fails too; the lease runs out, and the broker ends what is cancelled
            return False
        return True

    def _abridge_from(self, next_index: int) -> None:
        omitted_bytes = 0
        kept: list[AgentBody] = []
        index = next_index
        while records := self._spool.read_from(index, OUTPUT_BYTES_MAX):
            index = records[-1].next_index
            for body in (body for record in records for body in check_batch(record.events)):
                if isinstance(body, Output):
                    omitted_bytes += len(body.data)
                elif isinstance(body, OutputTruncated):
                    omitted_bytes += body.omitted_bytes
                elif not isinstance(body, Heartbeat):
                    kept.append(body)
        bodies = [_truncated(omitted_bytes, kept), *kept[-KEPT_EVENTS_MAX:]]
        while len(events := encode_bodies(bodies)) > LAST_BYTES_MAX:
            del bodies[1]
        self._spool.cut_back(next_index)
        self._newest = self._spool.append(next_index, len(bodies), events)
        self._abridged = True
        self._sent = next_index
        self._count()
        self._sender.wake()

    def lose(self) -> None:
        """The attempt is not ours any more; nothing of it will be taken."""
        self.lost.set()
        self._move()

    async def deliver(self) -> None:
        """Return once the broker has all of it, or the attempt is lost.

        Raises `SpoolFailed`: it cannot be read.
        """
        self.cut()
        while (self._spool.pending or not self._batcher.empty) and not self.lost.is_set():
            if self.failure is not None:
                raise self.failure
            await self._moved.wait()
            self.cut()

    def finish(self, result: Result) -> None:
        """Nothing more comes, and the attempt has ended so: the broker is told, behind all of its events."""
        self._result = result
        self.cut()
        self._sender.wake()

    def completion(self) -> CompleteJob | None:
        """What tells the broker of the end, once every event is sent."""
        if self._result is None or self.state is not None or self.lost.is_set():
            return None
        if self._sent < self._spool.next_index or not self._batcher.empty:
            return None
        return CompleteJob(
            job_id=self.lease.job_id,
            attempt=self.lease.attempt,
            task_token=self.lease.task_token,
            event_count=self._spool.next_index,
            result=_counted(self._result, self._spool.next_index),
        )

    @property
    def bytes_to_end(self) -> float:
        """How much is to be stored yet of an attempt that has ended; of one that has not, without bound."""
        ends = self._result is not None and self.state is None and not self.lost.is_set()
        return self._spool.pending_bytes if ends else math.inf

    def complete(self, state: JobState) -> None:
        """The broker knows of the end; that is how the job stands now."""
        self.state = state
        self._move()

    async def settled(self) -> JobState | None:
        """How the job stands, once the broker knows of the end; None where the attempt is lost, or broken."""
        while self.state is None and not self.lost.is_set() and not self.broken.is_set():
            await self._moved.wait()
        return self.state

    def _put_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        for at in range(0, len(data), OUTPUT_BYTES_MAX):  # more than one piece only where marks have made it longer
            piece = data[at : at + OUTPUT_BYTES_MAX] if len(data) > OUTPUT_BYTES_MAX else data
            going_on = self._bound.add(Piece(stream, piece, timestamp_ms), room=not self._tight)
            self._put(going_on, timestamp_ms)

    def _put(self, going_on: Sequence[Piece | Gap], timestamp_ms: int) -> None:
        now_ms = now_in_ms()
        for one in going_on:
            match one:
                case Piece(stream, data, read_ms):
                    self._batcher.add_output(stream, data, read_ms, now_ms)
                case Gap(omitted_bytes):
                    self._batcher.add(OutputTruncated(timestamp_ms=timestamp_ms, omitted_bytes=omitted_bytes), now_ms)
                case _:
                    assert_never(one)
            self._cut_or_wait(now_ms)

    @property
    def _tight(self) -> bool:
        """Whether output has to wait; one batch of each attempt has room, however much the others take."""
        return self._spool.full or (self._room.full and self._spool.pending)

    def _cut_or_wait(self, now_ms: int) -> None:
        due_ms = self.due_ms(now_ms)
        if due_ms is None:
            return
        if due_ms <= now_ms:
            self.cut()
        else:
            self._sender.flush_at(due_ms)

    def _break(self, error: SpoolFailed) -> None:
        self.failure = error
        self.broken.set()
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()

    def give_back(self) -> None:
        """The spool takes no room any more, or is the next agent's."""
        self._room.account(-self._taken_bytes)
        self._taken_bytes = 0

    def _count(self) -> None:
        self._room.account(self._spool.pending_bytes - self._taken_bytes)
        self._taken_bytes = self._spool.pending_bytes

    def _batch(self, record: Record) -> EventBatch:
        return EventBatch(
            job_id=self.lease.job_id,
            attempt=self.lease.attempt,
            task_token=self.lease.task_token,
            first_index=record.first_index,
            count=record.count,
            events=record.events,
        )


def _counted(result: Result, events: int) -> Result:
    """The result, with the number of its events where there is something to be said of its usage."""
    return result if result.usage is None else replace(result, usage=replace(result.usage, events=events))


def _truncated(omitted_bytes: int, behind: Sequence[AgentBody]) -> AgentBody:
    """The word of what is left out before these events."""
    timestamp_ms = behind[0].timestamp_ms if behind else 0
    return OutputTruncated(timestamp_ms=timestamp_ms, omitted_bytes=max(1, omitted_bytes))


def now_in_ms() -> int:
    """The instant of anyio's clock, in whole milliseconds."""
    return int(anyio.current_time() * 1_000)
