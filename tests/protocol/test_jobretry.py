"""When a failed command is run again, and after which pause."""

from __future__ import annotations

from collections.abc import Sequence

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


def test_pauses_double_up_to_the_most() -> None:
    policy = RetryPolicy(limit=9, backoff_ms=1_000, backoff_max_ms=5_000)
    assert [policy.pause_ms(retry, 0.0) for retry in (1, 2, 3, 4, 5)] == [500, 1_000, 2_000, 2_500, 2_500]
    assert policy.pause_ms(1, 0.5) == 750
    with pytest.raises(AssertionError):
        policy.pause_ms(0, 0.5)


def _policy(*on: str | int) -> RetryPolicy:
    codes = tuple(end for end in on if isinstance(end, int))
    return RetryPolicy(
        limit=1, on=RetryOn(exit_codes=codes, signals=(9,) if "SIGKILL" in on else (), reasons=_names(on))
    )


def _names(on: tuple[str | int, ...]) -> tuple[str, ...]:
    return tuple(end for end in on if isinstance(end, str) and end.islower())


def _failed(reason: Reason, exit_code: int | None = None, signal: int | None = None) -> Result:
    return Result(exit_code=exit_code, signal=signal, reason=reason)


EXITED = [_failed(Reason.EXIT_CODE, code) for code in (1, 75, 124, 137)]
KILLED, OOM, OOM_OF_A_CHILD = (
    _failed(Reason.SIGNAL, None, 9),
    _failed(Reason.OUT_OF_MEMORY, None, 9),
    _failed(Reason.OUT_OF_MEMORY, 2),
)
LATE = [_failed(Reason.TIMEOUT, None, 9), _failed(Reason.TIMEOUT, 75), _failed(Reason.TIMEOUT, 0)]
NOT_FOUND, CHECKOUT, LOST = (
    _failed(Reason.COMMAND_NOT_FOUND, 127),
    _failed(Reason.CHECKOUT_FAILED),
    _failed(Reason.AGENT_LOST),
)
HOOK = _failed(Reason.HOOK_FAILED, 75)
ALL = (*EXITED, KILLED, OOM, OOM_OF_A_CHILD, *LATE, NOT_FOUND, CHECKOUT, HOOK, LOST)


@pytest.mark.parametrize(
    ("policy", "covered"),
    [
        (RetryPolicy(limit=1), ALL[:-1]),
        (RetryPolicy(limit=1, on=RetryOn()), ()),
        (_policy(75), (EXITED[1], HOOK)),
        (_policy(1), (EXITED[0],)),
        (_policy(137), (EXITED[3], KILLED, OOM)),
        (_policy("SIGKILL"), (EXITED[3], KILLED, OOM)),
        (_policy(124), (EXITED[2], *LATE)),
        (_policy(127), (NOT_FOUND,)),
        (_policy(2), (OOM_OF_A_CHILD,)),
        (_policy("timeout"), LATE),
        (_policy("oom"), (OOM, OOM_OF_A_CHILD)),
        (_policy("signal"), (KILLED, OOM)),
        (_policy("exit-code"), EXITED),
        (_policy("checkout-failed", 75), (EXITED[1], CHECKOUT, HOOK)),
        (_policy("agent-lost"), (LOST,)),
    ],
)
def test_a_failure_is_retried_by_its_number_as_in_shells_and_by_its_reason(
    policy: RetryPolicy, covered: Sequence[Result]
) -> None:
    assert [result for result in ALL if policy.covers(result.end, result.failures)] == [
        result for result in ALL if result in covered
    ]


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
