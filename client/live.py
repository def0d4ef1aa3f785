"""Live events: owns one SUB socket for each broker and hands each message to the listeners of its topic.

However many jobs a client follows, it has one connection to each broker. A listener is a plain function and must not
wait: it drops messages for which it has no room, and replays them from the broker later.

A socket without listeners stays connected, because the client is likely to follow its next job there; it is closed when
a socket to another endpoint is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup

from airunner.protocol.frames import TOPIC_BYTES
from airunner.transport.ports import Network, Subscriber

Listener = Callable[[bytes], None]
"""Listener: is called with each sealed segment; an empty segment confirms the subscription."""


class _Endpoint:
    """Socket of an endpoint, and the listeners of its topics."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.listeners: dict[bytes, list[Listener]] = {}
        self.scope = anyio.CancelScope()
        self._subscriber = subscriber
        self._confirmed: set[bytes] = set()  # topics whose subscription the broker has confirmed
        self._closed = False

    async def run(self) -> None:
        """Hand messages to listeners until the scope is cancelled."""
        try:
            with self.scope:
                await self._subscriber.read(self._hand_on)
        finally:
            self._closed = True
            self._subscriber.close()

    def _hand_on(self, frames: list[bytes]) -> None:
        match frames:
            case [topic, payload] if len(topic) == TOPIC_BYTES and topic in self.listeners:
                if not payload:
                    self._confirmed.add(topic)
                for listener in tuple(self.listeners[topic]):
                    listener(payload)
            case _:
                pass  # not a message of this protocol, or a late one: its subscription has ended

    def join(self, topic: bytes, listener: Listener) -> None:
        """Add a listener; the first of a topic subscribes to it."""
        if topic not in self.listeners:
            self._subscriber.subscribe(topic)
        self.listeners.setdefault(topic, []).append(listener)
        if topic in self._confirmed:
            listener(b"")  # the broker confirms a topic only once for each socket

    def leave(self, topic: bytes, listener: Listener) -> None:
        """Remove a listener; the last of a topic unsubscribes from it."""
        listeners = self.listeners.get(topic, [])
        if listener not in listeners:
            return
        listeners.remove(listener)
        if not listeners:
            del self.listeners[topic]
            self._confirmed.discard(topic)
            if not self._closed:
                self._subscriber.unsubscribe(topic)


class LiveEvents:
    """Live events of a client: a socket for each broker; the sockets run in `group`."""

    def __init__(self, network: Network, group: TaskGroup) -> None:
        self._network = network
        self._group = group
        self._endpoints: dict[str, _Endpoint] = {}

    def listen(self, endpoint: str, topic: bytes, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every message that is published under `topic`, until the returned function is called."""
        opened = self._endpoints.get(endpoint) or self._open(endpoint)
        opened.join(topic, listener)
        return partial(opened.leave, topic, listener)

    def _open(self, endpoint: str) -> _Endpoint:
        for other, unused in list(self._endpoints.items()):
            if not unused.listeners:
                unused.scope.cancel()
                del self._endpoints[other]
        opened = self._endpoints[endpoint] = _Endpoint(self._network.subscriber(endpoint))
        self._group.start_soon(opened.run, name=f"live events of {endpoint}")
        return opened
