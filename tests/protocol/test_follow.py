"""Every event once, in order, to the end: whatever the live socket loses, doubles or delays."""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airunner.protocol.errors import BadRequest, CorruptLog
from airunner.protocol.events import (
    AgentBody,
    BrokerBody,
    Event,
    EventSegment,
    Heartbeat,
    JobFinished,
    JobScheduled,
    LiveSegment,
    encode_bodies,
    events_of,
)
from airunner.protocol.follow import KEPT_SEGMENTS_MAX, PAUSE_MS, SILENCE_FIRST_MS, SILENCE_LAST_MS, Follow
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobEventsReplayed
from airunner.protocol.requests import ReplayJobEvents

JOB: Final = JobId("0190a0a0-0000-7000-8000-000000000000")
SETTLING_STEPS_MAX: Final = 400


def run(first: int, count: int, *, stamps: list[int] | None = None, last: bool = False) -> EventSegment:
    times = stamps or list(range(first, first + count))
    agents: list[AgentBody] = [Heartbeat(timestamp_ms=at) for at in times]
    brokers: list[BrokerBody] = [JobScheduled(timestamp_ms=at, queue="q") for at in times[:-1]]
    brokers.append(JobFinished(timestamp_ms=times[-1], state=JobState.COMPLETED))
    return EventSegment(first_sequence=first, count=count, attempt=1, events=encode_bodies(brokers if last else agents))


class Log:
    """What an honest broker has stored: it answers replays a page at a time."""

    def __init__(self, runs: list[EventSegment], page_runs: int = 2) -> None:
        self.runs = runs
        self.page_runs = page_runs
        self.stamps = {event.sequence: event.timestamp_ms for stored in runs for event in events_of(JOB, stored)}

    @property
    def last(self) -> int:
        return self.runs[-1].next_sequence - 1 if self.runs else 0

    def page(self, request: ReplayJobEvents, *, stored: int | None = None) -> JobEventsReplayed:
        runs = self.runs if stored is None else self.runs[:stored]
        last = runs[-1].next_sequence - 1 if runs else 0
        start = request.from_sequence
        if (at_ms := request.from_timestamp_ms) is not None:
            found = (s for s in range(start, last + 1) if self.stamps[s] >= at_ms)
            start = next(found, max(start, last + 1))
        chosen = [stored for stored in runs if stored.next_sequence > start][: self.page_runs]
        return JobEventsReplayed(
            runs=tuple(chosen),
            next_sequence=chosen[-1].next_sequence if chosen else start,
            last_sequence=last,
            finished=len(runs) == len(self.runs),
        )


def named(stored: EventSegment) -> LiveSegment:
    """As it is announced when it is long."""
    return LiveSegment(first_sequence=stored.first_sequence, count=stored.count, attempt=stored.attempt)


def sequences(events: list[Event]) -> list[int]:
    return [event.sequence for event in events]


def page(*runs: EventSegment, following: int, last: int, finished: bool = False) -> JobEventsReplayed:
    return JobEventsReplayed(runs=runs, next_sequence=following, last_sequence=last, finished=finished)


def asked(*runs: EventSegment, last: int | None = None) -> Follow:
    """One that was sent these, which are all of the log unless it goes on to `last`."""
    follow = Follow(JOB, 0)
    follow.request()
    following = runs[-1].next_sequence
    follow.replayed(page(*runs, following=following, last=last or following - 1), 0)
    return follow


def test_it_begins_with_a_replay_from_where_it_was_told() -> None:
    follow = Follow(JOB, 0, from_sequence=5, from_timestamp_ms=9)
    assert follow.request() == ReplayJobEvents(job_id=JOB, from_sequence=5, from_timestamp_ms=9, zstd=True)
    assert follow.request() is None, "one at a time"
    with pytest.raises(AssertionError):
        Follow(JOB, 0, from_sequence=0)
    with pytest.raises(AssertionError):
        Follow(JOB, 0).replayed(page(following=1, last=0), 0)


def test_what_it_asks_for_can_be_asked_for_in_a_smaller_piece() -> None:
    follow = Follow(JOB, 0, from_sequence=5)
    assert follow.request(100) == ReplayJobEvents(job_id=JOB, from_sequence=5, bytes_max=100, zstd=True)
    follow.live(run(5, 2), 1)
    assert follow.smaller(50) == ReplayJobEvents(job_id=JOB, from_sequence=7, bytes_max=50, zstd=True)
    assert follow.request() is None, "it is on its way"
    assert sequences(follow.replayed(page(run(7, 1), following=8, last=7), 2)) == [7]


def test_live_runs_need_no_replay_in_order_twice_and_overlapping() -> None:
    follow = asked(run(1, 1))
    assert sequences(follow.live(run(2, 3), 1)) == [2, 3, 4]
    assert follow.live(run(2, 3), 1) == []
    assert sequences(follow.live(run(4, 4), 1)) == [5, 6, 7]
    assert follow.request() is None


def test_of_some_kinds_only_those_are_told_and_nothing_is_taken_for_a_hole() -> None:
    follow = Follow(JOB, 0, kinds=("JOB_SCHEDULED",))
    assert follow.request() == ReplayJobEvents(job_id=JOB, kinds=("JOB_SCHEDULED", "JOB_FINISHED"), zstd=True)
    left_out = msgspec.structs.replace(run(1, 5), events=b"")
    assert follow.replayed(page(left_out, run(6, 1), following=7, last=6), 0) == []
    assert follow.request() is None, "all that there is was accounted for"
    assert follow.live(run(7, 2), 1) == []
    assert follow.live(run(10, 3, last=True), 2) == []
    assert follow.request() is not None, "9 is a hole, whatever kind it is of"
    (*told,) = follow.replayed(page(run(9, 1), following=10, last=9), 3)
    assert [event.kind for event in told] == ["JOB_SCHEDULED", "JOB_SCHEDULED"]
    assert follow.finished


def test_a_hole_is_asked_for_and_what_lies_behind_it_is_kept() -> None:
    follow = asked(run(1, 1))
    assert follow.live(run(4, 2), 1) == []
    assert follow.live(run(6, 1), 1) == []
    assert follow.request().from_sequence == 2
    assert sequences(follow.replayed(page(run(2, 2), following=4, last=3), 2)) == [2, 3, 4, 5, 6]
    assert follow.request() is None


def test_a_run_that_is_only_named_is_asked_for_at_once_after_a_pause_and_once() -> None:
    follow = asked(run(1, 1))
    assert follow.live(named(run(2, 3)), PAUSE_MS) == []
    assert follow.request().from_sequence == 2
    assert follow.live(named(run(5, 1)), PAUSE_MS) == []
    page_of_both = page(run(2, 3), run(5, 1), following=6, last=5)
    assert sequences(follow.replayed(page_of_both, PAUSE_MS)) == [2, 3, 4, 5]
    assert follow.request() is None, "the page has brought it all"
    assert follow.live(named(run(4, 2)), 9 * PAUSE_MS) == []
    assert follow.request() is None, "what is known already"


def test_runs_that_are_only_named_are_asked_for_together_while_they_come_fast() -> None:
    follow = asked(run(1, 1))
    for first in range(2, 2 + PAUSE_MS):
        assert follow.live(named(run(first, 1)), first - 2) == []
        assert follow.request() is None
        assert follow.deadline_ms() == PAUSE_MS
    follow.tick(PAUSE_MS)
    assert follow.request().from_sequence == 2
    follow.live(named(run(2 + PAUSE_MS, 1)), PAUSE_MS)
    assert len(follow.replayed(page(run(2, PAUSE_MS), following=2 + PAUSE_MS, last=1 + PAUSE_MS), PAUSE_MS)) == PAUSE_MS
    assert (follow.request(), follow.deadline_ms()) == (None, 2 * PAUSE_MS), "it was stored after the page was made"
    follow.tick(2 * PAUSE_MS)
    assert follow.request().from_sequence == 2 + PAUSE_MS


def test_a_page_that_does_not_reach_the_end_of_the_log_is_followed_by_the_next_at_once() -> None:
    follow = asked(run(1, 1))
    follow.live(named(run(2, 9)), PAUSE_MS)
    follow.request()
    follow.replayed(page(run(2, 3), following=5, last=10), PAUSE_MS)
    assert follow.request().from_sequence == 5


def test_no_more_is_kept_than_the_bound() -> None:
    follow = Follow(JOB, 0)
    for first in range(2, KEPT_SEGMENTS_MAX + 12):
        assert follow.live(run(first, 1), 0) == []
    assert sequences(follow.live(run(1, 1), 0)) == list(range(1, KEPT_SEGMENTS_MAX + 2))
    assert follow.request() is not None, "what was not kept is asked for"


@pytest.mark.parametrize("kept", [[], [run(5, 1)]])
def test_the_next_page_is_asked_for_at_once_unless_the_last_brought_nothing(kept: list[EventSegment]) -> None:
    assert asked(run(1, 2), last=9).request().from_sequence == 3
    follow = Follow(JOB, 0)
    for ahead in kept:
        follow.live(ahead, 0)
    for _ in range(3):
        assert follow.request() is not None
        assert follow.replayed(page(following=1, last=9), 100) == []
        assert follow.request() is None
        deadline_ms = follow.deadline_ms()
        assert deadline_ms >= 100 + SILENCE_FIRST_MS
        follow.tick(deadline_ms)


def test_a_page_with_a_hole_tells_nothing_behind_it_and_once_subscribed_it_asks_for_what_passed_before() -> None:
    follow = Follow(JOB, 0)
    follow.request()
    assert follow.replayed(page(run(3, 2), following=5, last=4), 0) == []
    assert (follow.next_sequence, follow.finished) == (1, False)
    follow.want_replay()
    assert follow.request() is not None
    follow.want_replay()
    assert follow.request() is None, "one is on its way"
    follow.replayed(page(run(1, 1), following=2, last=1), 0)
    assert follow.request() is not None


def test_silence_asks_again_ever_more_rarely_and_an_event_resets_it() -> None:
    follow = Follow(JOB, 0)
    follow.request()
    assert follow.deadline_ms() is None, "nothing is due while a replay is on its way"
    follow.replayed(page(run(1, 1), following=2, last=1), 0)
    silences: list[int] = []
    now_ms = 0
    for _ in range(6):
        deadline_ms = follow.deadline_ms()
        follow.tick(deadline_ms - 1)
        assert follow.request() is None
        follow.tick(deadline_ms)
        assert follow.request() is not None
        silences.append(deadline_ms - now_ms)
        now_ms = deadline_ms
        follow.replayed(page(following=2, last=1), now_ms)
    assert silences == [1_000, 2_000, 4_000, 8_000, SILENCE_LAST_MS, SILENCE_LAST_MS]
    follow.live(run(2, 1), now_ms)
    assert follow.deadline_ms() == now_ms + SILENCE_FIRST_MS


def test_it_ends_at_the_last_event_and_takes_nothing_after_it() -> None:
    follow = Follow(JOB, 0)
    follow.request()
    follow.live(run(3, 1), 0)
    assert sequences(follow.live(run(1, 2, last=True), 0)) == [1, 2]
    assert follow.finished
    assert follow.live(run(3, 1), 0) == []
    behind = page(run(1, 2, last=True), run(3, 1), following=4, last=3)
    assert follow.replayed(behind, 0) == []
    follow.tick(10**9)
    assert follow.request() is None
    assert follow.deadline_ms() is None
    other = Follow(JOB, 0)
    other.request()
    assert sequences(other.replayed(behind, 0)) == [1, 2]


def test_an_instant_that_has_not_come_yet_waits_for_it_and_for_the_page_on_its_way() -> None:
    follow = Follow(JOB, 0, from_timestamp_ms=50)
    follow.request()
    assert follow.replayed(page(following=11, last=10), 0) == []
    assert follow.live(run(11, 1, stamps=[40]), 0) == []
    assert follow.request() == ReplayJobEvents(job_id=JOB, from_sequence=11, from_timestamp_ms=50, zstd=True)
    assert follow.replayed(page(following=12, last=11), 0) == []
    assert follow.request() is None
    assert follow.live(run(12, 2, stamps=[45, 55]), 0) == []
    assert follow.live(run(14, 1, stamps=[56]), 0) == []
    assert follow.request() is not None
    assert sequences(follow.replayed(page(run(12, 2, stamps=[45, 55]), following=14, last=13), 0)) == [13, 14]
    follow = Follow(JOB, 0, from_timestamp_ms=50)
    follow.request()
    follow.live(run(11, 1, stamps=[60]), 0)
    assert follow.replayed(page(following=11, last=10), 0) == []
    assert follow.request() is not None


def test_a_run_that_lies_about_its_length_is_refused_and_one_without_events_where_all_were_asked_for() -> None:
    with pytest.raises(BadRequest):
        Follow(JOB, 0).live(EventSegment(first_sequence=1, count=3, attempt=1, events=run(1, 2).events), 0)
    with pytest.raises(CorruptLog, match="airunner store check"):
        asked(msgspec.structs.replace(run(1, 5), events=b""))


@st.composite
def logs(draw: st.DrawFn) -> Log:
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    runs: list[EventSegment] = []
    first = 1
    for at, count in enumerate(counts):
        stamps = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
        runs.append(run(first, count, stamps=stamps, last=at == len(counts) - 1))
        first += count
    return Log(runs, page_runs=draw(st.integers(1, 4)))


@settings(max_examples=300)
@given(
    log=logs(),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    from_sequence=st.integers(1, 40),
    from_timestamp_ms=st.none() | st.integers(0, 60),
)
def test_every_event_is_told_once_in_order_and_to_the_end(
    log: Log, seed: int, loss: float, from_sequence: int, from_timestamp_ms: int | None
) -> None:
    random = Random(seed)
    follow = Follow(JOB, 0, from_sequence=from_sequence, from_timestamp_ms=from_timestamp_ms)
    told: list[int] = []
    flying: list[EventSegment] = []
    answer: JobEventsReplayed | None = None
    now_ms = stored = steps = 0
    while not follow.finished:
        steps += 1
        assert steps < SETTLING_STEPS_MAX, "it would never end"
        if answer is None and (request := follow.request()) is not None:
            answer = log.page(request, stored=stored)
        what = random.choice(["store", "live", "page", "subscribed", "wait"])
        if what == "store" and stored < len(log.runs):
            if random.random() >= loss:
                sent = random.choice([log.runs[stored], named(log.runs[stored])])
                flying += [sent] * random.choice([1, 1, 2])
            stored += 1
        elif what == "live" and flying:
            told += sequences(follow.live(flying.pop(random.randrange(len(flying))), now_ms))
        elif what == "page" and answer is not None:
            arrived, answer = answer, None
            told += sequences(follow.replayed(arrived, now_ms))
        elif what == "subscribed" and random.random() < 0.2:
            follow.want_replay()
        elif (deadline_ms := follow.deadline_ms()) is not None:
            now_ms = max(now_ms, deadline_ms)
            follow.tick(now_ms)
    start = from_sequence
    if from_timestamp_ms is not None:
        late = (s for s in range(start, log.last + 1) if log.stamps[s] >= from_timestamp_ms)
        start = next(late, log.last + 1)
    assert told == list(range(start, log.last + 1))
