"""What a request's size promises: soon small on a slow link, soon large on a fast one, and never out of its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.requestsize import (
    QUICK_MS,
    REQUEST_BYTES_FIRST,
    REQUEST_BYTES_MAX,
    REQUEST_BYTES_MIN,
    SLOW_MS,
    RequestSize,
)


def test_it_doubles_up_to_a_megabyte_while_answers_come_soon():
    size = RequestSize()
    sizes: list[int] = []
    while size.bytes_max < REQUEST_BYTES_MAX:
        sizes.append(size.bytes_max)
        size.answered(size.bytes_max, QUICK_MS)
    assert sizes == [REQUEST_BYTES_FIRST << step for step in range(5)]
    size.answered(REQUEST_BYTES_MAX, 1)
    assert size.bytes_max == REQUEST_BYTES_MAX


def test_what_moved_little_shows_nothing_of_what_the_link_carries():
    size = RequestSize()
    size.answered(size.bytes_max // 2 - 1, 1)
    assert size.bytes_max == REQUEST_BYTES_FIRST


def test_a_late_answer_halves_it_and_one_between_leaves_it():
    size = RequestSize()
    size.bytes_max = 8 * REQUEST_BYTES_MIN
    size.answered(size.bytes_max, SLOW_MS - 1)
    assert size.bytes_max == 8 * REQUEST_BYTES_MIN
    size.answered(1, SLOW_MS)
    assert size.bytes_max == 4 * REQUEST_BYTES_MIN


def test_a_connection_that_ends_first_leaves_a_quarter():
    size = RequestSize()
    size.bytes_max = REQUEST_BYTES_MAX
    size.broken()
    assert size.bytes_max == REQUEST_BYTES_MAX // 4


@given(st.lists(st.tuples(st.integers(0, 2**22), st.integers(0, 10_000)) | st.none()))
def test_it_stays_within_its_bounds(shown: list[tuple[int, int] | None]):
    size = RequestSize()
    for one in shown:
        if one is None:
            size.broken()
        else:
            size.answered(*one)
        assert REQUEST_BYTES_MIN <= size.bytes_max <= REQUEST_BYTES_MAX


@given(st.integers(8_192, 10**8), st.floats(0, 1_000))
def test_on_any_link_it_comes_to_rest_where_an_answer_takes_seconds_at_the_most(bytes_a_s: int, latency_ms: float):
    size = RequestSize()
    for _ in range(12):
        took_ms = int(latency_ms + 1_000 * size.bytes_max / bytes_a_s)
        size.answered(size.bytes_max, took_ms)
    assert latency_ms + 1_000 * size.bytes_max / bytes_a_s < SLOW_MS + latency_ms + 1
