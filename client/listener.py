"""The Listener: owns the sockets of live events, one for each broker, shared by all follows of a client.

It says to each follow what came under its topic: an empty payload means that the subscription stands. A
follow that is slow misses payloads here and asks for them again; nothing waits for it, and nothing grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct, field

from airunner.certs.edges import Network, Subscriber
from airunner.protocol.frames import TOPIC_BYTES

LIVE_MAX = 256  # payloads that wait for one follow


class Ear:
    """What one follow hears: `payloads`, and whether any were missed since it last asked."""

    def __init__(self) -> None:
        self._payloads: list[bytes] = []
        self._missed = False
        self._heard = anyio.Event()

    def hear(self, payload: bytes) -> None:
        """Take one in, or note that it was missed."""
        if len(self._payloads) < LIVE_MAX:
            self._payloads.append(payload)
        else:
            self._missed = True
        self._heard.set()

    async def wait(self) -> None:
        """Until something was heard."""
        await self._heard.wait()

    def take(self) -> tuple[list[bytes], bool]:
        """What was heard, and whether something was missed."""
        taken = self._payloads, self._missed
        self._payloads, self._missed = [], False
        self._heard = anyio.Event()
        return taken


class _Topic(Struct):
    ears: list[Ear] = field(default_factory=list)
    stands: bool = False


class _Line(Struct):
    subscriber: Subscriber
    topics: dict[bytes, _Topic] = field(default_factory=dict)


class Listener:
    """The actor; its readers run in `group`."""

    def __init__(self, network: Network, group: TaskGroup) -> None:
        self._network = network
        self._group = group
        self._lines: dict[str, _Line] = {}

    @contextmanager
    def listen(self, endpoint: str, topic: bytes) -> Iterator[Ear]:
        """An ear for `topic` at `endpoint`, as long as the context lasts."""
        line = self._lines.get(endpoint) or self._open(endpoint)
        heard = line.topics.get(topic)
        if heard is None:
            heard = line.topics[topic] = _Topic()
            line.subscriber.subscribe(topic)
        ear = Ear()
        heard.ears.append(ear)
        if heard.stands:
            ear.hear(b"")
        try:
            yield ear
        finally:
            heard.ears.remove(ear)
            if not heard.ears:
                del line.topics[topic]
                line.subscriber.unsubscribe(topic)

    def _open(self, endpoint: str) -> _Line:
        line = _Line(self._network.subscriber(endpoint))
        self._lines[endpoint] = line
        self._group.start_soon(self._read, line)
        return line

    async def _read(self, line: _Line) -> None:
        try:
            while True:
                for frames in await line.subscriber.receive():
                    if len(frames) == 2 and len(frames[0]) == TOPIC_BYTES:
                        self._tell(line, frames[0], frames[1])
        finally:
            line.subscriber.close()

    @staticmethod
    def _tell(line: _Line, name: bytes, payload: bytes) -> None:
        topic = line.topics.get(name)
        if topic is None:
            return
        topic.stands |= not payload
        for ear in topic.ears:
            ear.hear(payload)
