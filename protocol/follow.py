"""Follow: every event of one job, once and in order, whatever the live socket lost.

One `Follow` is the state of one monitor. It owns no socket and no clock. Live runs come as they come:
late, twice, with holes, or never; stored runs come by replay. What it returns is always the next event
and never another.

```
 live run ──► next? ──yes──► events ──► JOB_FINISHED: the end
               │ no: kept, and the hole is asked for
 replay  ──────┘
```

When a replay is wanted
- at the start, and again once the subscription is known to stand (events may have passed in between);
- when a live run leaves a hole, or was too long to be sent live and comes without its events;
- while the last page says that there is more;
- after a silence, for the last event of a job has nothing behind it that could show it missing. The silence
  asked after grows from `SILENCE_FIRST_MS` to `SILENCE_LAST_MS`: it is a net under the live socket, not the way.
"""

from __future__ import annotations

from typing import Final

from airunner.protocol.errors import BadRequest, CorruptLog
from airunner.protocol.events import Event, EventRun, JobFinished, events_of
from airunner.protocol.messages import REPLAY_BYTES_MAX, JobEventsReplayed, ReplayJobEvents
from airunner.protocol.names import JobId

SILENCE_FIRST_MS: Final = 1_000
SILENCE_LAST_MS: Final = 15_000
LAST_KIND: Final = "JOB_FINISHED"  # asked for in any case: it is the end
KEPT_RUNS_MAX: Final = 128  # live runs held while a hole is asked for; what is beyond is replayed too


class Follow:
    """One monitor's place in one job's log.

    `from_timestamp_ms`, where given, skips to the first event that is not older. With `kinds` only events of these are
    returned; the others are known to be there all the same, by their numbers.
    """

    def __init__(
        self,
        job_id: JobId,
        now_ms: int,
        *,
        from_sequence: int = 1,
        from_timestamp_ms: int | None = None,
        kinds: tuple[str, ...] = (),
    ) -> None:
        assert from_sequence >= 1, "sequences count from 1"
        self.job_id = job_id
        self.next_sequence = from_sequence
        self.finished = False
        self._from_timestamp_ms = from_timestamp_ms
        self._kinds = kinds
        self._kept: dict[int, EventRun] = {}
        self._asked = False
        self._wanted = True
        self._stored_to = 0  # the sequence after the last event that is known to be stored and was not asked for yet
        self._silence_ms = SILENCE_FIRST_MS
        self._deadline_ms = now_ms + SILENCE_FIRST_MS

    def request(self, bytes_max: int = REPLAY_BYTES_MAX) -> ReplayJobEvents | None:
        """The replay to send now, if one is wanted and none is on its way; of about `bytes_max`."""
        if self.finished or self._asked or not (self._wanted or self._stored_to > self.next_sequence):
            return None
        self._asked = True
        self._wanted = False
        self._stored_to = 0
        return self.smaller(bytes_max)

    def smaller(self, bytes_max: int) -> ReplayJobEvents:
        """The replay to send in the place of one that is on its way."""
        assert self._asked, "there is one"
        return ReplayJobEvents(
            job_id=self.job_id,
            from_sequence=self.next_sequence,
            from_timestamp_ms=self._from_timestamp_ms,
            bytes_max=bytes_max,
            kinds=(*self._kinds, LAST_KIND) if self._kinds else (),
        )

    def subscribed(self) -> None:
        """From now on live runs arrive; what passed before is asked for."""
        self._wanted = True

    def live(self, run: EventRun, now_ms: int) -> list[Event]:
        """Take in a live run; returns what is next in order, often all of it."""
        if self.finished or run.next_sequence <= self.next_sequence:
            return []
        self._silence_ms = SILENCE_FIRST_MS
        self._deadline_ms = now_ms + SILENCE_FIRST_MS
        if not run.events:
            self._stored_to = max(self._stored_to, run.next_sequence)
            return []
        if self._from_timestamp_ms is not None or run.first_sequence > self.next_sequence:
            if len(self._kept) < KEPT_RUNS_MAX:
                self._kept[run.first_sequence] = run
            self._wanted = True
            return []
        return [*self._advance(run), *self._from_kept()]

    def replayed(self, page: JobEventsReplayed, now_ms: int) -> list[Event]:
        """Take in the answer to `request`.

        Raises `CorruptLog`: what is stored there is not what was; asked again it would be no better.
        """
        assert self._asked, "a page that was not asked for"
        self._asked = False
        if self.finished:
            return []
        before = self.next_sequence
        events = self._take_page(page)
        events += self._from_kept()
        brought = self.next_sequence > before
        if self.next_sequence > page.last_sequence and not self._kept:
            if page.finished:
                self.finished = True
        elif brought:  # a page that brings nothing is not asked for again before the silence is over
            self._wanted = True
        self._silence_ms = SILENCE_FIRST_MS if brought else min(SILENCE_LAST_MS, 2 * self._silence_ms)
        self._deadline_ms = now_ms + self._silence_ms
        return events

    def deadline_ms(self) -> int | None:
        """When `tick` is next to be called; None while a replay is on its way or nothing more comes."""
        return None if self.finished or self._asked else self._deadline_ms

    def tick(self, now_ms: int) -> None:
        """After a silence a replay is wanted."""
        if now_ms >= self._deadline_ms:
            self._wanted = True

    def _take_page(self, page: JobEventsReplayed) -> list[Event]:
        events: list[Event] = []
        if self._from_timestamp_ms is not None:
            skipped_to = page.runs[0].first_sequence if page.runs else page.next_sequence
            self.next_sequence = max(self.next_sequence, skipped_to)
        for run in page.runs:
            try:
                events += self._advance(run)
            except BadRequest as error:
                words = f"event {self.next_sequence} of this job's log cannot be decoded"
                raise CorruptLog(f"{words}; {CorruptLog().message}") from error
        if self._from_timestamp_ms is None:
            return events
        start_ms = self._from_timestamp_ms
        first = next((at for at, event in enumerate(events) if event.timestamp_ms >= start_ms), len(events))
        if first < len(events):
            self._from_timestamp_ms = None
        return events[first:]

    def _advance(self, run: EventRun) -> list[Event]:
        """The events of `run` from `next_sequence` on; a run that lies behind or leaves a hole has none."""
        if self.finished or not run.first_sequence <= self.next_sequence < run.next_sequence:
            return []
        if self._kinds and not run.events:  # none that was asked for is among them
            self.next_sequence = run.next_sequence
            return []
        events = events_of(self.job_id, run)[self.next_sequence - run.first_sequence :]
        self.next_sequence = run.next_sequence
        self.finished = isinstance(events[-1].body, JobFinished)
        return [event for event in events if event.kind in self._kinds] if self._kinds else events

    def _from_kept(self) -> list[Event]:
        events: list[Event] = []
        for first in sorted(self._kept):
            if first > self.next_sequence or self._from_timestamp_ms is not None:
                break
            events += self._advance(self._kept.pop(first))
        self._kept = {first: run for first, run in self._kept.items() if run.next_sequence > self.next_sequence}
        return events
