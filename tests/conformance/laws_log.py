"""The laws of the event log and of looking at jobs that every Store keeps."""

from __future__ import annotations

from typing import Any

import msgspec

from airunner.broker.lifecycle.commands import LogFound, WatchKeyFound
from airunner.broker.lifecycle.searching import search
from airunner.protocol.compression import BATCH_BYTES_MAX, compressed, decompressed, is_compressed
from airunner.protocol.events import BATCH_EVENTS_MAX, EventSegment, Output, events_of
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from airunner.protocol.replies import (
    JobCompleted,
    JobEventsPublished,
    JobEventsReplayed,
    Refused,
)
from airunner.protocol.requests import (
    CONTENT_BYTES_MAX,
    KINDS_MAX,
    REPLAY_BYTES_MAX,
    REPLAY_SEGMENTS_MAX,
    PublishJobEvents,
    ReplayJobEvents,
    SearchLog,
    WatchJob,
)
from tests.conformance.driving import START_MS, Driver, batch, completion, packed

PIECES = tuple("".join(f"{number * n:x} " for number in range(2_000)) for n in (7, 77, 777))


def _console(driver: Driver, job_id: str) -> str:
    events = driver.log(job_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1)), "dense from 1 on"
    return b"".join(event.body.data for event in events if isinstance(event.body, Output)).decode()


def events_are_stored_as_they_were_sent(driver: Driver) -> None:
    lease = driver.started()
    sent = batch(lease, 0, "a", "b")
    outcome = driver.outcome(PublishJobEvents(batches=(sent,)))
    (appended,) = outcome.news.appended
    assert (appended.segment.first_sequence, appended.segment.count, appended.segment.attempt) == (3, 2, 1)
    assert appended.segment.events == sent.events
    assert appended.watch_key == driver.reply(WatchKeyFound, WatchJob(job_id=lease.job_id)).watch_key
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, from_sequence=3))
    assert page.runs == (appended.segment,)
    watching = ReplayJobEvents(job_id=lease.job_id, from_sequence=3, watch=True)
    assert driver.reply(WatchKeyFound, watching) == WatchKeyFound(appended.watch_key, page)


def what_is_stored_is_published_once_though_it_is_repeated(driver: Driver) -> None:
    lease = driver.started()
    assert driver.publish(batch(lease, 0, "a", "b")) == [(2, None)]
    assert driver.outcome(PublishJobEvents(batches=(batch(lease, 0, "a", "b"),))).news.appended == []
    assert driver.publish(batch(lease, 0, "a", "b"), batch(lease, 1, "b", "c"), batch(lease, 5, "z")) == [
        (2, None),
        (3, None),
        (3, "index-gap"),
    ]
    assert _console(driver, lease.job_id) == "abc"


def what_is_no_batch_of_an_agents_is_refused(driver: Driver) -> None:
    lease = driver.started()
    good = batch(lease, 0, "a")
    wrong = [
        msgspec.structs.replace(good, count=2),
        msgspec.structs.replace(good, events=b"\xc1"),
        msgspec.structs.replace(good, events=b"\x91\x82\xa4kind\xabJOB_EXPIRED\xactimestamp_ms\x01"),
    ]
    codes = [code for _, code in driver.publish(*wrong)]
    assert codes == ["bad-request"] * 3
    assert driver.publish(good) == [(1, None)]


def compressed_events_are_stored_and_replayed_as_they_were_sent(driver: Driver) -> None:
    lease = driver.started()
    assert lease.zstd, "this broker accepts them"
    sent = packed(batch(lease, 0, *PIECES))
    outcome = driver.outcome(PublishJobEvents(batches=(sent, packed(batch(lease, 0, *PIECES, "more")))))
    assert [appended.segment.events == sent.events for appended in outcome.news.appended] == [True, False]
    opened = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, from_sequence=3))
    assert [len(run.events) > 10_000 for run in opened.runs] == [True, False], "for readers who do not decompress"
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, from_sequence=3, zstd=True))
    assert page.runs[0].events == sent.events
    assert [msgspec.structs.replace(run, events=decompressed(run.events)) for run in page.runs] == list(opened.runs)
    late = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, from_sequence=5, zstd=True))
    assert [event.sequence for run in late.runs for event in events_of(JobId(lease.job_id), run)] == [5, 6]
    assert _console(driver, lease.job_id) == "".join(PIECES) + "more"


def compressed_events_are_refused_unless_they_are_one_batch_of_the_stated_count(driver: Driver) -> None:
    lease = driver.started()
    good = packed(batch(lease, 0, *PIECES))
    bomb = compressed(bytes(BATCH_BYTES_MAX + 1))
    broken = (good.events[:-1], good.events + b"\x90", good.events * 2, bomb, compressed(b"\x90" + bytes(9_000)))
    wrong = [msgspec.structs.replace(good, events=events) for events in broken]
    assert driver.publish(*wrong, msgspec.structs.replace(good, count=2)) == [(0, "bad-request")] * 6
    assert driver.publish(good) == [(3, None)]
    assert driver.publish(*wrong) == [(3, None)] * 5, "a repeat is not looked at again"


def a_page_is_bounded_also_when_it_is_decompressed(driver: Driver) -> None:
    lease = driver.started()
    batches = [packed(batch(lease, 8 * index, *["x" * 60_000] * 8)) for index in range(10)]
    assert sum(len(sent.events) for sent in batches) < 20_000
    driver.publish(*batches)
    ask = ReplayJobEvents(job_id=lease.job_id, from_sequence=3, zstd=True)
    page = driver.reply(JobEventsReplayed, ask)
    assert sum(len(decompressed(run.events)) for run in page.runs) <= CONTENT_BYTES_MAX
    assert len(page.runs) == 4
    opened = driver.reply(JobEventsReplayed, msgspec.structs.replace(ask, zstd=False))
    assert sum(len(run.events) for run in opened.runs) <= REPLAY_BYTES_MAX
    assert len(opened.runs) == 2
    assert _console(driver, lease.job_id) == "x" * 80 * 60_000


def of_some_kinds_compressed_events_without_them_are_left_out(driver: Driver) -> None:
    lease = driver.started()
    batches = [packed(batch(lease, 3 * index, *PIECES)) for index in range(5)]
    assert not any(b"OUTPUT" in sent.events for sent in batches)
    driver.publish(*batches)
    for zstd in (False, True):
        ask = ReplayJobEvents(job_id=lease.job_id, from_sequence=3, kinds=("HEARTBEAT",), zstd=zstd)
        assert [(run.count, run.events) for run in driver.reply(JobEventsReplayed, ask).runs] == [(15, b"")]
        ask = msgspec.structs.replace(ask, kinds=("OUTPUT",))
        runs = driver.reply(JobEventsReplayed, ask).runs
        assert [(run.count, is_compressed(run.events)) for run in runs] == [(3, zstd)] * 5


def last_events_and_completions_travel_together(driver: Driver) -> None:
    whole, torn, silent, late = (driver.started() for _ in range(4))
    driver.complete(late)
    request = PublishJobEvents(
        batches=(batch(whole, 0, "a", "b"), batch(torn, 1, "lost its first")),
        completions=(completion(torn, 2), completion(whole, 2), completion(silent), completion(late, 1)),
    )
    outcome = driver.outcome(request)
    assert isinstance(outcome.reply, JobEventsPublished)
    assert [(one.next_index, one.code) for one in outcome.reply.batches] == [(2, None), (0, "index-gap")]
    refused, *completed, repeated = outcome.reply.completions
    assert isinstance(refused, Refused)
    assert (refused.code, refused.expected_index) == ("incomplete-log", 0)
    assert completed == [JobCompleted(state=JobState.COMPLETED)] * 2
    assert repeated == JobCompleted(state=JobState.COMPLETED), "as it was answered before"
    assert [one.segment.first_sequence for one in outcome.news.appended] == [3, 5, 3]
    assert driver.kinds(whole.job_id)[2:] == ["OUTPUT", "OUTPUT", "JOB_FINISHED"]
    again = driver.outcome(request)
    assert isinstance(again.reply, JobEventsPublished)
    assert again.reply.completions[1:] == outcome.reply.completions[1:]
    assert again.news.appended == []
    assert driver.state(torn.job_id) is JobState.RUNNING


def a_replay_starts_at_exactly_the_sequence_asked_for(driver: Driver) -> None:
    lease = driver.started()
    driver.publish(batch(lease, 0, "a", "b", "c"), batch(lease, 3, "d"))
    whole = driver.log(lease.job_id)
    for sequence in range(1, len(whole) + 2):
        assert driver.log(lease.job_id, from_sequence=sequence) == whole[sequence - 1 :]
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, from_sequence=99))
    assert (page.runs, page.next_sequence, page.last_sequence, page.finished) == ((), 99, 6, False)
    driver.reply(JobCompleted, completion(lease, 4))
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id))
    assert (page.next_sequence, page.last_sequence, page.finished) == (8, 7, True)
    driver.refused("not-found", ReplayJobEvents(job_id="absent"))
    driver.refused("not-found", ReplayJobEvents(job_id=lease.job_id), tenant="other")


def a_replay_starts_at_the_first_event_that_is_new_enough(driver: Driver) -> None:
    lease = driver.started()
    early, late = START_MS + 10, START_MS + 30
    driver.publish(batch(lease, 0, "a", timestamp_ms=early), batch(lease, 1, "b", "c", timestamp_ms=late))
    for instant_ms, sequence, first in ((0, 1, 1), (early, 1, 3), (early + 1, 1, 4), (late, 5, 5), (late + 1, 1, 6)):
        request = ReplayJobEvents(job_id=lease.job_id, from_sequence=sequence, from_timestamp_ms=instant_ms)
        page = driver.reply(JobEventsReplayed, request)
        assert (page.runs[0].first_sequence if page.runs else page.next_sequence) == first
    request = ReplayJobEvents(job_id=lease.job_id, from_sequence=9, from_timestamp_ms=late + 1)
    assert driver.reply(JobEventsReplayed, request).next_sequence == 9


def a_clock_that_went_back_hides_no_event(driver: Driver) -> None:
    lease = driver.started()
    driver.publish(batch(lease, 0, "late", timestamp_ms=START_MS + 50), batch(lease, 1, "early", timestamp_ms=5))
    request = ReplayJobEvents(job_id=lease.job_id, from_timestamp_ms=START_MS + 50)
    page = driver.reply(JobEventsReplayed, request)
    assert [event.sequence for run in page.runs for event in events_of(lease.job_id, run)] == [3, 4]


def a_page_of_a_long_log_is_bounded(driver: Driver) -> None:
    lease = driver.started()
    piece = "x" * (REPLAY_BYTES_MAX // 5)
    for index in range(0, 15, 3):
        driver.publish(*(batch(lease, index + offset, piece[:60_000]) for offset in range(3)))
    driver.publish(*(batch(lease, 15 + 2 * n, piece[:60_000], piece[:60_000]) for n in range(6)))
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id))
    assert sum(len(run.events) for run in page.runs) <= REPLAY_BYTES_MAX
    assert page.next_sequence <= page.last_sequence
    assert len(_console(driver, lease.job_id)) == 27 * 60_000


def a_page_is_as_small_as_it_is_asked_for(driver: Driver) -> None:
    lease = driver.started()
    driver.publish(*(batch(lease, index, "x" * 1_000) for index in range(9)))
    sizes: list[int] = []
    place = 1
    while place <= 2 + 9:
        request = ReplayJobEvents(job_id=lease.job_id, from_sequence=place, bytes_max=2_500)
        page = driver.reply(JobEventsReplayed, request)
        sizes.append(sum(len(run.events) for run in page.runs))
        place = page.next_sequence
    assert len(sizes) >= 5
    assert max(sizes) <= 2_500
    (first,) = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, bytes_max=1)).runs
    assert first.first_sequence == 1


def of_some_kinds_what_holds_none_comes_without_its_events(driver: Driver) -> None:
    lease = driver.started()
    driver.publish(*(batch(lease, index, "x" * 60_000) for index in range(30)))
    ask = ReplayJobEvents(job_id=lease.job_id, kinds=("JOB_LEASED", "JOB_FINISHED"), bytes_max=1_000)
    runs: list[EventSegment] = []
    pages = 0
    while not runs or runs[-1].next_sequence <= 32:
        place = runs[-1].next_sequence if runs else 1
        runs += driver.reply(JobEventsReplayed, msgspec.structs.replace(ask, from_sequence=place)).runs
        pages += 1
    assert [run.first_sequence for run in runs[1:]] == [run.next_sequence for run in runs[:-1]], "without a hole"
    assert [event.kind for run in runs if run.events for event in events_of(JobId(lease.job_id), run)] == ["JOB_LEASED"]
    assert sum(run.count for run in runs) == 32
    assert pages <= 3, "what is left out does not count as sent, and what is looked through is bounded"
    assert len(runs) <= 2 + pages, "what is left out is joined"


def who_wants_many_kinds_is_sent_all(driver: Driver) -> None:
    lease = driver.started()
    driver.publish(*(batch(lease, index, "x") for index in range(3)))
    ask = ReplayJobEvents(job_id=lease.job_id, kinds=tuple(f"KIND_{number}" for number in range(KINDS_MAX)))
    page = driver.reply(JobEventsReplayed, ask)
    assert page == driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id))


def a_page_holds_so_many_small_runs_and_looks_through_so_many_that_are_left_out(driver: Driver) -> None:
    lease = driver.started()
    total = REPLAY_SEGMENTS_MAX + 10
    for first in range(0, total, 47):
        driver.publish(*(batch(lease, index, "x") for index in range(first, min(first + 47, total))))
    assert total < 2 * BATCH_EVENTS_MAX
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id))
    assert len(page.runs) == REPLAY_SEGMENTS_MAX
    assert _console(driver, lease.job_id) == "x" * total
    page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=lease.job_id, from_sequence=3, kinds=("HEARTBEAT",)))
    (left_out,) = page.runs
    assert REPLAY_SEGMENTS_MAX <= left_out.count <= REPLAY_SEGMENTS_MAX + 1
    assert page.next_sequence == left_out.next_sequence < page.last_sequence


def a_log_is_searched_from_any_place_page_by_page(driver: Driver) -> None:
    lease = driver.started()
    pieces = [f"{number}\n{number} od" if number % 2 else f"d\nx{number}\n" for number in range(1, 31)]
    for index, piece in enumerate(pieces):
        sent = batch(lease, index, piece)
        driver.publish(packed(sent) if index % 3 else sent)
    lines = "".join(pieces).splitlines()

    def found(**fields: Any) -> list[tuple[int, str]]:
        hits: list[tuple[int, str]] = []
        request: SearchLog | None = SearchLog(job_id=lease.job_id, **fields)
        while request is not None:
            page, _ = search(driver.reply(LogFound, request))
            hits += [(hit.line, hit.text) for hit in page.hits]
            request = page.place and msgspec.structs.replace(request, place=page.place)
        assert page.lines == len(lines)
        return hits

    numbered = list(enumerate(lines, start=1))
    assert found(limit=7) == numbered
    assert found(limit=2, pattern="odd") == [(number, line) for number, line in numbered if "odd" in line]
    assert found(limit=3, from_line=11, pattern="^X.*$", regex=True, ignore_case=True) == [
        (number, line) for number, line in numbered[10:] if line.startswith("x")
    ]
    driver.refused("not-found", SearchLog(job_id=lease.job_id), tenant="other")
