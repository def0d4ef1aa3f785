"""Ports: the interfaces through which the actors use clock, randomness and network.

Production passes in `transport.sockets` and `SYSTEM`; a simulation passes in its own, to the same classes. Interfaces
that only one part uses (files, processes) are defined in that part.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple, Protocol

import anyio
from msgspec import Struct

from airunner.protocol.names import REQUEST_ID_RANDOM_BYTES, RequestId, new_request_id
from airunner.transport.timers import StepTimer, boot_s

Frames = list[bytes]
DRAIN_MESSAGES_MAX: Final = 64  # messages received in one turn of the event loop, before other tasks get theirs
QUEUE_MESSAGES_MAX: Final = 4_096  # messages that wait in a socket for one connection, except replies and live events
REPLIES_MAX: Final = 1_024  # replies that wait until a peer reads them; each may be a page of a log
EVENTS_MESSAGES_MAX: Final = 128  # live messages that wait for a subscriber; it replays those that it misses
LOOK_AGAIN_S: Final = 5.0  # seconds between calls in `watch_steps`, where the kernel reports no steps of the clock
ROUNDING_S: Final = 0.001  # added to a wait that two clocks measure: a task that wakes slightly too early would spin


async def no_steps(_react: Callable[[], None]) -> None:
    """Watch a clock that is never set: never calls `_react`."""
    await anyio.sleep_forever()


async def watch_steps(react: Callable[[], None]) -> None:
    """Watch the machine's clock: call `react` whenever its time was set or it woke up from sleep, for ever.

    Instants are compared on a clock that counts on while the machine sleeps, but a wait of the event loop may stand
    still meanwhile: so `react` checks the time. Several steps in quick succession may cause one call. If the system
    is not Linux, `react` is called every `LOOK_AGAIN_S`.
    """
    if sys.platform != "linux":
        while True:
            await anyio.sleep(LOOK_AGAIN_S)
            react()
    timer = StepTimer()
    try:
        while True:
            await anyio.wait_readable(timer.descriptor)
            timer.clear()
            react()
    finally:
        anyio.notify_closing(timer.descriptor)
        timer.close()


class Edges(Struct, frozen=True):
    """Clocks and randomness: a wall clock (ms since the epoch), two random sources, and a clock that measures leases.

    `boot_s` counts seconds, also while the machine sleeps, and is never set. Waits use anyio's own clock, which may
    stand still during sleep: `watch_steps` calls its argument whenever the machine woke up or its time was set.
    """

    wall_ms: Callable[[], int]
    random: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    boot_s: Callable[[], float] = anyio.current_time
    watch_steps: Callable[[Callable[[], None]], Coroutine[Any, Any, None]] = no_steps

    def new_request_id(self) -> RequestId:
        """Make the id of a new request."""
        return new_request_id(self.wall_ms(), self.random_bytes(REQUEST_ID_RANDOM_BYTES))

    def wait_until(self, instant_s: float) -> anyio.CancelScope:
        """Return a cancel scope that ends when `boot_s` reaches `instant_s`; later, if the machine sleeps meanwhile."""
        return anyio.CancelScope(deadline=anyio.current_time() + instant_s - self.boot_s() + ROUNDING_S)


SYSTEM: Final = Edges(
    wall_ms=lambda: time.time_ns() // 1_000_000,
    random=random.SystemRandom().random,
    random_bytes=os.urandom,
    boot_s=boot_s,
    watch_steps=watch_steps,
)


class Ending(Enum):
    """Reason why a connection ended."""

    DROPPED = auto()  # the connection was lost or could not be made; another try may succeed
    REFUSED = auto()  # the broker does not accept this key
    UNRESOLVED = auto()  # the endpoint's name does not resolve
    MISMATCHED = auto()  # the handshake failed: the server is no broker, or a proxy whose broker does not run
    FORGED = auto()  # the handshake failed with a broker that greets: its key is not the one that is pinned


class Sent(Enum):
    """Outcome of sending a reply."""

    DONE = auto()
    FULL = auto()  # the peer does not read; it may send the request again
    GONE = auto()  # the peer is no longer connected


class Incoming(NamedTuple):
    """Message that the ROUTER received: routing id of its peer, key (Z85) that the broker accepted, and frames."""

    peer: bytes
    key: str
    frames: Frames


Accept = Callable[[Iterable[Incoming]], None]
"""Callback for messages that have arrived; it takes each once, and may send while it takes them."""


class Subscription(NamedTuple):
    """Start (`wanted`) or end of a subscription; `key` (Z85) is the subscriber's; None: its connection ended."""

    topic: bytes
    wanted: bool
    key: str | None


ALL_LISTENERS_LEFT: Final = Subscription(b"", wanted=False, key="")
"""The end of all subscriptions at once, as when the relay has ended."""


class Closing(Protocol):
    """Socket of any of the four kinds."""

    def close(self) -> None:
        """Close at once; queued messages are dropped."""


class Reading(Closing, Protocol):
    """Socket of a client or an agent, which receives messages."""

    async def read(self, accept: Callable[[Frames], None]) -> None:
        """Receive messages until cancelled, and call `accept` with each; `accept` must not wait."""
        ...


class Dealer(Reading, Protocol):
    """Connection to one broker; it never reconnects by itself."""

    def send(self, frames: Sequence[bytes]) -> bool:
        """Queue a message without waiting; False when the queue is full."""
        ...

    async def ended(self) -> Ending:
        """Wait until the connection has ended, and return why."""
        ...

    def progress(self) -> int:
        """Return the bytes known to have moved, either way; 0 until the broker's handshake, or if they are not known.

        The count rises while a message is in transit, and not after the receiving end has acknowledged all of it.
        """
        ...


class Subscriber(Reading, Protocol):
    """SUB socket, which reconnects by itself and then subscribes again."""

    def subscribe(self, topic: bytes) -> None:
        """Subscribe to `topic`."""

    def unsubscribe(self, topic: bytes) -> None:
        """End the subscription to `topic`."""


class Peer(Subscriber, Protocol):
    """Connection to the live events of another broker; it never reconnects by itself."""

    async def ended(self) -> Ending:
        """Wait until the connection has ended, and return why."""
        ...


class Router(Closing, Protocol):
    """The broker's socket for requests."""

    endpoint: str

    async def serve(self, accept: Accept) -> None:
        """Receive messages until cancelled: call `accept` with those that have arrived, as often as some have."""
        ...

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        """Send to one peer without waiting."""
        ...


class Publisher(Closing, Protocol):
    """The broker's socket for live events."""

    endpoint: str

    def publish(self, frames: Sequence[bytes]) -> None:
        """Send to all subscribers; a subscriber whose queue is full misses the message."""

    async def subscriptions(self) -> list[Subscription]:
        """Receive the subscriptions that began or ended, also repeats by one subscriber; wait for the first."""
        ...


class PeerPublisher(Publisher, Protocol):
    """Socket for live events of a broker that has peers: listeners here hear what is published at a peer too."""

    def join(self, hint_topic: bytes, hear: Callable[[bytes], None]) -> None:
        """Call `hear` with each message that a peer publishes under its `hint_topic`; `hear` must not wait."""

    def set_peers(self, endpoints: Sequence[str]) -> None:
        """Connect to exactly these peers, by the endpoints of their live events; a repeat changes nothing."""

    @property
    def parted(self) -> bool:
        """Whether a peer is not connected now, so that what it publishes does not come here."""
        ...

    def replay_all(self) -> None:
        """Make all listeners replay, here and at the peers: live events may never have been published."""


class Network(Protocol):
    """Network of a client or an agent, which connects to brokers."""

    def dealer(self, endpoint: str) -> Dealer:
        """Open a connection for requests."""
        ...

    def subscriber(self, endpoint: str) -> Subscriber:
        """Open a connection for live events."""
        ...
