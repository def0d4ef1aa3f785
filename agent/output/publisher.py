"""Event publisher: sends the batches and results in all of the agent's outboxes to the broker, many in one request.

One request is in flight at a time; meanwhile events gather for the next (see `batching`). The broker replies to each
batch separately, so a lost attempt does not block the others.
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

REFUSED_FIRST_MS: Final = 200  # longest first pause before a refused request is sent again; the bound then doubles
REFUSED_LAST_MS: Final = 30_000  # longest pause of all
NO_ROOM: Final[Mapping[str | None, str]] = MappingProxyType(  # the agent's report, by the broker's error code
    {
        Quota.code: "the broker refuses more events of this tenant for now (quota)",
        NoSpace.code: "the broker's disk has no room for events now (no-space)",
    }
)


class EventPublisher:
    """Publisher of an agent's events. It sends from each outbox between `open` and `close` of that outbox."""

    def __init__(self, channel: Channel, edges: Edges, report: Callable[[str], None], room: SpoolRoom) -> None:
        self.room = room
        self._channel = channel
        self._edges = edges
        self._report = report
        self._outboxes: dict[tuple[str, int], Outbox] = {}
        self._woken = Bell()
        self._sooner = Bell()  # rings when an outbox becomes due before `_flush_ms`
        self._flush_ms = math.inf  # when `_flush` will look for due outboxes
        self._due_s = math.inf  # when to look for something to send; -inf: at once, inf: once woken
        self.busy = False  # whether a request is in flight
        self._no_room = Backoff(edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS)

    def flush_at(self, due_ms: int) -> None:
        """Look for outboxes that are due, and flush them, at `due_ms` (anyio's clock) or earlier."""
        if due_ms < self._flush_ms:
            self._sooner.ring()

    def wake(self) -> None:
        """Look for batches and results to send."""
        self._due_s = -math.inf
        self._woken.ring()

    def wake_later(self, pause_s: float) -> None:
        """Look for batches and results to send at the next `wake`, at most `pause_s` from now."""
        due_s = anyio.current_time() + pause_s
        if due_s < self._due_s:
            self._due_s = due_s
            self._woken.ring()

    def open(self, outbox: Outbox) -> None:
        """Begin to send from this outbox."""
        self._outboxes[outbox.lease.job_id, outbox.lease.attempt] = outbox

    def close(self, outbox: Outbox) -> None:
        """Stop sending from this outbox, and free its share of the spool room."""
        outbox.free_room()
        self._outboxes.pop((outbox.lease.job_id, outbox.lease.attempt), None)

    async def run(self) -> None:
        """Send batches and results, for ever."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._flush)
            while True:
                while self._due_s > -math.inf:  # an instant that has passed ends the wait too
                    with anyio.CancelScope(deadline=self._due_s) as waiting:
                        await self._woken.wait()
                    if waiting.cancelled_caught:
                        break
                self._flush_due()
                batches = self._gather()
                completions = self._completions()
                self._due_s = math.inf
                if batches or completions:
                    self.busy = True
                    await self._publish(PublishJobEvents(batches=tuple(batches), completions=tuple(completions)))
                    self.busy = False
                    if self._due_s == math.inf:  # nobody has asked meanwhile, but not all may have fitted
                        self._due_s = -math.inf

    async def _flush(self) -> None:
        """Flush each outbox when it is due, even while a request is in flight."""
        while True:
            self._flush_ms = self._flush_due()
            # + 1: at a fraction of a millisecond before `_flush_ms` nothing would be due, and this loop would spin.
            with anyio.CancelScope(deadline=(self._flush_ms + 1) / 1_000):
                await self._sooner.wait()

    def _flush_due(self) -> float:
        """Flush the outboxes that are due, and return when the next will be."""
        next_ms = math.inf
        now_ms = now_in_ms()
        for outbox in self._outboxes.values():
            due_ms = outbox.due_ms(now_ms)
            if due_ms is None:
                continue
            if due_ms <= now_ms:
                outbox.flush()
            else:
                next_ms = min(next_ms, due_ms)
        return next_ms

    def _gather(self) -> list[EventBatch]:
        """Collect batches for one request, first from the outbox whose turn was longest ago.

        While the broker has no room for events, the ended attempt with the fewest unacknowledged bytes comes first.
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
                self._outboxes[key] = self._outboxes.pop(key)  # last in the dict: the next request begins with others
            batches += found
            room_bytes -= sum(len(batch.events) for batch in found)
        return batches

    def _completions(self) -> list[CompleteJob]:
        """Return the results of attempts whose events have all been sent, or are in the same request."""
        results = (outbox.completion() for outbox in self._outboxes.values())
        return list(islice((result for result in results if result is not None), COMPLETIONS_MAX))

    async def _publish(self, request: PublishJobEvents) -> None:
        """Send a request until the broker accepts it, and pass its replies to the outboxes."""
        asked = request

        def smaller() -> PublishJobEvents:
            nonlocal asked
            asked = self._smaller(asked)
            return asked

        def refused(error: PeerError) -> None:  # the broker's disk is full, or our token has expired
            self._report(f"the broker refuses the agent's events for now, and they will be sent again: {error.message}")

        reply = await retry(
            lambda: self._channel.ask(asked, smaller=smaller),
            Backoff(self._edges.random, REFUSED_FIRST_MS, REFUSED_LAST_MS),
            refused,
            final=(BadRequest,),  # the agent has made an invalid request: a bug, which no retry mends
        )
        for stored in reply.batches:
            self._note_stored(stored)
        for completion, completed in zip(asked.completions, reply.completions, strict=True):
            self._note_completed(completion, completed)
        await self._wait_for_room([stored for stored in reply.batches if stored.code in NO_ROOM])

    def _smaller(self, request: PublishJobEvents) -> PublishJobEvents:
        """Shorten a request to the size that the link carries now, but keep at least one batch; send the rest later."""
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
        """Pause if the broker has refused batches for lack of room; the spools keep them meanwhile.

        The pause ends early when another attempt ends: the broker accepts its last events and result even now. If
        output of a cancelled attempt was dropped, there is no pause, because that attempt can end now.
        """
        if not refused:
            self._no_room.reset()
            return
        if not self._no_room.failures:
            self._report(f"{NO_ROOM[refused[0].code]}; the agent keeps them in its spools, and will send them again")
        pause_s = self._no_room.next_s()
        if any(self._drop_output(stored) for stored in refused):
            return
        ending = self._ending()
        with anyio.move_on_after(pause_s):
            while self._ending() <= ending:
                self._due_s = math.inf  # so that the next attempt that ends rings, however long its result may wait
                await self._woken.wait()

    def _drop_output(self, stored: BatchStored) -> bool:
        """Drop the refused output of a cancelled attempt, so that it can end; return whether any was dropped."""
        outbox = self._outboxes.get((stored.job_id, stored.attempt))
        return outbox is not None and outbox.drop_output_from(stored.next_index)

    def _ending(self) -> set[tuple[str, int]]:
        """Return the attempts that have ended and whose results the broker has not stored."""
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
                self._give_up(outbox, f"its events: {code}")

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
                self._give_up(outbox, f"its result: {code} {message}".rstrip())

    def _give_up(self, outbox: Outbox, refused: str) -> None:
        """Give up this attempt only: the broker, perhaps a newer version, has rejected its events or its result."""
        outbox.lose()
        lease = outbox.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} is given up: the broker rejected {refused}")
