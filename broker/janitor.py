"""Janitor: triggers retention, which removes finished jobs that are old, or that make the store too large.

Of several brokers on one store only one does it at a time. The Janitor touches no job and no file: it sends the Ledger
`Retain` commands, one small step after another, so that no request waits long behind a step. When nothing is left to
remove it pauses for `REST_S`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from msgspec import Struct

from airunner.broker.clock import Clock
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import JanitorInbox
from airunner.broker.lifecycle.commands import Retain

REST_S: Final = 60.0  # between two rounds: retention is counted in days and GiB, and needs no exact instant
DAY_MS: Final = 86_400_000


class RetentionPlan(Struct, frozen=True):
    """Retention of finished jobs and logs: for how many days, and up to which size of the store (None: no bound)."""

    retain_days: float = 30.0
    store_bytes_max: int | None = None


class Janitor:
    """Janitor actor; it works while `on_duty` returns true."""

    def __init__(
        self,
        inbox: JanitorInbox,
        ledger: FairQueue,
        clock: Clock,
        plan: RetentionPlan,
        on_duty: Callable[[], bool] = lambda: True,
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._clock = clock
        self._plan = plan
        self._on_duty = on_duty

    async def run(self) -> None:
        """Send the Ledger steps of retention until cancelled."""
        while True:
            if not self._on_duty():
                await anyio.sleep(REST_S)
                continue
            before_ms = self._clock.now_ms() - int(self._plan.retain_days * DAY_MS)
            await self._ledger.send(Retain(finished_before_ms=before_ms, store_bytes_max=self._plan.store_bytes_max))
            swept = await self._inbox.receive()
            if not swept.more:
                await anyio.sleep(REST_S)
