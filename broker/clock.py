"""The broker's clock: wall time, counted on by a clock that never steps.

Deadlines on disk are instants of this clock. While a broker runs it neither jumps nor goes back by itself, whatever is
done to the machine's time: no lease ends for that. When the machine's time has stepped away from it, or the machine
has slept, which it does not count, the Ledger has it `follow`, in one transaction with a `Resume`: as after a restart,
each live lease has a full period from then on, and what waits for a time of day waits for the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

STEP_MS_MIN: Final = 1_000  # what is less is the noise of reading two clocks, or a leap second


class Clock:
    """Milliseconds since the epoch, steadily rising; made inside the event loop."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._offset_ms = self._found_ms()

    def now_ms(self) -> int:
        """This instant."""
        return int(self._offset_ms + anyio.current_time() * 1_000)

    def deadline_s(self, instant_ms: int) -> float:
        """The first moment after `instant_ms`, as anyio counts time (seconds)."""
        return (instant_ms + 1 - self._offset_ms) / 1_000

    def stepped(self) -> bool:
        """Whether the machine's time is another than ours."""
        return abs(self._found_ms() - self._offset_ms) >= STEP_MS_MIN

    def follow(self) -> float:
        """Show the machine's time from now on; returns what `back` undoes it with."""
        before_ms, self._offset_ms = self._offset_ms, self._found_ms()
        return before_ms

    def back(self, offset_ms: float) -> None:
        """Count on as before `follow`: what was to be stored with it was not."""
        self._offset_ms = offset_ms

    def _found_ms(self) -> float:
        return self._wall_ms() - anyio.current_time() * 1_000
