"""Brokers of one table in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.dynamodb.table import CALLS_MAX, Client, Edges
from tests.aws.serving import Account


def open_engine(client: Client, table: str, broker: str) -> DynamoEngine:
    """Open the store in a table for a broker."""
    identity = Identity(broker=broker, fleet="fleet", requests=f"tcp://{broker}", events=f"tcp://{broker}:1")
    return open_table(client, table, identity, lambda: time.time_ns() // 1_000_000, Edges(), announces=False)


@contextmanager
def fleet(account: Account, table: str, brokers: int) -> Iterator[Sequence[DynamoEngine]]:
    """Open the store in a table for so many brokers."""
    client = account.client(max_pool_connections=brokers * CALLS_MAX)
    with ExitStack() as ends:
        yield [ends.enter_context(closing(open_engine(client, table, f"broker-{number}"))) for number in range(brokers)]
