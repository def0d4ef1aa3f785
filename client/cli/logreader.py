"""Reader of a job's output for `airunner logs`: from the beginning, from an instant or from the end, and what follows.

The last lines are looked for from the end: the last `WINDOW_EVENTS` events are read, then four times as many, until
they have lines enough. So little of a long log is read, and at most a third of that again. A search reads all of it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain, groupby
from typing import Final

from msgspec import Struct

from airunner.client.cli.console import JobConsole
from airunner.client.cli.kinds import OUTPUT_KINDS
from airunner.client.cli.loglines import SEPARATOR, TAIL_BYTES_MAX, Line, LineSplitter, Search, Tail
from airunner.client.cli.printing import ConsolePrinter, line_object
from airunner.client.cli.stamps import Stamps, Timestamps
from airunner.client.cli.wording import bytes_text, millisecond_text
from airunner.client.client import Client
from airunner.protocol.events import Event, Output, OutputTruncated, Stream

WINDOW_EVENTS: Final = 16
WINDOW_GROWTH: Final = 4
BATCH_EVENTS: Final = 64  # stored events that are printed together


class Wanted(Struct, frozen=True):
    """Part of a log that is wanted: streams, one attempt, and a time, all by the clock of the event's machine."""

    streams: tuple[Stream, ...]
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


class LogReader:
    """Log reader: prints the wanted part of a job's log.

    With a `pattern` it prints only lines that match, with `context` lines around them; with `json`, lines as objects.
    It looks for the last lines in the last events, at first in as many as `window`.
    """

    def __init__(
        self,
        client: Client,
        job_id: str,
        console: JobConsole,
        wanted: Wanted,
        pattern: re.Pattern[str] | None = None,
        context: int = 0,
        *,
        timestamps: bool = False,
        json: bool = False,
        window: int = WINDOW_EVENTS,
    ) -> None:
        self._client = client
        self._job_id = job_id
        self._console = console
        self._wanted = wanted
        self._pattern = pattern
        self._context = context
        self._timestamps = timestamps
        self._json = json
        self._window = window
        self._omitted_bytes = 0  # of output that the agent left out, while lines are printed
        self._begin(1)

    async def show(self, tail: int | None, *, follow: bool) -> None:
        """Print the last lines, as many as `tail`, or all; with `follow`, then what comes until the job ends."""
        by_line = self._json or self._pattern is not None
        start = 1
        if tail is not None:
            start = await self._show_tail(tail, keep=follow and by_line)
        if follow or tail is None:
            batches = self._live(start) if follow else self._stored(start)
            printer = ConsolePrinter(self._console, OUTPUT_KINDS, Stamps(Timestamps.FULL) if self._timestamps else None)
            async for batch in batches:
                if by_line:
                    self._print(self._lines(batch))
                else:
                    printer.show(batch)
            self._print(self._last_lines())
        self._console.job_over()
        if self._omitted_bytes:
            self._console.must_say(f"{self._omitted_bytes} bytes of output were left out by the agent")

    async def _show_tail(self, lines: int, *, keep: bool) -> int:
        """Print the last lines, and return the sequence after them; with `keep`, an unfinished line comes later."""
        next_sequence = last = (await self._client.get(self._job_id)).last_sequence + 1
        events = self._window
        tail = Tail(lines)
        while lines:
            start = max(1, last - events) if self._pattern is None else 1
            self._begin(start)
            tail = Tail(lines)
            async for batch in self._stored(start):
                tail.feed(self._lines(batch))
                next_sequence = max(next_sequence, batch[-1].sequence + 1)
            if not keep:
                tail.feed(self._last_lines())
            if start == 1 or (tail.fed >= lines and not any(line.partial for line in tail.lines)):
                break
            events *= WINDOW_GROWTH
        self._print(tail.lines)
        if tail.too_large:
            size = bytes_text(TAIL_BYTES_MAX)
            self._console.must_say(f"the last {lines} lines take more than {size}: the first of them are not shown")
        return next_sequence

    async def _stored(self, start: int) -> AsyncIterator[list[Event]]:
        """Read what is wanted of the log so far, from a sequence on, in batches."""
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
        """Read what is wanted of the log, from a sequence on, until the job ends."""
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
        self._omitted_bytes = 0

    def _lines(self, batch: Iterable[Event]) -> Iterator[Line]:
        """Take the lines that end in these events and that the search finds."""
        for event in batch:
            if isinstance(event.body, OutputTruncated):
                self._omitted_bytes += event.body.omitted_bytes
            yield from self._found(self._splitter.feed(event))

    def _last_lines(self) -> Iterator[Line]:
        return self._found(self._splitter.finish())

    def _found(self, lines: Iterator[Line]) -> Iterator[Line]:
        search = self._search
        return lines if search is None else chain.from_iterable(map(search.feed, lines))

    def _print(self, lines: Iterable[Line]) -> None:
        if self._json:
            for line in lines:
                if line is not SEPARATOR:
                    self._console.out_json(line_object(self._job_id, line))
            return
        for stream, adjacent in groupby(lines, lambda line: line.stream):
            self._console.job_output(stream, b"".join(map(self._shown, adjacent)))

    def _shown(self, line: Line) -> bytes:
        stamp = (
            f"{millisecond_text(line.timestamp_ms)} ".encode() if self._timestamps and line is not SEPARATOR else b""
        )
        ended = line.data.endswith(b"\n") or not (stamp or self._search)
        return stamp + line.data + (b"" if ended else b"\n")
