"""Embedded and unbounded databases: parts of the engine's port with nothing to do, for engines that need no more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext

from airunner.broker.store.rows import BrokerRow, OutboxEntry, QueueKey


class Unbounded:
    """Unbounded transactions, and no announcements: the part of `Engine` that only a cloud's database needs."""

    rows_max: int | None = None
    bytes_max: int | None = None
    locked_ms = 0
    announces = False

    def steady_ms(self) -> int:
        """Return 0: a batch is loaded so soon that its instant need not be later."""
        return 0

    def outbox(self, limit: int) -> list[OutboxEntry]:
        """Return no events: none are kept."""
        del limit
        return []

    def published(self, entries: Sequence[OutboxEntry]) -> None:
        """Do nothing: no events are kept."""


class Embedded(Unbounded):
    """Embedded database: the part of `Engine` that only a database over a network, or of several brokers, needs."""

    remote = False
    broker = ""
    ready_seq = 0
    warnings: Sequence[str] = ()
    size_bytes = 0
    reading = staticmethod(nullcontext[None])

    def reconnect(self) -> None:
        """Do nothing: the database is in this process."""

    def forget_places(self, keys: Collection[QueueKey] | None) -> None:
        """Do nothing: no place is remembered."""

    def retire(self) -> None:
        """Do nothing: no other broker may adopt the jobs."""

    def brokers(self, tenant: str, queues: frozenset[str] | None) -> list[BrokerRow]:
        """List no brokers: there is no table of them."""
        del tenant, queues
        return []
