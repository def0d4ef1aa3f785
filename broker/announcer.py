"""The Announcer: owns the PUB socket and says live what has been committed.

What it says is sealed with the job's watch key, under a topic that is a hash of that key: whoever
subscribes to everything learns nothing. What nobody listens to is not even sealed; what a slow listener
misses, it asks the Ledger for. To each new subscription it answers with an empty message on its topic, so
that a monitor knows from when on it hears everything.
"""

from __future__ import annotations

import anyio
import msgspec

from airunner.broker.counts import Counts
from airunner.broker.inbox import AnnouncerInbox
from airunner.broker.store.contract import Appended
from airunner.broker.watchers import Watchers
from airunner.certs.edges import Edges, Publisher
from airunner.certs.sealed import NONCE_BYTES, seal, topic_of
from airunner.protocol.frames import TOPIC_BYTES


class Announcer:
    """The actor."""

    def __init__(
        self, publisher: Publisher, inbox: AnnouncerInbox, edges: Edges, counts: Counts, watchers: Watchers
    ) -> None:
        self._publisher = publisher
        self._inbox = inbox
        self._edges = edges
        self._counts = counts
        self._watchers = watchers
        self._encoder = msgspec.msgpack.Encoder()

    async def run(self) -> None:
        """Announce for ever."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._welcome)
            async for appended in self._inbox:
                for one in appended:
                    self._announce(one)

    async def _welcome(self) -> None:
        while True:
            for topic, wanted, machine in await self._publisher.subscriptions():
                if not wanted:
                    self._watchers.left(topic, machine)
                elif len(topic) == TOPIC_BYTES and self._watchers.subscribed(topic, machine):
                    self._publisher.publish([topic, b""])

    def _announce(self, one: Appended) -> None:
        topic = topic_of(one.watch_key)
        if not self._watchers.heard(topic):
            return
        nonce = self._edges.random_bytes(NONCE_BYTES)
        self._publisher.publish([topic, seal(one.watch_key, self._encoder.encode(one.run), nonce)])
        self._counts.add("announced")
