"""When a failed command is run again, and after which pause."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_pauses_double_up_to_the_most() -> None:
    policy = RetryPolicy(limit=9, backoff_ms=1_000, backoff_max_ms=5_000)
    assert [policy.pause_ms(retry, 0.0) for retry in (1, 2, 3, 4, 5)] == [500, 1_000, 2_000, 2_500, 2_500]
    assert policy.pause_ms(1, 0.5) == 750
    with pytest.raises(AssertionError):
        policy.pause_ms(0, 0.5)


NAMED = RetryOn(exit_codes=(75,), signals=(9,))


@pytest.mark.parametrize(
    ("on", "exit_code", "signal", "by_itself", "covered"),
    [
        (None, 1, None, True, True),
        (None, None, None, False, True),
        (RetryOn(), 1, None, True, False),
        (NAMED, 75, None, True, True),
        (NAMED, 74, None, True, False),
        (NAMED, None, 9, True, True),
        (NAMED, None, 15, True, False),
        (NAMED, 75, None, False, False),
        (NAMED, None, 9, False, False),
        (NAMED, 9, None, True, False),
        (NAMED, None, None, True, False),
    ],
)
def test_every_failure_is_covered_or_those_that_are_named_if_nobody_ended_the_command(
    on: RetryOn | None, exit_code: int | None, signal: int | None, *, by_itself: bool, covered: bool
) -> None:
    assert RetryPolicy(limit=1, on=on).covers(exit_code, signal, by_itself=by_itself) is covered


def test_it_says_on_the_wire_only_what_is_not_as_usual() -> None:
    policy = RetryPolicy(limit=3, backoff_ms=BACKOFF_MS_DEFAULT, backoff_max_ms=BACKOFF_MAX_MS_DEFAULT)
    assert msgspec.to_builtins(policy) == {"limit": 3}


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
