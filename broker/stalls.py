"""Stalls of the store's disk: reports in /health that an offloaded read or write takes too long.

A disk that does not answer (a network disk, or one that retries internally) raises no error: the batch waits for it,
and every request waits for the batch. The HTTP server answers meanwhile, so /health can show the stall.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from airunner.broker.health import Health

STALLED_S: Final = 10.0  # duration of a read or write that counts as a stall; a slow disk takes some 0.1 s
CONDITION: Final = "stall"  # name of the condition in /health


class Stalls:
    """Stall detector: wraps `offload`, and reports to `health` when a piece of work does not end."""

    def __init__(self, offload: Callable[[Callable[[], None]], Awaitable[None]], health: Health) -> None:
        self._offload = offload
        self._health = health
        self._since_s: float | None = None
        health.watch(self._judge)

    async def __call__(self, work: Callable[[], None]) -> None:
        """Offload `work`, and record since when it has been running."""
        self._since_s = anyio.current_time()
        try:
            await self._offload(work)
        finally:
            self._since_s = None

    def _judge(self) -> None:
        since_s = self._since_s
        stalled_s = 0.0 if since_s is None else anyio.current_time() - since_s
        if stalled_s >= STALLED_S:
            words = f"the store's disk has not finished a read or write for {stalled_s:.0f} s; all requests wait for it"
            self._health.fail(CONDITION, words)
        else:
            self._health.clear(CONDITION)
