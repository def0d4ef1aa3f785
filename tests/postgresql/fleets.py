"""Brokers of one database in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from airunner.broker.store.contract import Identity
from airunner.broker.store.postgres.batches import Memory
from airunner.broker.store.postgres.engine import PostgresEngine, open_postgres


def open_engine(url: str, broker: str) -> PostgresEngine:
    """Open the store for a broker."""
    identity = Identity(broker=broker, fleet="fleet", requests=f"tcp://{broker}", events=f"tcp://{broker}:1")
    return open_postgres(url, identity, lambda: time.time_ns() // 1_000_000)


def empty(engines: Sequence[PostgresEngine]) -> None:
    """Remove all rows but those of brokers; none of these remembers anything."""
    execute = engines[0]._trips.link.connection.execute
    kept = "('installed', 'broker')"
    tables = execute(f"SELECT tablename FROM pg_tables WHERE schemaname = 'airunner' AND tablename NOT IN {kept}")
    execute(f"TRUNCATE {', '.join(f'airunner.{name}' for (name,) in tables.fetchall())}")
    for engine in engines:
        engine._memory, engine._next_due_ms = Memory(), None


@contextmanager
def fleet(url: str, brokers: int) -> Iterator[Sequence[PostgresEngine]]:
    """Open the store of a database for so many brokers."""
    with ExitStack() as ends:
        yield [ends.enter_context(closing(open_engine(url, f"broker-{number}"))) for number in range(brokers)]
