"""Janitor: triggers retention, which removes finished jobs that are old, or that make the store too large.

Of several brokers on one store only one does it at a time. The Janitor touches no job: it sends the Ledger `Retain`
commands, one small step after another, so that no request waits long behind a step. When nothing is left to remove, it
deletes the blobs that no job and no cache needs any more, in a thread, and pauses for `REST_S`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from airunner.broker.blobs.store import BlobStore
from airunner.broker.clock import Clock
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import JanitorInbox
from airunner.broker.lifecycle.commands import FOUND_MAX, FindGone, Retain
from airunner.protocol.errors import PeerError
from airunner.protocol.names import JobId

REST_S: Final = 60.0  # between two rounds: retention is counted in days and GiB, and needs no exact instant
DAY_MS: Final = 86_400_000


class RetentionPlan(Struct, frozen=True):
    """Retention of finished jobs and logs: for how many days, and up to which size of the store (None: no bound)."""

    retain_days: float = 30.0
    store_bytes_max: int | None = None


class Janitor:
    """Janitor actor; it works while `on_duty` returns true. `blobs`: the blob store, None: there is none."""

    def __init__(
        self,
        inbox: JanitorInbox,
        ledger: FairQueue,
        clock: Clock,
        plan: RetentionPlan,
        on_duty: Callable[[], bool] = lambda: True,
        blobs: BlobStore | None = None,
        broker: str = "",
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._clock = clock
        self._plan = plan
        self._on_duty = on_duty
        self._blobs = blobs
        self._broker = broker

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
                if self._blobs is not None:
                    with suppress(PeerError):  # the blob store is away: in the next round
                        await self._sweep(self._blobs)
                await anyio.sleep(REST_S)

    async def _sweep(self, blobs: BlobStore) -> None:
        """Delete the blobs that nothing needs: first forget the claims of jobs that are gone. Raises `PeerError`."""
        for tenant in await to_thread.run_sync(blobs.tenants):
            claimants = await to_thread.run_sync(blobs.claimants, tenant)
            for at in range(0, len(claimants), FOUND_MAX):
                await self._ledger.send(FindGone(tenant, tuple(map(JobId, claimants[at : at + FOUND_MAX]))))
                for job_id in (await self._inbox.receive()).gone:
                    await to_thread.run_sync(blobs.forget, tenant, job_id)
            await to_thread.run_sync(blobs.forget_uploads, tenant, self._clock.now_ms() // DAY_MS - 1)
            await to_thread.run_sync(blobs.caches.forget_old, tenant, self._clock.now_ms() // DAY_MS - 1)
            await to_thread.run_sync(blobs.caches.trim, tenant)
            await to_thread.run_sync(blobs.sweep, tenant, self._broker)
