"""Live events: owns one SUB socket for each broker and hands each message to the listeners of its topic.

However many jobs a client follows, there is one connection. A listener is a plain function and must not wait: it drops
messages for which it has no room, and replays them from the broker later.

An endpoint without listeners stays connected, because the client is likely to follow its next job there, and is closed
when another endpoint is opened.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from airunner.protocol.frames import TOPIC_BYTES
from airunner.transport.ports import Network, Subscriber

Hear = Callable[[bytes], None]
"""Listener: receives each sealed segment; an empty one confirms the subscription."""


class _Topic:
    """Topic of a job: its listeners, and whether the broker has confirmed the subscription."""

    def __init__(self) -> None:
        self.listeners: list[Hear] = []
        self.stands = False


class _Door:
    """Socket of an endpoint, and its topics."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.topics: dict[bytes, _Topic] = {}
        self.scope = anyio.CancelScope()
        self.closed = False

    async def run(self) -> None:
        """Hand messages to listeners until the scope is cancelled."""
        try:
            with self.scope:
                while True:
                    for frames in await self.subscriber.receive():
                        self._hand_on(frames)
        finally:
            self.closed = True
            self.subscriber.close()

    def _hand_on(self, frames: list[bytes]) -> None:
        match frames:
            case [topic, payload] if len(topic) == TOPIC_BYTES:
                pass
            case _:
                return
        heard = self.topics.get(topic)
        if heard is None:
            return
        heard.stands = heard.stands or not payload
        for hear in tuple(heard.listeners):
            hear(payload)


class Listening:
    """Registration of a listener; `close` ends it."""

    def __init__(self, door: _Door, topic: bytes, hear: Hear) -> None:
        self._door = door
        self._topic = topic
        self._hear = hear

    def close(self) -> None:
        """Stop listening; the last listener of a topic unsubscribes from it."""
        heard = self._door.topics.get(self._topic)
        if heard is None or self._hear not in heard.listeners:
            return
        heard.listeners.remove(self._hear)
        if not heard.listeners:
            del self._door.topics[self._topic]
            if not self._door.closed:
                self._door.subscriber.unsubscribe(self._topic)


class LiveEvents:
    """Live events of a client: its sockets, which run in `group`."""

    def __init__(self, network: Network, group: TaskGroup) -> None:
        self._network = network
        self._group = group
        self._doors: dict[str, _Door] = {}

    def listen(self, endpoint: str, topic: bytes, hear: Hear) -> Listening:
        """Call `hear` with every message that is published under `topic`."""
        door = self._doors.get(endpoint) or self._open(endpoint)
        heard = door.topics.get(topic)
        if heard is None:
            heard = door.topics[topic] = _Topic()
            door.subscriber.subscribe(topic)
        heard.listeners.append(hear)
        if heard.stands:
            hear(b"")  # the broker says it once for each socket
        return Listening(door, topic, hear)

    def _open(self, endpoint: str) -> _Door:
        for other, door in list(self._doors.items()):
            if not door.topics:
                door.scope.cancel()
                del self._doors[other]
        opened = self._doors[endpoint] = _Door(self._network.subscriber(endpoint))
        self._group.start_soon(opened.run, name=f"live events of {endpoint}")
        return opened
