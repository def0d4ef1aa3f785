"""Clock of the broker: wall time, advanced by a clock that never steps.

Deadlines on disk are instants of this clock. While a broker runs it neither jumps nor goes back by itself, whatever
happens to the machine's time: no lease ends for that. When the machine's time has stepped away from it, or the machine
has slept, which it does not count, the Ledger calls `follow`, in one transaction with a `Resume`: as after a restart,
each live lease gets a full period from then on, and jobs that wait for a time of day wait for the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

STEP_MS_MIN: Final = 1_000  # a smaller difference is the noise of reading two clocks, or a leap second


class Clock:
    """Clock of milliseconds since the epoch that rises steadily; made inside the event loop."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._offset_ms = self._found_ms()

    def now_ms(self) -> int:
        """Read the clock (ms since the epoch)."""
        return int(self._offset_ms + anyio.current_time() * 1_000)

    def deadline_s(self, instant_ms: int) -> float:
        """Convert the first moment after `instant_ms` to anyio's time (seconds)."""
        return (instant_ms + 1 - self._offset_ms) / 1_000

    def stepped(self) -> bool:
        """Check whether the machine's time has stepped away from this clock."""
        return abs(self._found_ms() - self._offset_ms) >= STEP_MS_MIN

    def follow(self) -> float:
        """Follow the machine's time from now on; return the offset that `back` restores."""
        before_ms, self._offset_ms = self._offset_ms, self._found_ms()
        return before_ms

    def back(self, offset_ms: float) -> None:
        """Undo `follow`, where its transaction failed."""
        self._offset_ms = offset_ms

    def _found_ms(self) -> float:
        return self._wall_ms() - anyio.current_time() * 1_000
