"""The broker's clock: wall time at the start, counted on by a clock that never steps.

Deadlines on disk are instants of this clock. While a broker runs it can neither jump nor go back, whatever
is done to the machine's time; what a jump between two runs could do, `Resume` undoes.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Clock:
    """Milliseconds since the epoch, steadily rising; made inside the event loop."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._offset_ms = wall_ms() - anyio.current_time() * 1_000

    def now_ms(self) -> int:
        """This instant."""
        return int(self._offset_ms + anyio.current_time() * 1_000)

    def deadline_s(self, instant_ms: int) -> float:
        """The first moment after `instant_ms`, as anyio counts time (seconds)."""
        return (instant_ms + 1 - self._offset_ms) / 1_000
