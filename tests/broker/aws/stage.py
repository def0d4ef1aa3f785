"""A whole broker on a fake table, with queues and a bus in memory, and an agent: all on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count
from typing import Final

import anyio

from airunner.broker.aws.opening import Bells, Events, Lines
from airunner.broker.broker import Broker
from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.opening import open_table
from airunner.broker.store.quotas import Quotas
from airunner.certs.authority import NoVerifier
from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.protocol.replies import JobLease, JobsLeased
from airunner.transport.memory import REQUESTS_ENDPOINT
from tests.broker.aws.queues import Line, MemoryBus, MemoryQueue
from tests.broker.stage import Disk, dequeue
from tests.broker.store.dynamodb.opened import TABLE, AtOnce
from tests.client.wire import Wire, edges
from tests.conformance.driving import completion
from tests.simulation.dynamodb.client import fake_client

SUBMITTERS: Final = frozenset({"default"})
REST_S: Final = 600.0


class VirtualEdges(AtOnce):
    """Edges of the engine on virtual time."""

    def steady_s(self) -> float:
        """Return the test's time."""
        return anyio.current_time()


class AwsStage:
    """A broker, its table, queues and bus; `said` are its lines for the operator."""

    def __init__(self) -> None:
        self.bells, self.submissions, self.bus = MemoryQueue(), MemoryQueue("jobs-submissions"), MemoryBus()
        self.counts, self.said = Counts(), list[str]()
        self.health = Health()
        self.quotas = Quotas()
        self._table = fake_client(TABLE)
        self._starts = count(1)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Client]:
        """Run the broker, with a client of it; it ends where it stands, and may be started again."""
        wire, here = Wire(), edges(next(self._starts))
        lines = Lines(
            bells=Bells(Line(self.bells), Line(self.bells)),
            submissions=self.submissions,
            submitters=SUBMITTERS,
            events=Events(self.bus, Disk()),
            say=self.said.append,
        )
        identity = Identity(broker="broker-0", fleet="fleet", requests="tcp://a:1", events="tcp://a:2")
        engine = open_table(self._table, TABLE, identity, here.wall_ms, VirtualEdges(), announces=True)
        with closing(Store(engine)) as store:
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


class Agent:
    """Asks for a job every `REST_S`, and waits for one all the time after `parks_s`; `started` says when it got any."""

    def __init__(self, client: Client, parks_s: float = 0.0) -> None:
        self._client = client
        self._parks_s = parks_s
        self._seeds = count(1)
        self.started: list[float] = []

    async def run(self) -> None:
        """Complete each job at once."""
        while True:
            parks = anyio.current_time() >= self._parks_s
            for lease in await self.lease(wait_ms=30_000 if parks else 0):
                self.started.append(anyio.current_time())
                await self._client._ask(completion(lease))
            await anyio.sleep(0 if parks else REST_S)  # virtual

    async def lease(self, wait_ms: int = 0) -> tuple[JobLease, ...]:
        """Ask for a job."""
        seed = next(self._seeds).to_bytes(32, "big")
        reply = await self._client._ask(dequeue(wait_ms=wait_ms, seed=seed))
        assert isinstance(reply, JobsLeased)
        return reply.leases


@asynccontextmanager
async def served(stage: AwsStage, parks_s: float = 0.0) -> AsyncIterator[tuple[Client, Agent]]:
    """A broker with an agent."""
    async with stage.opened() as client, anyio.create_task_group() as group:
        agent = Agent(client, parks_s)
        group.start_soon(agent.run)
        yield client, agent
        group.cancel_scope.cancel()
