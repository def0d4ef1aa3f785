"""A network in memory between a Client and a real broker: the real codec, the real actors, no socket and no disk.

It loses what a test tells it to lose, which a socket does only when nobody looks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import anyio

from airunner.broker.broker import Broker
from airunner.broker.counts import Counts
from airunner.broker.store.open import open_store
from airunner.certs.authority import NoVerifier
from airunner.client.client import Client
from airunner.client.reach import Reach
from airunner.protocol.coding import decode_request
from airunner.protocol.requests import Request
from airunner.transport.ports import Edges, Ending, Frames, Incoming, Sent, Subscription

QUEUE = 4_096


class Link:
    """One DEALER; the ROUTER's side of it is `Wire`."""

    def __init__(self, wire: Wire, name: bytes) -> None:
        self._wire = wire
        self._name = name
        self.to_client, self._from_broker = anyio.create_memory_object_stream[Frames](QUEUE)
        self._over = anyio.Event()

    def send(self, frames: Sequence[bytes]) -> bool:
        self._wire.requests.append(decode_request(frames[3]))
        self._wire.to_broker.send_nowait(Incoming(self._name, "client", list(frames)))
        return True

    async def receive(self) -> list[Frames]:
        return [await self._from_broker.receive()]

    async def ended(self) -> Ending:
        await self._over.wait()
        return Ending.DROPPED

    def progress(self) -> int:
        return 0

    def drop(self) -> None:
        self._wire.links.pop(self._name, None)
        self._over.set()

    def close(self) -> None:
        self._wire.links.pop(self._name, None)
        self.to_client.close()
        self._from_broker.close()


class Ear:
    """One SUB."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.topics: set[bytes] = set()
        self.to_client, self._from_broker = anyio.create_memory_object_stream[Frames](QUEUE)
        wire.ears.append(self)

    def subscribe(self, topic: bytes) -> None:
        if self._wire.held is not None:
            self._wire.held.append(lambda: self._subscribe(topic))
        else:
            self._subscribe(topic)

    def _subscribe(self, topic: bytes) -> None:
        self.topics.add(topic)
        self._wire.to_publisher.send_nowait(Subscription(topic, wanted=True, key=""))

    def unsubscribe(self, topic: bytes) -> None:
        self.topics.discard(topic)
        self._wire.to_publisher.send_nowait(Subscription(topic, wanted=False, key=""))

    async def receive(self) -> list[Frames]:
        return [await self._from_broker.receive()]

    def close(self) -> None:
        self._wire.ears.remove(self)
        self.to_client.close()
        self._from_broker.close()


class Wire:
    """Both ends: a Network for clients, a Router and a Publisher for the broker."""

    def __init__(self) -> None:
        self.links: dict[bytes, Link] = {}
        self.ears: list[Ear] = []
        self.to_broker, self._requests = anyio.create_memory_object_stream[Incoming](QUEUE)
        self.to_publisher, self._subscriptions = anyio.create_memory_object_stream[Subscription](QUEUE)
        self.endpoint = "tcp://broker.test:7071"
        self.loses: Callable[[Frames], bool] = lambda _: False
        self.published: list[Frames] = []
        self.held: list[Callable[[], None]] | None = None  # a list holds subscriptions back
        self.requests: list[Request] = []
        self.opened = 0

    @property
    def asked(self) -> list[str]:
        """The kinds of all requests, in order."""
        return [type(request).__name__ for request in self.requests]

    def dealer(self, endpoint: str) -> Link:
        assert endpoint == "tcp://broker.test:7070"
        self.opened += 1
        name = b"link %d" % self.opened
        self.links[name] = Link(self, name)
        return self.links[name]

    def subscriber(self, endpoint: str) -> Ear:
        assert endpoint == self.endpoint
        return Ear(self)

    async def receive(self) -> list[Incoming]:
        return [await self._requests.receive()]

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        link = self.links.get(peer)
        if link is None:
            return Sent.GONE
        link.to_client.send_nowait(list(frames))
        return Sent.DONE

    def publish(self, frames: Sequence[bytes]) -> None:
        self.published.append(list(frames))
        if self.loses(list(frames)):
            return
        for ear in self.ears:
            if frames[0] in ear.topics:
                ear.to_client.send_nowait(list(frames))

    async def subscriptions(self) -> list[Subscription]:
        return [await self._subscriptions.receive()]

    def close(self) -> None:
        for stream in (self.to_broker, self._requests, self.to_publisher, self._subscriptions):
            stream.close()


def edges(seed: int = 1) -> Edges:
    """Virtual time and the randomness of a seed."""
    random = Random(seed)
    return Edges(
        wall_ms=lambda: 1_700_000_000_000 + int(anyio.current_time() * 1_000),
        random=random.random,
        random_bytes=random.randbytes,
    )


async def inline(call: Callable[..., object], *arguments: object) -> object:
    """Where a thread would run it."""
    await anyio.lowlevel.checkpoint()
    return call(*arguments)


@asynccontextmanager
async def brokered() -> AsyncIterator[tuple[Wire, Client]]:
    """A broker whose store is in memory, and a client of it."""
    wire = Wire()
    here = edges()
    store = open_store("memory:")
    broker = Broker(store, wire, wire, NoVerifier(), here, inline, Counts())
    reach = Reach(
        network=wire, endpoints=("tcp://broker.test:7070",), token=lambda: b"", edges=here, close=lambda: None
    )
    try:
        async with anyio.create_task_group() as group:
            await group.start(broker.run)
            async with Client(reach=reach) as client:
                yield wire, client
            group.cancel_scope.cancel()
    finally:
        wire.close()
        store.close()
