"""Expiry of a job: when a job that no agent has begun fails instead of waiting any longer."""

from __future__ import annotations

from msgspec import Struct

from airunner.protocol.names import Natural, Positive


class Expiry(Struct, frozen=True, omit_defaults=True):
    """Expiry of a job that no agent has begun: so long after its submission, or at an instant of the broker's clock.

    Raises `ValueError`: not exactly one of the two is given.
    """

    after_ms: Positive | None = None
    at_ms: Natural | None = None

    def __post_init__(self) -> None:
        if (self.after_ms is None) is (self.at_ms is None):
            raise ValueError("expires: expected either after_ms or at_ms")

    def is_past(self, now_ms: int) -> bool:
        """Check whether the instant has passed; a duration begins with the submission."""
        return self.at_ms is not None and self.at_ms <= now_ms

    def deadline_ms(self, submitted_ms: int) -> int:
        """Return the instant, later than its submission, at which a job that is submitted at `submitted_ms` expires."""
        if self.after_ms is not None:
            return submitted_ms + self.after_ms
        return max(submitted_ms + 1, self.at_ms or 0)
