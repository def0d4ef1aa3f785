"""A list is looked for in pieces of so many jobs, and the pieces together are the list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airunner.broker.lifecycle import reading, replaying
from airunner.broker.store.open import open_store
from airunner.protocol.fields import JobSpec
from airunner.protocol.follow import Follow
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobEventsReplayed, JobsListed
from airunner.protocol.requests import FILTERS_MAX, PAGE_MAX, PAGE_SIZE_MAX, ListJobs, PublishJobEvents, ReplayJobEvents
from tests.conformance.driving import START_MS, Driver, batch

JOBS = 60
REQUESTS = st.builds(
    ListJobs,
    queue=st.sampled_from([None, "a", "b"]),
    state=st.sampled_from([None, JobState.SCHEDULED, JobState.RUNNING]),
    owner=st.sampled_from([None, "o"]),
    metadata=st.sampled_from([{}, {"k": "v"}, {"k": "v", "l": "w"}]),
    page=st.integers(1, 8),
    page_size=st.integers(1, 12),
)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with closing(open_store("memory:")) as store:
        driver = Driver(store)
        for number in range(JOBS):
            metadata = {name: value for name, value, each in (("k", "v", 2), ("l", "w", 3)) if number % each == 0}
            queue = "ab"[number % 5 > 0]
            driver.enqueue(JobSpec(command="c", queue=queue, owner="o" * (number % 4 == 0), metadata=metadata))
            driver.submit("c", queue="a", tenant="other")
        driver.lease("a", slots=8)
        yield driver


def _piecewise(driver: Driver, request: ListJobs) -> tuple[list[str], int, bool]:
    """The jobs of a page, how many requests that took, and whether it may go on."""
    size = request.page_size
    found: list[str] = []
    for asked in range(1, 2 * JOBS):
        reply = driver.reply(JobsListed, request)
        found += [job.id for job in reply.jobs]
        if reply.going_on is None or len(found) == size:
            return found, asked, reply.more
        place = reply.going_on
        request = msgspec.structs.replace(
            request, before=place.before, skip=place.skip, page=1, page_size=size - len(found)
        )
    raise AssertionError("it comes to an end")


@settings(max_examples=300)
@given(request=REQUESTS, looked=st.integers(2, JOBS + 5))
def test_the_pieces_are_the_page(driver: Driver, request: ListJobs, looked: int) -> None:
    whole = driver.reply(JobsListed, request)
    assert whole.going_on is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LOOKED_MAX", looked)
        found, asked, more = _piecewise(driver, request)
    assert found == [job.id for job in whole.jobs]
    assert more or not whole.more, "what follows is not forgotten"
    assert asked <= 1 + JOBS // (looked // max(1, len(request.metadata))) + 1


@settings(max_examples=100)
@given(request=REQUESTS, looked=st.integers(2, JOBS + 5), counted=st.integers(1, JOBS + 5))
def test_all_pages_are_counted_as_far_as_is_looked(
    driver: Driver, request: ListJobs, looked: int, counted: int
) -> None:
    every = msgspec.structs.replace(request, page=1, page_size=PAGE_SIZE_MAX)
    total = len(driver.reply(JobsListed, every).jobs)
    reply = driver.reply(JobsListed, msgspec.structs.replace(request, count=True))
    assert (reply.total, reply.beyond) == (total, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LOOKED_MAX", looked)
        patch.setattr(reading, "COUNTED_MAX", counted)
        bounded = driver.reply(JobsListed, msgspec.structs.replace(request, count=True))
    assert bounded.total <= min(total, counted)
    assert bounded.beyond or bounded.total == total, "what was not counted is not denied"
    assert driver.reply(JobsListed, request).total is None, "who does not ask does not pay"


@pytest.mark.parametrize("request_", [ListJobs(), ListJobs(queue="a", state=JobState.RUNNING), ListJobs(owner="o")])
def test_a_list_that_an_index_has_in_order_is_one_piece(
    driver: Driver, request_: ListJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LOOKED_MAX", 30)
    assert driver.reply(JobsListed, request_).going_on is None


def test_what_a_list_costs_does_not_grow_with_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor with the page, nor with what is asked for."""
    monkeypatch.setattr(reading, "LOOKED_MAX", 200)
    monkeypatch.setattr(reading, "COUNTED_MAX", 200)
    facts = {f"k{number}": "v" for number in range(FILTERS_MAX)}
    requests = (
        ListJobs(owner="o", state=JobState.RUNNING),
        ListJobs(metadata={"k0": "v", "k1": "no"}),
        ListJobs(metadata={**facts, f"k{FILTERS_MAX - 1}": "no"}),
        ListJobs(page=PAGE_MAX, page_size=PAGE_SIZE_MAX),
        ListJobs(count=True),
        ListJobs(owner="o", state=JobState.RUNNING, count=True),
        ListJobs(skip=PAGE_MAX * PAGE_SIZE_MAX, owner="o"),
    )
    with closing(open_store("memory:")) as store:
        driver = Driver(store)

        def grown(batches: int) -> list[int]:
            for _ in range(batches):
                driver.enqueue(*(JobSpec(command="c", owner="o", metadata=facts) for _ in range(50)))
            return [driver.outcome(request).cost for request in requests]

        few, many = grown(10), grown(40)
        assert all(later <= sooner + 1 for sooner, later in zip(few, many, strict=True)), (few, many)


def test_the_first_event_that_is_new_enough_is_looked_for_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """And who follows finds it, wherever it is."""
    monkeypatch.setattr(replaying, "SEGMENTS_LOOKED_MAX", 4)
    with closing(open_store("memory:")) as store:
        driver = Driver(store)
        (job_id,) = driver.submit()
        lease = driver.lease_one()
        for index in range(30):
            stamp = START_MS + (5_000 if index in (17, 23) else index)
            driver.outcome(PublishJobEvents(batches=(batch(lease, index, "x", timestamp_ms=stamp),)))

        def first(from_sequence: int, from_ms: int) -> int | None:
            follow = Follow(JobId(job_id), 0, from_sequence=from_sequence, from_timestamp_ms=from_ms)
            while (request := follow.request()) is not None:
                events = follow.replayed(driver.reply(JobEventsReplayed, request), 0)
                if events:
                    return events[0].sequence
            return None

        base = len(driver.log(job_id)) - 30 + 1  # the sequence of index 0
        assert first(1, START_MS + 4_000) == base + 17
        assert first(base + 18, START_MS + 4_000) == base + 23
        assert first(1, START_MS + 29) == base + 17
        assert first(base + 24, START_MS + 29) == base + 29
        assert first(1, START_MS + 6_000) is None
        page = driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=job_id, from_timestamp_ms=START_MS + 6_000))
        assert (page.runs, page.next_sequence) == ((), 5)
