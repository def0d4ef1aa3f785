"""Engines on a fake table, opened as a broker opens them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.dynamodb.table import Client, Edges
from tests.simulation.dynamodb.client import fake_client

TABLE = "airunner"


class AtOnce(Edges):
    """Edges that wait for nothing, make one call after the other, and for which no time passes."""

    def steady_s(self) -> float:
        return 0.0

    def pause(self, seconds: float) -> None:
        """Time is not what this is about."""

    def run_all(self, calls):
        return [call() for call in calls]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def opened(
    client: Client | None = None,
    broker: str = "broker-0",
    *,
    edges: Callable[[], Edges] = AtOnce,
    announces: bool = False,
) -> Iterator[DynamoEngine]:
    """Open the table for a broker."""
    identity = Identity(broker=broker, fleet="fleet", requests=f"tcp://{broker}:1", events=f"tcp://{broker}:2")
    engine = open_table(client or fake_client(TABLE), TABLE, identity, wall_ms, edges(), announces=announces)
    try:
        yield engine
    finally:
        engine.close()


def before_commit(engine: DynamoEngine, act: Callable[[], object]) -> None:
    """Do something when the engine's next batch is decided, and not committed yet."""
    commit = engine.commit

    def late() -> None:
        engine.commit = commit
        act()
        commit()

    engine.commit = late
