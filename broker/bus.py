"""The bus: carries news of what is on disk to everybody who lives from it.

```
Ledger ─ BatchNews ─► Bus ─┬─► Announcer   (appended segments)
                           ├─► Gateway     (jobs whose agents are nudged)
                           ├─► Timekeeper  (the next instant at which something is due)
                           └─► parking     (queues in which jobs may be leased now)
```

With one broker it is these four inboxes; with several, it carries the news to the others too.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from airunner.broker.inbox import Alarm, Nudged, ToAnnouncer, ToGateway, ToTimekeeper
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.store.contract import QueueKey


class BatchNews(Struct, kw_only=True):
    """News of a batch. `ready`: queues and needs in which a job may be leased; `alarm`: None where it is as before."""

    appended: list[Appended] = []
    nudged: list[Nudged] = []
    ready: set[QueueKey] = set()
    alarm: Alarm | None = None


class Bus(Protocol):
    """The port: what the Ledger asks of it."""

    async def tell(self, news: BatchNews) -> None:
        """Pass on what is on disk now."""
        ...

    def take_ready(self) -> set[QueueKey]:
        """The queues that were told ready since this was asked last."""
        ...


class LocalBus:
    """The bus of a broker that is alone."""

    def __init__(self, gateway: ToGateway, announcer: ToAnnouncer, timekeeper: ToTimekeeper) -> None:
        self._gateway = gateway
        self._announcer = announcer
        self._timekeeper = timekeeper
        self._ready: set[QueueKey] = set()

    async def tell(self, news: BatchNews) -> None:
        """See `Bus`."""
        self._ready |= news.ready
        if news.nudged:
            await self._gateway.send(news.nudged)
        if news.appended:
            await self._announcer.send(news.appended)
        if news.alarm is not None:
            await self._timekeeper.send(news.alarm)

    def take_ready(self) -> set[QueueKey]:
        """See `Bus`."""
        ready, self._ready = self._ready, set()
        return ready
