"""Metrics of the broker: gathers the values that /metrics shows.

Counters and histograms are kept by the actors while they work. What is in the store is read when a scrape asks for it,
by the Ledger between two batches, like a list; no tenant pays for it. If the store does not
answer within `READ_S`, the scrape gets what is known without it; the page then lacks the metrics of `backlog`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio

from airunner.broker import backlog, counts
from airunner.broker.backlog import read_backlog
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import BetweenBatches
from airunner.broker.roster import Roster
from airunner.broker.store.contract import Engine, StoreAway
from airunner.protocol.errors import PeerError
from airunner.transport.metric import Metric, MetricKind, Samples

READ_S: Final = 2.0  # seconds to wait for the store: Prometheus waits 10 s for a scrape
AGENTS: Final = Metric(
    "airunner_agents",
    MetricKind.GAUGE,
    "Agents that were active at this broker lately: idle, busy with a job, or unable to run jobs.",
    ("state",),
)
SLOTS: Final = Metric("airunner_agents_slots", MetricKind.GAUGE, "Jobs that these agents can run at once.")
METRICS: Final = (*counts.METRICS, *backlog.METRICS, AGENTS, SLOTS)


class BrokerMetrics:
    """Metrics of a broker; `now_ms` reads the wall clock.

    Queues are named of `tenants` only, see `backlog`.
    """

    def __init__(
        self,
        counts: Counts,
        ledger: FairQueue,
        engine: Engine,
        roster: Roster,
        now_ms: Callable[[], int],
        tenants: Sequence[str],
    ) -> None:
        self._counts = counts
        self._ledger = ledger
        self._engine = engine
        self._roster = roster
        self._now_ms = now_ms
        self._tenants = tenants
        self._entry: BetweenBatches | None = None  # the reading that the Ledger was last asked for
        self._backlog: dict[str, Samples] = {}

    async def values(self) -> dict[str, Samples]:
        """Gather all values, by the names of `METRICS`."""
        await self._read()
        agents = self._roster.counts(self._now_ms())
        return {
            **self._counts.values(),
            **self._backlog,
            AGENTS.name: {(state.value,): count for state, count in agents.by_state.items()},
            SLOTS.name: {(): agents.slots},
        }

    async def _read(self) -> None:
        """Have the Ledger read the backlog; one that it has not got to yet is waited for again."""
        if self._entry is None or self._entry.done.is_set():
            self._entry = BetweenBatches(self._read_store, anyio.Event())
            await self._ledger.send(self._entry)
        with anyio.move_on_after(READ_S):
            await self._entry.done.wait()
            return
        self._backlog = {}

    def _read_store(self) -> None:
        try:
            self._backlog = read_backlog(self._engine, self._tenants, self._now_ms())
        except (
            PeerError,
            StoreAway,
        ):  # damage, a full disk or no connection, which the Ledger meets too
            self._backlog = {}
