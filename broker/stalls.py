"""Stalls of the store's disk: how long a read or write in the store's thread takes, for /health.

A disk that does not answer (a network's, or one that retries) ends nothing by itself: the batch is on its way, and
every request waits behind it. So it is for /health to say, which is answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from airunner.broker.health import Health

STALLED_S: Final = 10.0  # a batch takes milliseconds, and a slow disk some hundred of them
CONDITION: Final = "stall"


class Stalls:
    """An `Offload` around `offload` that tells `health` when one piece of work does not end."""

    def __init__(self, offload: Callable[[Callable[[], None]], Awaitable[None]], health: Health) -> None:
        self._offload = offload
        self._health = health
        self._since_s: float | None = None
        health.watch(self._judge)

    async def __call__(self, work: Callable[[], None]) -> None:
        """Do `work` where the offload does it."""
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
