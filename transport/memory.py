"""In-process network: the four sockets of `ports` as queues in memory, for a broker and its peers in one process.

```
 MemoryDealer ──requests──► MemoryRouter          MemorySubscriber ◄──events── MemoryPublisher
              ◄──replies───                                        ──changes─►
```

Each queue is as long as that of a ZeroMQ socket, and a full one is reported in the same way. There are no keys: every
peer is this process. A connection ends only when either end is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from airunner.transport.bell import Bell
from airunner.transport.ports import (
    DRAIN_MESSAGES_MAX,
    EVENTS_MESSAGES_MAX,
    QUEUE_MESSAGES_MAX,
    REPLIES_MAX,
    Accept,
    Ending,
    Frames,
    Incoming,
    Sent,
    Subscription,
)

REQUESTS_ENDPOINT: Final = "memory://broker:1"
EVENTS_ENDPOINT: Final = "memory://broker:2"
DRAIN_REQUESTS_MAX: Final = 4  # requests that the router receives before other tasks get a turn
PEER_KEY: Final = ""  # the key of every peer
T = TypeVar("T")


class _Queue(Generic[T]):
    """Bounded FIFO queue with a single reader."""

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._messages: deque[T] = deque()
        self._filled = Bell()

    def put(self, message: T) -> bool:
        """Append a message; False when the queue is full."""
        if len(self._messages) >= self._length_max:
            return False
        self._messages.append(message)
        self._filled.ring()
        return True

    async def take(self, count_max: int = DRAIN_MESSAGES_MAX) -> list[T]:
        """Remove the oldest messages, as many as there are up to `count_max`; wait for the first."""
        await anyio.lowlevel.checkpoint()
        while not self._messages:
            await self._filled.wait()
        return [self._messages.popleft() for _ in range(min(count_max, len(self._messages)))]


class MemoryDealer:
    """Connection of one peer to the router; see `ports.Dealer`."""

    def __init__(self, router: MemoryRouter, peer: bytes) -> None:
        self.peer = peer
        self.requests: deque[Frames] = deque()
        self.replies: _Queue[Frames] = _Queue(REPLIES_MAX)
        self.over = anyio.Event()
        self.taken_bytes = 0  # bytes of requests that the router has received
        self._router = router
        self._received_bytes = 0

    def send(self, frames: Sequence[bytes]) -> bool:
        """Queue a message without waiting; False when the queue is full or the connection has ended."""
        if self.over.is_set() or len(self.requests) >= QUEUE_MESSAGES_MAX:
            return False
        self.requests.append(list(frames))
        self._router.wake(self)
        return True

    async def read(self, accept: Callable[[Frames], None]) -> None:
        while True:
            for frames in await self.replies.take():
                self._received_bytes += sum(map(len, frames))
                accept(frames)

    async def ended(self) -> Ending:
        """Wait until either end is closed."""
        await self.over.wait()
        return Ending.DROPPED

    def progress(self) -> int:
        return self.taken_bytes + self._received_bytes

    def close(self) -> None:
        self.over.set()
        self.requests.clear()
        self._router.leave(self)


class MemoryRouter:
    """The broker's socket for requests; see `ports.Router`. It receives one request of each peer in turn."""

    endpoint = REQUESTS_ENDPOINT

    def __init__(self) -> None:
        self._peers: dict[bytes, MemoryDealer] = {}
        self._turns: deque[MemoryDealer] = deque()  # peers with requests, each once
        self._filled = Bell()
        self._numbers = count(1)
        self._closed = False

    def connect(self) -> MemoryDealer:
        """Open a connection; it has already ended if the router is closed."""
        dealer = MemoryDealer(self, b"%d" % next(self._numbers))
        if self._closed:
            dealer.over.set()
        else:
            self._peers[dealer.peer] = dealer
        return dealer

    def wake(self, dealer: MemoryDealer) -> None:
        """Queue a peer for its turn when its first request arrives."""
        if len(dealer.requests) == 1:
            self._turns.append(dealer)
            self._filled.ring()

    def leave(self, dealer: MemoryDealer) -> None:
        """Remove a peer that has closed its connection."""
        self._peers.pop(dealer.peer, None)
        if dealer in self._turns:
            self._turns.remove(dealer)

    async def serve(self, accept: Accept) -> None:
        while True:
            accept(await self.receive())

    async def receive(self) -> list[Incoming]:
        """Receive the messages that have arrived, at most `DRAIN_REQUESTS_MAX`; wait for the first."""
        await anyio.lowlevel.checkpoint()
        while not self._turns:
            await self._filled.wait()
        batch: list[Incoming] = []
        while self._turns and len(batch) < DRAIN_REQUESTS_MAX:
            dealer = self._turns.popleft()
            frames = dealer.requests.popleft()
            dealer.taken_bytes += sum(map(len, frames))
            batch.append(Incoming(dealer.peer, PEER_KEY, frames))
            if dealer.requests:
                self._turns.append(dealer)
        return batch

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        dealer = self._peers.get(peer)
        if dealer is None:
            return Sent.GONE
        return Sent.DONE if dealer.replies.put(list(frames)) else Sent.FULL

    def close(self) -> None:
        """Close at once; every connection ends."""
        self._closed = True
        for dealer in list(self._peers.values()):
            dealer.close()


class MemorySubscriber:
    """Connection of one subscriber to the publisher; see `ports.Subscriber` and `ports.Peer`."""

    def __init__(self, publisher: MemoryPublisher) -> None:
        self.topics: set[bytes] = set()
        self.events: _Queue[Frames] = _Queue(EVENTS_MESSAGES_MAX)
        self.over = anyio.Event()
        self._publisher = publisher

    def subscribe(self, topic: bytes) -> None:
        if topic not in self.topics:
            self.topics.add(topic)
            self._publisher.change(Subscription(topic, wanted=True, key=PEER_KEY))

    def unsubscribe(self, topic: bytes) -> None:
        if topic in self.topics:
            self.topics.remove(topic)
            self._publisher.change(Subscription(topic, wanted=False, key=PEER_KEY))

    async def read(self, accept: Callable[[Frames], None]) -> None:
        while True:
            for frames in await self.events.take():
                accept(frames)

    async def ended(self) -> Ending:
        """Wait until either end is closed."""
        await self.over.wait()
        return Ending.DROPPED

    def close(self) -> None:
        self.over.set()
        self._publisher.leave(self)


class MemoryPublisher:
    """The broker's socket for live events; see `ports.Publisher`. A topic matches every topic that begins with it."""

    endpoint = EVENTS_ENDPOINT

    def __init__(self) -> None:
        self._subscribers: dict[MemorySubscriber, None] = {}
        self._changes: _Queue[Subscription] = _Queue(QUEUE_MESSAGES_MAX)

    def connect(self) -> MemorySubscriber:
        subscriber = MemorySubscriber(self)
        self._subscribers[subscriber] = None
        return subscriber

    def change(self, change: Subscription) -> None:
        """Report a change of subscriptions; if the queue is full it is lost, and the subscriber may need replays."""
        self._changes.put(change)

    def leave(self, subscriber: MemorySubscriber) -> None:
        """Remove a subscriber that has closed its connection."""
        if self._subscribers.pop(subscriber, subscriber) is None:
            for topic in subscriber.topics:
                self.change(Subscription(topic, wanted=False, key=None))

    def publish(self, frames: Sequence[bytes]) -> None:
        for subscriber in self._subscribers:
            if frames[0].startswith(tuple(subscriber.topics)):
                subscriber.events.put(list(frames))

    async def subscriptions(self) -> list[Subscription]:
        return await self._changes.take()

    def close(self) -> None:
        """Close at once; every connection ends."""
        for subscriber in list(self._subscribers):
            subscriber.close()


class MemoryNetwork:
    """Network within a process, with the broker's two sockets; see `ports.Network`."""

    def __init__(self) -> None:
        self.router = MemoryRouter()
        self.publisher = MemoryPublisher()

    def dealer(self, endpoint: str) -> MemoryDealer:
        assert endpoint == REQUESTS_ENDPOINT, f"no broker at {endpoint} is in this process"
        return self.router.connect()

    def subscriber(self, endpoint: str) -> MemorySubscriber:
        assert endpoint == EVENTS_ENDPOINT, f"no broker at {endpoint} is in this process"
        return self.publisher.connect()
