"""A real broker and a Client of it in one process: the in-process network, which loses what a test tells it to lose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from random import Random

import anyio

from airunner.broker.blobs.keeper import Blobs
from airunner.broker.broker import Broker
from airunner.broker.counts import Counts
from airunner.broker.store.open import open_store
from airunner.certs.authority import Authority, NoVerifier
from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.protocol.coding import decode_request
from airunner.protocol.requests import Request
from airunner.transport.memory import EVENTS_ENDPOINT, REQUESTS_ENDPOINT, MemoryDealer, MemoryNetwork, MemorySubscriber
from airunner.transport.ports import Accept, Edges, Frames, Sent, Subscription
from tests.broker.stage import Disk


class Wire(MemoryNetwork):
    """The network and the broker's two sockets at once, so that a test can take the place of each method."""

    endpoint = EVENTS_ENDPOINT

    def __init__(self) -> None:
        super().__init__()
        self.links: list[MemoryDealer] = []  # all that were opened
        self.ears: list[MemorySubscriber] = []
        self.loses: Callable[[Frames], bool] = lambda _: False
        self.published: list[Frames] = []
        self.requests: list[Request] = []
        self.passes: list[list[Request]] = []  # those that the broker has received together

    @property
    def asked(self) -> list[str]:
        """The kinds of all requests, in order."""
        return [type(request).__name__ for request in self.requests]

    def dealer(self, endpoint: str) -> MemoryDealer:
        self.links.append(super().dealer(endpoint))
        return self.links[-1]

    def subscriber(self, endpoint: str) -> MemorySubscriber:
        self.ears.append(super().subscriber(endpoint))
        return self.ears[-1]

    async def serve(self, accept: Accept) -> None:
        while True:
            received = await self.router.receive()
            self.passes.append([decode_request(incoming.frames[3]) for incoming in received])
            self.requests += self.passes[-1]
            accept(received)

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        return self.router.send(peer, frames)

    def publish(self, frames: Sequence[bytes]) -> None:
        self.published.append(list(frames))
        if not self.loses(list(frames)):
            self.publisher.publish(frames)

    async def subscriptions(self) -> list[Subscription]:
        return await self.publisher.subscriptions()

    def close(self) -> None:
        """Nothing is held."""


def edges(seed: int = 1) -> Edges:
    """Virtual time and the randomness of a seed."""
    random = Random(seed)
    return Edges(
        wall_ms=lambda: 1_700_000_000_000 + int(anyio.current_time() * 1_000),
        random=random.random,
        random_bytes=random.randbytes,
    )


@asynccontextmanager
async def brokered(
    blobs: Blobs | None = None,
    authority: Authority | None = None,
    token: Callable[[], bytes] = lambda: b"",
    secret: bytes = b"",
) -> AsyncIterator[tuple[Wire, Client]]:
    """A broker whose store is in memory, and a client of it."""
    wire, here = Wire(), edges()
    with closing(open_store("memory:")) as store:
        who = authority or NoVerifier()
        broker = Broker(store, wire, wire, who, here, Disk(), Counts(), blobs=blobs, change_secret=secret)
        reach = Reach(network=wire, endpoints=(REQUESTS_ENDPOINT,), token=token, edges=here, close=lambda: None)
        async with anyio.create_task_group() as group:
            await group.start(broker.run)
            async with Client(reach=reach) as client:
                yield wire, client
            group.cancel_scope.cancel()
