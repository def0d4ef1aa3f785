"""Retry policies as people write them: `3`, and which ends to retry on, such as `75` or `SIGKILL`."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from airunner.protocol.errors import OperatorError
from airunner.protocol.jobretry import BACKOFF_MAX_MS_DEFAULT, BACKOFF_MS_DEFAULT, RetryOn, RetryPolicy

EXIT_CODE_MAX = 255


def retry_policy(
    limit: int, on: Iterable[str] = (), backoff_s: float | None = None, backoff_max_s: float | None = None
) -> RetryPolicy:
    """The policy of these words; `on` names exit codes and signals.

    Raises `OperatorError` for a word that is neither.
    """
    words = [word for words in on for word in words.replace(",", " ").split()]
    codes = [int(word) for word in words if word.isdecimal()]
    signals = [_signal(word) for word in words if not word.isdecimal()]
    if wrong := [code for code in codes if not 1 <= code <= EXIT_CODE_MAX]:
        raise OperatorError(f"{wrong[0]} is no exit code of a failure; they go from 1 to {EXIT_CODE_MAX}")
    backoff_ms = BACKOFF_MS_DEFAULT if backoff_s is None else int(backoff_s * 1_000)
    return RetryPolicy(
        limit=limit,
        backoff_ms=backoff_ms,
        backoff_max_ms=max(BACKOFF_MAX_MS_DEFAULT, backoff_ms) if backoff_max_s is None else int(backoff_max_s * 1_000),
        on=RetryOn(exit_codes=tuple(codes), signals=tuple(signals)) if words else None,
    )


def policy_text(policy: RetryPolicy) -> str:
    """The policy in words."""
    text = f"up to {policy.limit} times, first after {policy.backoff_ms / 1_000:g} s"
    if policy.on is None:
        return text
    ends = [f"exit code {code}" for code in policy.on.exit_codes] + [f"signal {one}" for one in policy.on.signals]
    return f"{text}, on {', '.join(ends)}"


def _signal(word: str) -> int:
    name = word.upper().removeprefix("SIG")
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError as error:
        raise OperatorError(f"{word!r} is neither an exit code nor a signal such as SIGKILL") from error
