"""When a failed command is run again, and after which pause."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airunner.protocol.job import Reason, Result
from airunner.protocol.jobretry import (
    BACKOFF_MAX_MS_DEFAULT,
    BACKOFF_MS_DEFAULT,
    BACKOFF_MS_LIMIT,
    RETRIES_MAX,
    RetryOn,
    RetryPolicy,
)

BACKOFF_MS = st.integers(0, BACKOFF_MS_LIMIT)
JITTER = st.floats(0, 1, exclude_max=True)


@given(BACKOFF_MS, BACKOFF_MS, st.integers(1, RETRIES_MAX), JITTER)
def test_a_pause_is_between_half_of_its_bound_and_all_of_it(
    backoff_ms: int, most_ms: int, retry: int, jitter: float
) -> None:
    policy = RetryPolicy(limit=RETRIES_MAX, backoff_ms=backoff_ms, backoff_max_ms=most_ms)
    bound_ms = min(most_ms, backoff_ms * 2 ** (retry - 1))
    assert bound_ms // 2 <= policy.pause_ms(retry, jitter) <= bound_ms


@given(BACKOFF_MS, st.integers(1, RETRIES_MAX - 1), JITTER)
def test_the_next_pause_is_no_shorter_for_the_same_draw(backoff_ms: int, retry: int, jitter: float) -> None:
    policy = RetryPolicy(limit=1, backoff_ms=backoff_ms)
    assert policy.pause_ms(retry, jitter) <= policy.pause_ms(retry + 1, jitter)


def test_pauses_double_up_to_the_most() -> None:
    policy = RetryPolicy(limit=9, backoff_ms=1_000, backoff_max_ms=5_000)
    assert [policy.pause_ms(retry, 0.0) for retry in (1, 2, 3, 4, 5)] == [500, 1_000, 2_000, 2_500, 2_500]
    assert policy.pause_ms(1, 0.5) == 750


def test_without_a_backoff_there_is_no_pause() -> None:
    assert RetryPolicy(limit=1, backoff_ms=0).pause_ms(1, 0.999) == 0


def test_the_first_retry_is_number_one() -> None:
    with pytest.raises(AssertionError):
        RetryPolicy(limit=1).pause_ms(0, 0.5)


def test_without_named_ends_every_failure_is_covered() -> None:
    policy = RetryPolicy(limit=1)
    assert policy.covers(1, None, by_itself=True)
    assert policy.covers(None, None, by_itself=False)


@pytest.mark.parametrize(
    ("exit_code", "signal", "by_itself", "covered"),
    [
        (75, None, True, True),
        (74, None, True, False),
        (None, 9, True, True),
        (None, 15, True, False),
        (75, None, False, False),
        (None, 9, False, False),
        (9, None, True, False),
        (None, None, True, False),
    ],
)
def test_only_named_ends_are_covered_and_only_if_nobody_ended_the_command(
    exit_code: int | None, signal: int | None, *, by_itself: bool, covered: bool
) -> None:
    policy = RetryPolicy(limit=1, on=RetryOn(exit_codes=(75,), signals=(9,)))
    assert policy.covers(exit_code, signal, by_itself=by_itself) is covered


def test_naming_no_end_covers_none() -> None:
    assert not RetryPolicy(limit=1, on=RetryOn()).covers(1, None, by_itself=True)


def test_it_says_on_the_wire_only_what_is_not_as_usual() -> None:
    policy = RetryPolicy(limit=3, backoff_ms=BACKOFF_MS_DEFAULT, backoff_max_ms=BACKOFF_MAX_MS_DEFAULT)
    assert msgspec.to_builtins(policy) == {"limit": 3}
    full = RetryPolicy(limit=1, backoff_ms=5, on=RetryOn(exit_codes=(1,)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(full), type=RetryPolicy) == full


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"limit": 0},
        {"limit": RETRIES_MAX + 1},
        {"limit": 1, "backoff_ms": -1},
        {"limit": 1, "backoff_max_ms": BACKOFF_MS_LIMIT + 1},
        {"limit": 1, "on": {"exit_codes": [0]}},
        {"limit": 1, "on": {"exit_codes": [256]}},
        {"limit": 1, "on": {"signals": [65]}},
        {"limit": 1, "on": {"exit_codes": [1] * 257}},
    ],
)
def test_what_is_out_of_bounds_is_no_policy(wrong: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, RetryPolicy)


def test_a_success_is_no_failure_to_cover() -> None:
    """Who asks a policy has a failed result in hand: a completed or cancelled one is never brought to it."""
    states = {Result(exit_code=0).state, Result(reason=Reason.CANCELLED).state}
    assert "FAILED" not in states
