"""The EventPublisher: sends what all attempts have spooled, as many batches in one request as are there.

One request is on its way at a time; while it is, or while a completion is, the next gathers: see `batching`. Each
batch is judged by itself, so a lost attempt does not hold up its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from types import MappingProxyType
from typing import Final

import anyio

from airunner.agent.output.journal import Journal, now_in_ms
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
from airunner.protocol.messages import (
    BATCHES_MAX,
    COMPLETIONS_MAX,
    BatchStored,
    CompleteJob,
    EventBatch,
    JobCompleted,
    JobEventsPublished,
    PublishJobEvents,
    Refused,
)
from airunner.protocol.reconnect import full_jitter_ms
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
    """The actor; attempts `open` and `close` their journals with it."""

    def __init__(self, channel: Channel, edges: Edges, report: Callable[[str], None], room: SpoolRoom) -> None:
        self.room = room
        self._channel = channel
        self._edges = edges
        self._report = report
        self._journals: dict[tuple[str, int], Journal] = {}
        self._woken = anyio.Event()
        self._sooner = anyio.Event()
        self._flush_ms = math.inf
        self._publishing = False
        self._refusals = 0  # how often in turn the broker had no room for events

    @property
    def busy(self) -> bool:
        """Whether the broker owes an answer that events may wait for."""
        return self._publishing

    def flush_at(self, due_ms: int) -> None:
        """Have batches cut then, or before."""
        if due_ms < self._flush_ms:
            self._sooner.set()

    def wake(self) -> None:
        """There is something to send."""
        self._woken.set()

    def open(self, journal: Journal) -> None:
        """Send what this journal spools."""
        self._journals[journal.lease.job_id, journal.lease.attempt] = journal

    def close(self, journal: Journal) -> None:
        """Send nothing more of it."""
        journal.give_back()
        self._journals.pop((journal.lease.job_id, journal.lease.attempt), None)

    async def run(self) -> None:
        """Publish for ever."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._flush)
            while True:
                self._woken = anyio.Event()
                if not self.busy:
                    self._cut_due()
                batches = self._gather()
                completions = self._completions()
                if batches or completions:
                    self._publishing = True
                    await self._publish(PublishJobEvents(batches=tuple(batches), completions=tuple(completions)))
                    self._publishing = False
                else:
                    await self._woken.wait()

    async def _flush(self) -> None:
        """Cut every batch when it is due, whatever the broker does."""
        while True:
            self._sooner = anyio.Event()
            self._flush_ms = self._cut_due()
            # The first moment after that millisecond: a clock that falls short of it by a hair would spin here.
            with anyio.CancelScope(deadline=(self._flush_ms + 1) / 1_000):
                await self._sooner.wait()

    def _cut_due(self) -> float:
        """Cut what is due; when the next will be."""
        next_ms = math.inf
        now_ms = now_in_ms()
        for journal in self._journals.values():
            due_ms = journal.due_ms(now_ms)
            if due_ms is None:
                continue
            if due_ms <= now_ms:
                journal.cut()
            else:
                next_ms = min(next_ms, due_ms)
        return next_ms

    def _gather(self) -> list[EventBatch]:
        """Some batches of every journal that has any, the one that waited longest first.

        Where the broker has no room for events, it is the one that has ended and needs the least of it.
        """
        batches: list[EventBatch] = []
        room_bytes = self._channel.request_size.bytes_max
        waiting = list(self._journals.items())
        if self._refusals:
            waiting.sort(key=lambda one: one[1].bytes_to_end)
        for key, journal in waiting:
            if room_bytes <= 0 or len(batches) >= BATCHES_MAX:
                break
            found = journal.unsent(BATCHES_MAX - len(batches), room_bytes)
            if found:
                self._journals[key] = self._journals.pop(key)  # the next turn begins with the others
            batches += found
            room_bytes -= sum(len(batch.events) for batch in found)
        return batches

    def _completions(self) -> list[CompleteJob]:
        """The ends of attempts whose every event is sent, be it with these."""
        ends = (journal.completion() for journal in self._journals.values())
        return list(islice((end for end in ends if end is not None), COMPLETIONS_MAX))

    async def _publish(self, request: PublishJobEvents) -> None:
        """Send until it is answered, then take the answer in."""
        failures = 0
        asked = request

        def smaller() -> PublishJobEvents:
            nonlocal asked
            asked = self._smaller(asked)
            return asked

        while True:
            try:
                reply = await self._channel.ask(asked, smaller=smaller)
            except BadRequest:
                raise  # our own events: a bug, not a state of the world
            except PeerError as error:
                # The disk there is full, or our token has ended: the spool keeps it all meanwhile.
                if not failures:
                    self._report(f"the broker takes no events now, and is asked again: {error.message}")
                pause_ms = full_jitter_ms(self._edges.random, failures, REFUSED_FIRST_MS, REFUSED_LAST_MS)
                failures += 1
                await anyio.sleep(pause_ms / 1_000)
                continue
            assert isinstance(reply, JobEventsPublished), "the answer to PublishJobEvents"
            for stored in reply.batches:
                self._take(stored)
            for completion, completed in zip(asked.completions, reply.completions, strict=True):
                self._settle(completion, completed)
            await self._rest([stored for stored in reply.batches if stored.code in NO_ROOM])
            return

    def _smaller(self, request: PublishJobEvents) -> PublishJobEvents:
        """As much of it as the link is thought to carry by now, one batch at the least; the rest is gathered again."""
        room_bytes = self._channel.request_size.bytes_max
        ends = accumulate(len(batch.events) for batch in request.batches)
        count = max(1, sum(end <= room_bytes for end in ends))
        left_out = request.batches[count:]
        for batch in reversed(left_out):
            if (journal := self._journals.get((batch.job_id, batch.attempt))) is not None:
                journal.resend_from(batch.first_index)
        behind = {(batch.job_id, batch.attempt) for batch in left_out}
        completions = tuple(one for one in request.completions if (one.job_id, one.attempt) not in behind)
        return PublishJobEvents(batches=request.batches[:count], completions=completions)

    async def _rest(self, refused: Sequence[BatchStored]) -> None:
        """Wait where the broker has no room for these; the spool keeps them meanwhile.

        What ends something waits for no room: the next attempt that ends is told of at once.
        """
        if not refused:
            self._refusals = 0
            return
        if not self._refusals:
            self._report(f"{NO_ROOM[refused[0].code]}, and is asked again")
        pause_ms = full_jitter_ms(self._edges.random, self._refusals, REFUSED_FIRST_MS, REFUSED_LAST_MS)
        self._refusals += 1
        if any(self._abridge(stored) for stored in refused):
            return
        ending = self._ending()
        with anyio.move_on_after(pause_ms / 1_000):
            while self._ending() <= ending:
                self._woken = anyio.Event()
                await self._woken.wait()

    def _abridge(self, stored: BatchStored) -> bool:
        """Whether there is less of this attempt's now, so that it can end."""
        journal = self._journals.get((stored.job_id, stored.attempt))
        return journal is not None and journal.abridge_from(stored.next_index)

    def _ending(self) -> set[tuple[str, int]]:
        """The attempts that have ended and that the broker is still to be told of."""
        return {key for key, journal in self._journals.items() if journal.bytes_to_end < math.inf}

    def _take(self, stored: BatchStored) -> None:
        journal = self._journals.get((stored.job_id, stored.attempt))
        if journal is None:
            return
        match stored.code:
            case None:
                journal.acknowledge(stored.next_index)
            case IndexGap.code | Quota.code | NoSpace.code:
                journal.resend_from(stored.next_index)
            case StaleToken.code | NotFound.code:
                journal.lose()
            case code:
                self._give_up(journal, f"events of it: {code}")

    def _settle(self, asked: CompleteJob, completed: JobCompleted | Refused) -> None:
        journal = self._journals.get((asked.job_id, asked.attempt))
        if journal is None:
            return
        match completed:
            case JobCompleted(state=state):
                journal.complete(state)
            case Refused(code=IncompleteLog.code, expected_index=int(next_index)):
                journal.resend_from(next_index)
            case Refused(code=StaleToken.code | NotFound.code):
                journal.lose()
            case Refused(code=code, message=message):
                self._give_up(journal, f"its end: {code} {message}".rstrip())

    def _give_up(self, journal: Journal, refused: str) -> None:
        """The broker, perhaps a newer one, refuses what is of this attempt: end it, and none of the others."""
        journal.lose()
        lease = journal.lease
        self._report(f"job {lease.job_id} attempt {lease.attempt} is ended: the broker refuses {refused}")
