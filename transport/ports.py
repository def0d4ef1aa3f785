"""What the actors touch of the world, as interfaces.

Production hands in `transport.sockets` and `SYSTEM`; a simulation hands in its own, and the actors are the same
classes. Everything that is not here (files, processes) belongs to one part alone and is defined there.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple, Protocol

import anyio
from msgspec import Struct

from airunner.transport.clocksteps import no_steps, watch_steps
from airunner.transport.timers import boot_s

Frames = list[bytes]
DRAIN_MESSAGES_MAX: Final = 64  # that one `receive` returns; then other tasks get their turn
DRAIN_REQUESTS_MAX: Final = 4  # of the broker's, from all peers in turn: each takes some 100 µs to judge
QUEUE_MESSAGES_MAX: Final = 4_096  # that wait on a connection for requests, in each direction
REPLIES_MAX: Final = 1_024  # that wait for a peer to read them; each may be a page of a log
EVENTS_MESSAGES_MAX: Final = 128  # of `LIVE_BYTES_MAX`, that wait for a subscriber; it replays what it misses
ROUNDING_S: Final = 0.001  # between two clocks: who wakes a hair too early would wait for nothing, again and again


class Edges(Struct, frozen=True):
    """A wall clock (ms since the epoch), two sources of randomness, and a clock to measure leases on.

    `boot_s` counts seconds on while the machine sleeps, and nobody sets it. Waiting is anyio's own clock, which may
    stand still meanwhile: `watch_steps` calls what is to look again, whenever the machine woke up or its time was set.
    """

    wall_ms: Callable[[], int]
    random: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    boot_s: Callable[[], float] = anyio.current_time
    watch_steps: Callable[[Callable[[], None]], Coroutine[Any, Any, None]] = no_steps

    def wait_until(self, instant_s: float) -> anyio.CancelScope:
        """A block that ends when `instant_s` of `boot_s` has come, if the machine does not sleep meanwhile."""
        return anyio.CancelScope(deadline=anyio.current_time() + instant_s - self.boot_s() + ROUNDING_S)


SYSTEM: Final = Edges(
    wall_ms=lambda: time.time_ns() // 1_000_000,
    random=random.SystemRandom().random,
    random_bytes=os.urandom,
    boot_s=boot_s,
    watch_steps=watch_steps,
)


class Ending(Enum):
    """Why a connection is over."""

    DROPPED = auto()  # gone, or never there; another try may succeed
    REFUSED = auto()  # the broker does not let this key in
    MISMATCHED = auto()  # the handshake broke off: most likely not the broker whose key is pinned


class Sent(Enum):
    """What became of a reply."""

    DONE = auto()
    FULL = auto()  # that peer does not read; it may ask again
    GONE = auto()  # that peer is not connected any more


class Incoming(NamedTuple):
    """One message at the ROUTER: where it came from, the key that the Gatekeeper let in (Z85), what it says."""

    peer: bytes
    key: str
    frames: Frames


class Subscription(NamedTuple):
    """Somebody asks for a topic, or does so no more: the machine with this key (Z85); None: whose connection ended."""

    topic: bytes
    wanted: bool
    key: str | None


EVERYBODY_LEFT: Final = Subscription(b"", wanted=False, key="")
"""All subscriptions are gone at once, as when the process that holds them has ended."""


class Dealer(Protocol):
    """One connection to one broker. It never reconnects by itself."""

    def send(self, frames: Sequence[bytes]) -> bool:
        """Queue a message without waiting; False when the queue is full."""
        ...

    async def receive(self) -> list[Frames]:
        """The messages that are there, at least one; waits for it."""
        ...

    async def ended(self) -> Ending:
        """Wait until the connection is over."""
        ...

    def progress(self) -> int:
        """Bytes known to have moved, either way; 0 until the broker's handshake.

        It rises while a message is on its way. What has come to rest in the other end's buffers does not count.
        """
        ...

    def close(self) -> None:
        """Close at once; whatever is queued is dropped."""
        ...


class Subscriber(Protocol):
    """A SUB socket, which reconnects by itself and subscribes anew when it does."""

    def subscribe(self, topic: bytes) -> None:
        """Ask for what is published under `topic`."""
        ...

    def unsubscribe(self, topic: bytes) -> None:
        """Ask for it no more."""
        ...

    async def receive(self) -> list[Frames]:
        """The messages that are there, at least one; waits for it."""
        ...

    def close(self) -> None:
        """Close at once."""
        ...


class Router(Protocol):
    """The broker's door for requests."""

    endpoint: str

    async def receive(self) -> list[Incoming]:
        """The messages that are there, at least one; waits for it."""
        ...

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        """Send to one peer without waiting."""
        ...

    def close(self) -> None:
        """Close at once."""
        ...


class Publisher(Protocol):
    """The broker's socket for live events."""

    endpoint: str

    def publish(self, frames: Sequence[bytes]) -> None:
        """Send to whoever subscribes; a subscriber whose queue is full misses it."""
        ...

    async def subscriptions(self) -> list[Subscription]:
        """What was subscribed, each time anew, or left, by each subscriber; at least one."""
        ...

    def close(self) -> None:
        """Close at once."""
        ...


class Network(Protocol):
    """How a client or an agent reaches brokers."""

    def dealer(self, endpoint: str) -> Dealer:
        """A new connection for requests."""
        ...

    def subscriber(self, endpoint: str) -> Subscriber:
        """A new connection for live events."""
        ...
