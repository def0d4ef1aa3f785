"""Brokers of one database in this process: one, or several that take turns as if clients came to each in rotation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle
from typing import Final

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Applied, Command, Done, Expire, News, RenewAll, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.postgres.batches import Memory
from airunner.broker.store.postgres.engine import PostgresEngine, open_postgres

OWN: Final = (set[type](), {Expire}, {RenewAll})  # what each broker does, or knows, of the jobs that it owns


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


class Rotation(Store):
    """Store of several brokers: each batch is applied by the next one, and the others hear of what became ready."""

    def __init__(self, engines: Sequence[PostgresEngine]) -> None:
        super().__init__(engines[0])
        self._stores = [Store(engine) for engine in engines]
        self._turns = cycle(self._stores)
        self.brokers = len(engines)

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        if {*map(type, commands)} not in OWN:
            return self._applied(next(self._turns), commands, now_ms)
        every = [self._applied(store, commands, now_ms) for store in self._stores]
        return replace(
            every[-1], done=[_together(done) for done in zip(*(applied.done for applied in every), strict=True)]
        )

    def _applied(self, store: Store, commands: Sequence[Command], now_ms: int) -> Applied:
        applied = store.apply(commands, now_ms)
        for other in self._stores:
            if other is not store and (ready := {key for done in applied.done for key in done.news.ready}):
                assert isinstance(other.engine, PostgresEngine)
                other.engine.forget_places(ready)
        due = [store.engine.next_due_ms() for store in self._stores]
        return replace(applied, next_due_ms=min((at for at in due if at is not None), default=None))

    def read(self, commands: Sequence[TenantRequest]) -> list[Done]:
        return next(self._turns).read(commands)


def _together(every: Sequence[Done]) -> Done:
    """What several brokers did, as if one had."""
    news = News(
        appended=[appended for done in every for appended in done.news.appended],
        ready={key for done in every for key in done.news.ready},
        nudged=[job for done in every for job in done.news.nudged],
        more=any(done.news.more for done in every),
    )
    return Done(every[0].reply, news, sum(done.cost for done in every))


@contextmanager
def fleet(url: str, brokers: int) -> Iterator[Sequence[PostgresEngine]]:
    """Open the store of a database for so many brokers."""
    with ExitStack() as ends:
        yield [ends.enter_context(closing(open_engine(url, f"broker-{number}"))) for number in range(brokers)]
