"""Reader of a job's output in lines: from the beginning, from an instant or from the end, and what follows.

What is last is looked for from the end: in the last events, then in four times as many, until enough is found
(`window_starts`). So little of a long log is read, and at most a third of that again. A search reads all of it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from airunner.client.loglines import OUTPUT_KINDS, Line, LineSplitter, Search, Tail
from airunner.protocol.events import STREAMS, Event, Output, OutputTruncated, Stream

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.protocol.job import Job

WINDOW_EVENTS: Final = 16
WINDOW_GROWTH: Final = 4
LAST_EVENTS: Final = 32  # in which `last_events` looks first
LAST_EVENTS_MAX: Final = 8_192
BATCH_EVENTS: Final = 64  # stored events that are handed on together


class Wanted(Struct, frozen=True):
    """Part of a log that is wanted: streams, one attempt, and a time, all by the clock of the event's machine."""

    streams: tuple[Stream, ...] = STREAMS
    attempt: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def ends_with(self, event: Event) -> bool:
        """Return whether this event and the ones after it are too late, or of a later attempt."""
        late = self.until_ms is not None and event.timestamp_ms > self.until_ms
        return late or (self.attempt is not None and event.attempt > self.attempt)

    def has(self, event: Event) -> bool:
        """Return whether this event is wanted."""
        if self.attempt is not None and event.attempt != self.attempt:
            return False
        return not isinstance(event.body, Output) or event.body.stream in self.streams


def window_starts(end: int, first: int = WINDOW_EVENTS, events_max: int | None = None) -> Iterator[int]:
    """Yield the sequences from which the end of a log is read in turn: `first` events before `end`, then four times it.

    The last one is 1, or that of the largest window of up to `events_max` events.
    """
    events = first
    while end > events and (events_max is None or events <= events_max):
        yield end - events
        events *= WINDOW_GROWTH
    if events_max is None or end - 1 <= events_max:
        yield 1


async def last_events(
    client: Client, job: Job, kinds: Sequence[str], events_max: int = LAST_EVENTS_MAX
) -> Sequence[Event]:
    """Read the events of some kinds at the end of a log: those in the first window that has any, up to `events_max`."""
    found: Sequence[Event] = ()
    for start in window_starts(job.last_sequence + 1, LAST_EVENTS, events_max):
        if found := [event async for event in client.replay(job.id, start, kinds=kinds)]:
            break
    return found


class LogReader:
    """Log reader: reads the wanted part of a job's log.

    With a `pattern` it finds only lines that match, with `context` lines around them. It looks for the last lines in
    the last events, at first in as many as `window`. `omitted_bytes` counts output that the agent left out, and
    `tail_cut` says whether some of the last lines are missing because they would take too much memory.
    """

    def __init__(
        self,
        client: Client,
        job_id: str,
        wanted: Wanted,
        pattern: re.Pattern[str] | None = None,
        context: int = 0,
        *,
        window: int = WINDOW_EVENTS,
    ) -> None:
        self.omitted_bytes = 0
        self.tail_cut = False
        self._client = client
        self._job_id = job_id
        self._wanted = wanted
        self._pattern = pattern
        self._context = context
        self._window = window
        self._begin(1)

    async def lines(self, tail: int | None, *, follow: bool) -> AsyncGenerator[Sequence[Line]]:
        """Read the last lines, as many as `tail`, or all; with `follow`, then what comes until the job ends."""
        start = 1
        if tail is not None:
            last, start = await self.last_lines(tail, keep=follow)
            yield tuple(last)
        if follow or tail is None:
            async for batch in self.events(start, follow=follow):
                yield tuple(self._lines(batch))
            yield tuple(self._unfinished())

    async def last_lines(self, lines: int, *, keep: bool) -> tuple[deque[Line], int]:
        """Read the last lines and the sequence after them; with `keep`, `lines` goes on with an unfinished line."""
        next_sequence = last = (await self._client.get(self._job_id)).last_sequence + 1
        tail = Tail(lines)
        starts = window_starts(last, self._window) if self._pattern is None else (1,)
        for start in starts if lines else ():
            self._begin(start)
            tail = Tail(lines)
            async for batch in self._stored(start):
                tail.feed(self._lines(batch))
                next_sequence = max(next_sequence, batch[-1].sequence + 1)
            if not keep:
                tail.feed(self._unfinished())
            if tail.fed >= lines and not any(line.partial for line in tail.lines):
                break
        self.tail_cut = tail.too_large
        return tail.lines, next_sequence

    def events(self, start: int, *, follow: bool) -> AsyncIterator[list[Event]]:
        """Read what is wanted of the log, from a sequence on, in batches; with `follow` until the job ends."""
        return self._live(start) if follow else self._stored(start)

    async def _stored(self, start: int) -> AsyncIterator[list[Event]]:
        wanted, batch = self._wanted, list[Event]()
        async for event in self._client.replay(self._job_id, start, wanted.since_ms, OUTPUT_KINDS):
            if wanted.ends_with(event):
                break
            if wanted.has(event):
                batch.append(event)
            if len(batch) == BATCH_EVENTS:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _live(self, start: int) -> AsyncIterator[list[Event]]:
        wanted = self._wanted
        async with self._client.follow(self._job_id, start, wanted.since_ms, OUTPUT_KINDS) as events:
            while batch := await events.next_batch():
                if shown := [event for event in batch if wanted.has(event)]:
                    yield shown
                if wanted.ends_with(batch[-1]):
                    return

    def _begin(self, start: int) -> None:
        self._splitter = LineSplitter(from_beginning=start == 1)
        self._search = None if self._pattern is None else Search(self._pattern, self._context)
        self.omitted_bytes = 0

    def _lines(self, batch: Iterable[Event]) -> Iterator[Line]:
        """Take the lines that end in these events and that the search finds."""
        for event in batch:
            if isinstance(event.body, OutputTruncated):
                self.omitted_bytes += event.body.omitted_bytes
            yield from self._found(self._splitter.feed(event))

    def _unfinished(self) -> Iterator[Line]:
        return self._found(self._splitter.finish())

    def _found(self, lines: Iterator[Line]) -> Iterator[Line]:
        search = self._search
        return lines if search is None else chain.from_iterable(map(search.feed, lines))
