"""Follow: delivers every event of one job once and in order, whatever the live socket lost.

One `Follow` is the state of one monitor. It owns no socket and no clock. Live segments may arrive late, twice, with
gaps, or never; stored segments arrive by replay. The events that it returns always continue the log, without a gap.

```
 live segment ──► next? ──yes──► events ──► JOB_FINISHED: the end
                   │ no: kept, and the gap is replayed
 replay      ──────┘
```

It requests a replay
- at the start, and again once the subscription is confirmed (events may have passed in between);
- when a live segment leaves a gap, or was too long to be sent live and comes without its events. These are requested
  at once after a pause, otherwise `PAUSE_MS` after the last page: so a fast job is read in few, large pages;
- while the last page does not reach the log's end;
- after a silence, because no later segment would show that the job's last event was lost. The silence grows from
  `SILENCE_FIRST_MS` to `SILENCE_LAST_MS`: replays are a safety net for the live socket.
"""

from __future__ import annotations

from typing import Final

from airunner.protocol.errors import BadRequest, CorruptLog
from airunner.protocol.events import Event, EventSegment, JobFinished, events_of
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobEventsReplayed
from airunner.protocol.requests import REPLAY_BYTES_MAX, ReplayJobEvents

SILENCE_FIRST_MS: Final = 1_000
SILENCE_LAST_MS: Final = 15_000
PAUSE_MS: Final = 25  # between two pages of a running log: a fast job writes 1 to 4 MiB meanwhile
LAST_KIND: Final = "JOB_FINISHED"  # always requested: it ends the log
KEPT_SEGMENTS_MAX: Final = 128  # live segments kept while a gap is replayed; more are dropped, and replayed too


class Follow:
    """Position of one monitor in one job's log.

    `from_timestamp_ms`, if given, skips to the first event not older than that. With `kinds`, only events of
    these kinds are returned; the other events only advance the position.
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
        assert from_sequence >= 1, f"sequence {from_sequence}, though sequences count from 1"
        self.job_id = job_id
        self.next_sequence = from_sequence
        self.finished = False  # whether JOB_FINISHED was returned
        self.job_ended = False  # whether the log is known to contain JOB_FINISHED
        self._from_timestamp_ms = from_timestamp_ms
        self._kinds = kinds
        self._kept: dict[int, EventSegment] = {}
        self._in_flight = False  # whether a replay request is in flight
        self._wanted = True  # whether to request a replay
        self._now_ms = now_ms  # at the last input
        self._pause_to_ms = now_ms  # when to request what live segments left out, at the earliest
        self._stored_to = 0  # the sequence after the last event that is known to be stored and was not requested yet
        self._silence_ms = SILENCE_FIRST_MS
        self._deadline_ms = now_ms + SILENCE_FIRST_MS

    @property
    def wants_replay(self) -> bool:
        """Whether `request` would return a request now."""
        wanted = self._wanted or (self._left_out and self._now_ms >= self._pause_to_ms)
        return wanted and not self.finished and not self._in_flight

    def request(self, bytes_max: int = REPLAY_BYTES_MAX) -> ReplayJobEvents | None:
        """Return the replay request to send now, for about `bytes_max`; None: not needed, or a request is in flight."""
        if not self.wants_replay:
            return None
        self._in_flight = True
        self._wanted = False
        self._stored_to = 0
        return self.smaller(bytes_max)

    def smaller(self, bytes_max: int) -> ReplayJobEvents:
        """Return the replay request that replaces the one in flight."""
        assert self._in_flight, "no replay request is in flight"
        return ReplayJobEvents(
            job_id=self.job_id,
            from_sequence=self.next_sequence,
            from_timestamp_ms=self._from_timestamp_ms,
            bytes_max=bytes_max,
            kinds=(*self._kinds, LAST_KIND) if self._kinds else (),
            zstd=True,
        )

    def want_replay(self) -> None:
        """Make the next `request` return a replay: the subscription was confirmed, or live segments were lost."""
        self._wanted = True

    def live(self, segment: EventSegment, now_ms: int) -> list[Event]:
        """Process a live segment, and return the events that are next in order."""
        self._now_ms = now_ms
        if self.finished or segment.next_sequence <= self.next_sequence:
            return []
        self._silence_ms = SILENCE_FIRST_MS
        self._deadline_ms = now_ms + SILENCE_FIRST_MS
        if not segment.events:
            self._stored_to = max(self._stored_to, segment.next_sequence)
            return []
        if self._from_timestamp_ms is not None or segment.first_sequence > self.next_sequence:
            if len(self._kept) < KEPT_SEGMENTS_MAX:
                self._kept[segment.first_sequence] = segment
            self._wanted = True
            return []
        return [*self._advance(segment), *self._from_kept()]

    def replayed(self, page: JobEventsReplayed, now_ms: int) -> list[Event]:
        """Process the reply to `request`; return the next events. Raises `CorruptLog`: the stored bytes are damaged."""
        assert self._in_flight, "no replay was requested"
        self._in_flight = False
        self._now_ms = now_ms
        self.job_ended |= page.finished
        if self.finished:
            return []
        before = self.next_sequence
        events = self._from_page(page)
        events += self._from_kept()
        brought = self.next_sequence > before
        if self.next_sequence > page.last_sequence and not self._kept:
            if page.finished:
                self.finished = True
            self._pause_to_ms = now_ms + PAUSE_MS
        elif brought:  # after a page without new events, the next replay waits for a silence
            self._wanted = True
        self._silence_ms = SILENCE_FIRST_MS if brought else min(SILENCE_LAST_MS, 2 * self._silence_ms)
        self._deadline_ms = now_ms + self._silence_ms
        return events

    def deadline_ms(self) -> int | None:
        """Return when to call `tick` next; None while a replay is in flight or after the end."""
        if self.finished or self._in_flight:
            return None
        return min(self._pause_to_ms, self._deadline_ms) if self._left_out else self._deadline_ms

    def tick(self, now_ms: int) -> None:
        """Make the next `request` return a replay, if the silence or the pause has lasted long enough."""
        self._now_ms = now_ms
        if now_ms >= self._deadline_ms:
            self._wanted = True

    @property
    def _left_out(self) -> bool:
        """Whether events are known to be stored that live segments have not brought and no replay was sent for."""
        return self._stored_to > self.next_sequence

    def _from_page(self, page: JobEventsReplayed) -> list[Event]:
        events: list[Event] = []
        if self._from_timestamp_ms is not None:
            skipped_to = page.runs[0].first_sequence if page.runs else page.next_sequence
            self.next_sequence = max(self.next_sequence, skipped_to)
        for segment in page.runs:
            try:
                events += self._advance(segment)
            except BadRequest as error:
                problem = f"event {self.next_sequence} of this job's log cannot be decoded"
                raise CorruptLog(f"{problem}. {CorruptLog().message}") from error
        if self._from_timestamp_ms is None:
            return events
        start_ms = self._from_timestamp_ms
        first = next((at for at, event in enumerate(events) if event.timestamp_ms >= start_ms), len(events))
        if first < len(events):
            self._from_timestamp_ms = None
        return events[first:]

    def _advance(self, segment: EventSegment) -> list[Event]:
        """Return the events of `segment` from `next_sequence` on: none if it has only earlier ones or leaves a gap."""
        if self.finished or not segment.first_sequence <= self.next_sequence < segment.next_sequence:
            return []
        if self._kinds and not segment.events:  # the segment has no event of the wanted kinds
            self.next_sequence = segment.next_sequence
            return []
        events = events_of(self.job_id, segment)[self.next_sequence - segment.first_sequence :]
        self.next_sequence = segment.next_sequence
        self.finished = isinstance(events[-1].body, JobFinished)
        self.job_ended |= self.finished
        return [event for event in events if event.kind in self._kinds] if self._kinds else events

    def _from_kept(self) -> list[Event]:
        events: list[Event] = []
        for first in sorted(self._kept):
            if first > self.next_sequence or self._from_timestamp_ms is not None:
                break
            events += self._advance(self._kept.pop(first))
        self._kept = {
            first: segment for first, segment in self._kept.items() if segment.next_sequence > self.next_sequence
        }
        return events
