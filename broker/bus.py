"""Bus of news: carries the news of a committed batch to the actors that need it.

```
Ledger ─ BatchNews ─► Bus ─┬─► Announcer   (appended segments)
                           ├─► ChangeFeed  (changed rows of jobs and queues)
           ├─► Gateway     (jobs whose agents are nudged)
                           ├─► Timekeeper  (the next instant at which something is due)
                           └─► parking     (queues in which jobs may be leased now)
```

With one broker the bus calls the first four directly, and keeps the ready queues until the Ledger, which owns the
parking, calls `take_ready`. The bus of a fleet (`fleetbus`) also sends the ready queues and the nudges to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from airunner.broker.inbox import Alarm, Nudged, ToAnnouncer, ToGateway, ToTimekeeper
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.store.rows import Changes, QueueKey

EVERY_QUEUE: Final = QueueKey("", "")
"""Every queue on which a request is parked, among ready queues: no queue and no tenant has an empty name."""


class BatchNews(Struct, kw_only=True):
    """News of a batch. `ready`: queues and needs with jobs that may be leased; `alarm`: None if none is to be sent.

    `changes`: what the batch has saved, None if it is not known.
    """

    appended: list[Appended] = []
    nudged: list[Nudged] = []
    ready: set[QueueKey] = set()
    alarm: Alarm | None = None
    changes: Changes | None = None


class Bus(Protocol):
    """Bus port, which the Ledger calls."""

    def publish(self, news: BatchNews) -> None:
        """Publish the news of a batch that is on disk."""
        ...

    def take_ready(self) -> set[QueueKey]:
        """Return the queues that became ready since the last call, and forget them."""
        ...

    def ready_all(self) -> None:
        """Make every queue ready on which a request is parked: news of other brokers may have been lost."""
        ...

    def replay_all(self) -> None:
        """Have all who listen to live events replay: events may have been stored that were never published."""
        ...


def nobody_watches(_changes: Changes) -> None:
    """Publish no changes: for a broker without change streams."""


class LocalBus:
    """Bus of a single broker."""

    def __init__(
        self,
        gateway: ToGateway,
        announcer: ToAnnouncer,
        timekeeper: ToTimekeeper,
        feed: Callable[[Changes], None] = nobody_watches,
    ) -> None:
        self._gateway = gateway
        self._announcer = announcer
        self._timekeeper = timekeeper
        self._feed = feed
        self._ready: set[QueueKey] = set()

    def publish(self, news: BatchNews) -> None:
        """See `Bus`."""
        self._ready |= news.ready
        if news.nudged:
            self._gateway.send(news.nudged)
        if news.appended:
            self._announcer.send(news.appended)
        if news.changes is not None:
            self._feed(news.changes)
        if news.alarm is not None:
            self._timekeeper.send_nowait(news.alarm)

    def take_ready(self) -> set[QueueKey]:
        """See `Bus`."""
        ready, self._ready = self._ready, set()
        return ready

    def ready_all(self) -> None:
        """See `Bus`."""
        self._ready.add(EVERY_QUEUE)

    def replay_all(self) -> None:
        """Do nothing: a single broker has published what it has stored."""
