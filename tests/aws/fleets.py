"""Brokers of one table in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.dynamodb.table import Client, Edges


class WallClock:
    """Wall clock of all brokers here: no two of them read the same instant, so that jobs are in order of submission."""

    def __init__(self) -> None:
        self._last_ms = 0

    def __call__(self) -> int:
        """Read it, in ms."""
        self._last_ms = max(self._last_ms + 1, time.time_ns() // 1_000_000)
        return self._last_ms


def open_engine(client: Client, table: str, broker: str, wall_ms: Callable[[], int], edges: Edges) -> DynamoEngine:
    """Open the store in a table for a broker, whose batches are decided at the instant that they are given."""
    identity = Identity(broker=broker, fleet="fleet", requests=f"tcp://{broker}", events=f"tcp://{broker}:1")
    engine = open_table(client, table, identity, wall_ms, edges, announces=False)
    engine.steady_ms = lambda: 0  # type: ignore[method-assign]
    return engine


@contextmanager
def fleet(
    client: Client, table: str, brokers: int, edges: Callable[[], Edges] = Edges
) -> Iterator[Sequence[DynamoEngine]]:
    """Open the store in a table for so many brokers."""
    wall_ms = WallClock()
    with ExitStack() as ends:
        yield [
            ends.enter_context(closing(open_engine(client, table, f"broker-{number}", wall_ms, edges())))
            for number in range(brokers)
        ]
