"""From anyio's clock to the one that a keeper can read too: CLOCK_MONOTONIC, one for the whole machine."""

from __future__ import annotations

import math
import time

import anyio


def steady_ms(instant_s: float) -> int | None:
    """An instant of anyio's clock as milliseconds of CLOCK_MONOTONIC; None for one that never comes.

    The steady clock is read first: if we are stopped between the two readings, the result is too early, and
    what hangs on it ends too soon and not too late.
    """
    if instant_s == math.inf:
        return None
    return math.floor((time.monotonic() - anyio.current_time() + instant_s) * 1_000)
