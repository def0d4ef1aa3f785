"""Stalls of the store's disk: reports in /health that a read or write takes too long.

A disk that does not answer (on a network, or one that retries) raises no error: the batch is under way, and every
request waits behind it. The HTTP server answers meanwhile, so /health shows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from airunner.broker.health import Health

STALLED_S: Final = 10.0  # a batch takes milliseconds, and a slow disk some hundred of them
CONDITION: Final = "stall"


class Stalls:
    """Stall detector: an `Offload` around `offload` that reports to `health` when a piece of work does not end."""

    def __init__(self, offload: Callable[[Callable[[], None]], Awaitable[None]], health: Health) -> None:
        self._offload = offload
        self._health = health
        self._since_s: float | None = None
        health.watch(self._judge)

    async def __call__(self, work: Callable[[], None]) -> None:
        """Offload `work`, and measure how long it takes."""
        self._since_s = anyio.current_time()
        try:
            await self._offload(work)
        finally:
            self._since_s = None

    def _judge(self) -> None:
        since_s = self._since_s
        stalled_s = 0.0 if since_s is None else anyio.current_time() - since_s
        if stalled_s >= STALLED_S:
            words = f"the store's disk has not finished a read or write for {stalled_s:.0f} s; every request waits"
            self._health.fail(CONDITION, words)
        else:
            self._health.clear(CONDITION)
