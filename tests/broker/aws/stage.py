"""A whole broker with lines to AWS, all in memory and on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Final

import anyio

from airunner.broker.aws.opening import Bells, Events, Lines
from airunner.broker.broker import Broker
from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine
from airunner.broker.store.quotas import Quotas
from airunner.certs.authority import NoVerifier
from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.transport.memory import REQUESTS_ENDPOINT
from tests.broker.aws.queues import Line, MemoryBus, MemoryQueue
from tests.broker.stage import Disk
from tests.client.wire import Wire, edges
from tests.conformance.memory import MemoryEngine

SUBMITTERS: Final = frozenset({"default"})


class AwsStage:
    """A broker, its queues and its bus; `said` are its lines for the operator."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.bells, self.submissions, self.bus = MemoryQueue(), MemoryQueue("jobs-submissions"), MemoryBus()
        self.engine = engine or MemoryEngine()
        self.counts, self.said = Counts(), list[str]()
        self.health = Health()
        self.quotas = Quotas()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Client]:
        """Run the broker, with a client of it."""
        wire, here = Wire(), edges()
        lines = Lines(
            bells=Bells(Line(self.bells), Line(self.bells)),
            submissions=self.submissions,
            submitters=SUBMITTERS,
            events=Events(self.bus, Disk()),
            say=self.said.append,
        )
        with closing(Store(self.engine)) as store:
            broker = Broker(
                store,
                wire,
                wire,
                NoVerifier(),
                here,
                Disk(),
                self.counts,
                quotas=self.quotas,
                health=self.health,
                lines=lines,
            )
            reach = Reach(
                network=wire, endpoints=(REQUESTS_ENDPOINT,), token=lambda: b"", edges=here, close=lambda: None
            )
            async with anyio.create_task_group() as group:
                await group.start(broker.run)
                async with Client(reach=reach) as client:
                    yield client
                group.cancel_scope.cancel()
