"""Retry policy of a job: how often a failed job runs again, after which pause, and for which failures.

The caller passes in the jitter of a pause, so a broker that decides twice on the same completion computes the same
pause. Lost agents are counted apart: `JobSpec.max_attempts` of them fail the job with the reason `agent-lost`. Only a
policy that names this reason retries it; then lost agents are counted from 0 again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final

from msgspec import Meta, Struct

RETRIES_MAX: Final = 100
CODES_MAX: Final = 256
REASONS_MAX: Final = 64
AGENT_LOST: Final = "agent-lost"  # the reason that is retried only if it is named
SIGNAL_EXIT_BASE: Final = 128  # POSIX shells report death by signal n as 128 + n
BACKOFF_MS_DEFAULT: Final = 1_000
BACKOFF_MAX_MS_DEFAULT: Final = 300_000  # five minutes
BACKOFF_MS_LIMIT: Final = 86_400_000  # a day

BackoffMs = Annotated[int, Meta(ge=0, le=BACKOFF_MS_LIMIT)]


class RetryOn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Failures that are retried; any other is final. An older broker ignores `reasons`."""

    exit_codes: Annotated[tuple[Annotated[int, Meta(ge=1, le=255)], ...], Meta(max_length=CODES_MAX)] = ()
    signals: Annotated[tuple[Annotated[int, Meta(ge=1, le=64)], ...], Meta(max_length=CODES_MAX)] = ()
    reasons: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=REASONS_MAX)] = ()


class RetryPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Retry policy: runs a failed job again, up to `limit` times.

    The pause before retry n is drawn evenly between half of and all of min(`backoff_max_ms`, `backoff_ms` × 2ⁿ⁻¹).
    Without `on`, every failure is retried, failed checkouts and timeouts included, except for lost agents.
    """

    limit: Annotated[int, Meta(ge=1, le=RETRIES_MAX)]
    backoff_ms: BackoffMs = BACKOFF_MS_DEFAULT
    backoff_max_ms: BackoffMs = BACKOFF_MAX_MS_DEFAULT
    on: RetryOn | None = None

    def covers(self, end: int | None, reasons: Collection[str]) -> bool:
        """Return whether a failure is retried: `end` is its number (`Result.end`), `reasons` are its names.

        Signal n and exit code 128 + n are the same: a shell reports with that code which signal ended its command.
        """
        if self.on is None:
            return AGENT_LOST not in reasons
        if not set(reasons).isdisjoint(self.on.reasons):
            return True
        return end is not None and (end in self.on.exit_codes or end - SIGNAL_EXIT_BASE in self.on.signals)

    def pause_ms(self, retry: int, jitter: float) -> int:
        """Return the pause in ms before the `retry`-th retry, counted from 1; `jitter` is in [0, 1).

        "Equal jitter" of "Exponential Backoff And Jitter", AWS Architecture Blog: spreads the retries,
        and keeps at least half of the pause.
        """
        assert retry >= 1, f"retry {retry}, though retries count from 1"
        most_ms = min(self.backoff_max_ms, self.backoff_ms << min(retry - 1, 32))
        return most_ms // 2 + int(jitter * (most_ms - most_ms // 2))
