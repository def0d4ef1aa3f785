"""Event publisher: sends what all outboxes of the agent hold, as many batches in one request as are waiting.

One request is on its way at a time; meanwhile the next gathers (see `batching`). The broker replies to each batch
separately, so an attempt that is lost does not hold up its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from types import MappingProxyType
from typing import Final

import anyio

from airunner.agent.output.outbox import Outbox, now_in_ms
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.protocol.errors import (
    BadRequest,
    IncompleteLog,
    IndexGap,
    NoSpace,
    NotFound,
    PeerError,
    Quota,
    StaleToken,
)
from airunner.protocol.replies import BatchStored, JobCompleted, Refused
from airunner.protocol.requests import BATCHES_MAX, COMPLETIONS_MAX, CompleteJob, EventBatch, PublishJobEvents
from airunner.transport.backoff import Backoff, retry
from airunner.transport.bell import Bell
from airunner.transport.channel import Channel
from airunner.transport.ports import Edges

REFUSED_FIRST_MS: Final = 200
REFUSED_LAST_MS: Final = 30_000
NO_ROOM: Final[Mapping[str | None, str]] = MappingProxyType(
    {
        Quota.code: "the broker keeps no more events of this tenant's now (quota)",
        NoSpace.code: "the broker's disk has no room for events now (no-space)",
    }
)


class EventPublisher:
    """Publisher of an agent's events. It sends what is in the outboxes between `open` and `close`."""

    def __init__(self, channel: Channel, edges: Edges, report: Callable[[str], None], room: SpoolRoom) -> None:
        self.room = room
        self._channel = channel
        self._edges = edges
        self._report = report
        self._outboxes: dict[tuple[str, int], Outbox] = {}
        self._woken = Bell()
        self._sooner = Bell()
        self._flush_ms = math.inf
        self.busy = False
        self._no_room = Backoff(edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS)

    def flush_at(self, due_ms: int) -> None:
        """Have batches cut at `due_ms` (anyio's clock), or earlier."""
        if due_ms < self._flush_ms:
            self._sooner.ring()

    def wake(self) -> None:
        """Look for something to send."""
        self._woken.ring()

    def open(self, outbox: Outbox) -> None:
        """Begin to send what is in this outbox."""
        self._outboxes[outbox.lease.job_id, outbox.lease.attempt] = outbox

    def close(self, outbox: Outbox) -> None:
        """Send nothing more of it."""
        outbox.free_room()
        self._outboxes.pop((outbox.lease.job_id, outbox.lease.attempt), None)

    async def run(self) -> None:
        """Publish for ever."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._flush)
            while True:
                self._cut_due()
                batches = self._gather()
                completions = self._completions()
                if batches or completions:
                    self.busy = True
                    await self._publish(PublishJobEvents(batches=tuple(batches), completions=tuple(completions)))
                    self.busy = False
                else:
                    await self._woken.wait()

    async def _flush(self) -> None:
        """Cut every batch when it is due, even while the broker owes a reply."""
        while True:
            self._flush_ms = self._cut_due()
            # The first moment after that millisecond: a clock that falls short of it by a hair would spin here.
            with anyio.CancelScope(deadline=(self._flush_ms + 1) / 1_000):
                await self._sooner.wait()

    def _cut_due(self) -> float:
        """Cut the batches that are due, and return when the next will be."""
        next_ms = math.inf
        now_ms = now_in_ms()
        for outbox in self._outboxes.values():
            due_ms = outbox.due_ms(now_ms)
            if due_ms is None:
                continue
            if due_ms <= now_ms:
                outbox.cut()
            else:
                next_ms = min(next_ms, due_ms)
        return next_ms

    def _gather(self) -> list[EventBatch]:
        """Take some batches of each outbox that has any, beginning with the one that waited longest.

        While the broker has no room for events, it begins with the attempt that has ended and needs the least room.
        """
        batches: list[EventBatch] = []
        room_bytes = self._channel.request_size.bytes_max
        waiting = list(self._outboxes.items())
        if self._no_room.failures:
            waiting.sort(key=lambda entry: entry[1].bytes_to_end)
        for key, outbox in waiting:
            if room_bytes <= 0 or len(batches) >= BATCHES_MAX:
                break
            found = outbox.unsent(BATCHES_MAX - len(batches), room_bytes)
            if found:
                self._outboxes[key] = self._outboxes.pop(key)  # the next turn begins with the others
            batches += found
            room_bytes -= sum(len(batch.events) for batch in found)
        return batches

    def _completions(self) -> list[CompleteJob]:
        """Return the results of attempts whose every event is sent, or is sent with them."""
        results = (outbox.completion() for outbox in self._outboxes.values())
        return list(islice((result for result in results if result is not None), COMPLETIONS_MAX))

    async def _publish(self, request: PublishJobEvents) -> None:
        """Send a request until it is answered, and hand the answers to the outboxes."""
        asked = request

        def smaller() -> PublishJobEvents:
            nonlocal asked
            asked = self._smaller(asked)
            return asked

        def refused(error: PeerError) -> None:  # the disk there is full, or our token has ended: the spools keep it all
            self._report(f"the broker takes no events now, and is asked again: {error.message}")

        reply = await retry(
            lambda: self._channel.ask(asked, smaller=smaller),
            Backoff(self._edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS),
            refused,
            final=(BadRequest,),  # our own events: a bug, not a state of the world
        )
        for stored in reply.batches:
            self._note_stored(stored)
        for completion, completed in zip(asked.completions, reply.completions, strict=True):
            self._note_completed(completion, completed)
        await self._wait_for_room([stored for stored in reply.batches if stored.code in NO_ROOM])

    def _smaller(self, request: PublishJobEvents) -> PublishJobEvents:
        """Cut a request down to what the link is thought to carry by now, at least one batch; gather the rest again."""
        room_bytes = self._channel.request_size.bytes_max
        ends = accumulate(len(batch.events) for batch in request.batches)
        count = max(1, sum(end <= room_bytes for end in ends))
        left_out = request.batches[count:]
        for batch in reversed(left_out):
            if (outbox := self._outboxes.get((batch.lease.job_id, batch.lease.attempt))) is not None:
                outbox.resend_from(batch.first_index)
        behind = {batch.lease for batch in left_out}
        completions = tuple(end for end in request.completions if end.lease not in behind)
        return PublishJobEvents(batches=request.batches[:count], completions=completions)

    async def _wait_for_room(self, refused: Sequence[BatchStored]) -> None:
        """Pause where the broker has no room for these batches; the spools keep them meanwhile.

        What ends a job needs no room: the next attempt that ends is sent at once.
        """
        if not refused:
            self._no_room.reset()
            return
        if not self._no_room.failures:
            self._report(f"{NO_ROOM[refused[0].code]}, and is asked again")
        pause_s = self._no_room.next_s()
        if any(self._abridge(stored) for stored in refused):
            return
        ending = self._ending()
        with anyio.move_on_after(pause_s):
            while self._ending() <= ending:
                await self._woken.wait()

    def _abridge(self, stored: BatchStored) -> bool:
        """Return whether this attempt's events became fewer, so that it can end."""
        outbox = self._outboxes.get((stored.job_id, stored.attempt))
        return outbox is not None and outbox.abridge_from(stored.next_index)

    def _ending(self) -> set[tuple[str, int]]:
        """Return the attempts that have ended without the broker knowing yet."""
        return {key for key, outbox in self._outboxes.items() if outbox.bytes_to_end < math.inf}

    def _note_stored(self, stored: BatchStored) -> None:
        outbox = self._outboxes.get((stored.job_id, stored.attempt))
        if outbox is None:
            return
        match stored.code:
            case None:
                outbox.acknowledge(stored.next_index)
            case IndexGap.code | Quota.code | NoSpace.code:
                outbox.resend_from(stored.next_index)
            case StaleToken.code | NotFound.code:
                outbox.lose()
            case code:
                self._give_up(outbox, f"events of it: {code}")

    def _note_completed(self, asked: CompleteJob, completed: JobCompleted | Refused) -> None:
        outbox = self._outboxes.get((asked.lease.job_id, asked.lease.attempt))
        if outbox is None:
            return
        match completed:
            case JobCompleted(state=state):
                outbox.complete(state)
            case Refused(code=IncompleteLog.code, expected_index=int(next_index)):
                outbox.resend_from(next_index)
            case Refused(code=StaleToken.code | NotFound.code):
                outbox.lose()
            case Refused(code=code, message=message):
                self._give_up(outbox, f"its end: {code} {message}".rstrip())

    def _give_up(self, outbox: Outbox, refused: str) -> None:
        """End this attempt and no other: the broker, perhaps a newer version, refuses something of it."""
        outbox.lose()
        lease = outbox.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} is ended: the broker refuses {refused}")
