"""What a request's size promises: soon small on a slow link, soon large on a fast one, and never out of its bounds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airunner.protocol.blobs import REQUEST_BYTES_MAX as BLOBS_BYTES_MAX
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


def test_only_a_link_that_carries_the_largest_requests_carries_two_large_pieces_in_one():
    size = RequestSize()
    assert size.blobs_bytes_max == size.bytes_max
    size.bytes_max = REQUEST_BYTES_MAX
    assert size.blobs_bytes_max == BLOBS_BYTES_MAX > REQUEST_BYTES_MAX
    size.answered(BLOBS_BYTES_MAX, SLOW_MS)
    assert size.blobs_bytes_max == REQUEST_BYTES_MAX // 2


@pytest.mark.parametrize(
    ("moved", "took_ms", "size"),
    [
        (8 * REQUEST_BYTES_MIN, SLOW_MS - 1, 8 * REQUEST_BYTES_MIN),
        (1, SLOW_MS, 4 * REQUEST_BYTES_MIN),
        (4 * REQUEST_BYTES_MIN - 1, 1, 8 * REQUEST_BYTES_MIN),  # what moved little shows nothing
        (None, 0, 2 * REQUEST_BYTES_MIN),
    ],
    ids=["between", "late", "quick and little", "a connection that ends first"],
)
def test_it_follows_what_is_shown_of_the_link(moved: int | None, took_ms: int, size: int):
    here = RequestSize()
    here.bytes_max = 8 * REQUEST_BYTES_MIN
    if moved is None:
        here.broken()
    else:
        here.answered(moved, took_ms)
    assert here.bytes_max == size


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
@example(131_007, 0.0)
def test_on_any_link_it_comes_to_rest_where_an_answer_takes_seconds_at_the_most(bytes_a_s: int, latency_ms: float):
    size = RequestSize()
    for _ in range(12):
        took_ms = int(latency_ms + 1_000 * size.bytes_max / bytes_a_s)
        size.answered(size.bytes_max, took_ms)
    # The millisecond that a reply time was rounded down by counts twice after the size has doubled.
    assert 1_000 * size.bytes_max / bytes_a_s < SLOW_MS + 2


def test_what_was_not_waited_for_any_longer_was_too_large_if_it_was_waited_for_long():
    size = RequestSize()
    size.cut_off(QUICK_MS - 1)
    assert size.bytes_max == REQUEST_BYTES_FIRST, "that shows nothing"
    size.cut_off(QUICK_MS)
    assert size.bytes_max == REQUEST_BYTES_MIN
