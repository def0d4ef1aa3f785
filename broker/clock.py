"""Clock of the broker: wall time, advanced by a clock that never steps.

Deadlines on disk are instants of this clock. It neither jumps nor goes back by itself, so a step of the machine's time
expires no lease; and it does not advance while the machine sleeps. After a step, or a sleep, the Ledger calls `follow`
and applies a `RenewAll` in the same batch: as after a restart, each live lease gets a full visibility timeout from then
on, and jobs with `not_before` wait for the correct time of day.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

STEP_MS_MIN: Final = 1_000  # difference that counts as a step; a smaller one may be noise of the two readings


class Clock:
    """Clock in milliseconds since the epoch that rises steadily; created inside the event loop."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._offset_ms = self._found_ms()

    def now_ms(self) -> int:
        """Read the clock (ms since the epoch)."""
        return int(self._offset_ms + anyio.current_time() * 1_000)

    def deadline_s(self, instant_ms: int) -> float:
        """Convert an instant to anyio's time in seconds, one millisecond later: then `now_ms` is past the instant."""
        return (instant_ms + 1 - self._offset_ms) / 1_000

    def stepped(self) -> bool:
        """Check whether the machine's time has stepped away from this clock."""
        return abs(self._found_ms() - self._offset_ms) >= STEP_MS_MIN

    def follow(self) -> float:
        """Set this clock to the machine's time; return the previous offset, for `back`."""
        before_ms, self._offset_ms = self._offset_ms, self._found_ms()
        return before_ms

    def back(self, offset_ms: float) -> None:
        """Undo `follow`, because the transaction of its `RenewAll` failed."""
        self._offset_ms = offset_ms

    def _found_ms(self) -> float:
        return self._wall_ms() - anyio.current_time() * 1_000
