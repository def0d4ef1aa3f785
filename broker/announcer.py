"""The Announcer: owns the PUB socket and says live what has been committed.

What it says is sealed with the job's watch key, under a topic that is a hash of that key: whoever
subscribes to everything learns nothing. What nobody listens to is not even sealed; what a slow listener
misses, it asks the Ledger for. To each new subscription it answers with an empty message on its topic, so
that a monitor knows from when on it hears everything.

A socket counts messages, not bytes. So that what waits for a listener who does not read is bounded in bytes, only
short runs are sent whole: of a long one, and of what follows it in the same batch, only the numbers are sent, and
listeners ask for the events.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec
from msgspec.structs import replace

from airunner.broker.counts import Counts
from airunner.broker.inbox import AnnouncerInbox
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.watchers import Watchers
from airunner.certs.sealed import NONCE_BYTES, seal, topic_of
from airunner.protocol.events import EventSegment, LiveSegment
from airunner.protocol.frames import LIVE_BYTES_MAX, TOPIC_BYTES
from airunner.transport.ports import EVERYBODY_LEFT, Edges, Publisher


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
                self._announce(appended)

    async def _welcome(self) -> None:
        while True:
            for change in await self._publisher.subscriptions():
                topic, wanted, machine = change
                if change == EVERYBODY_LEFT:
                    self._watchers.everybody_left(self._edges.wall_ms())
                elif not wanted:
                    self._watchers.left(topic, machine)
                elif len(topic) == TOPIC_BYTES and self._watchers.subscribed(topic, machine):
                    self._publisher.publish([topic, b""])

    def _announce(self, appended: Sequence[Appended]) -> None:
        """Publish a batch: each job's short runs, and at the end the numbers of what begins with a long one."""
        named: dict[bytes, Appended] = {}  # by topic
        for one in appended:
            topic = topic_of(one.watch_key)
            if not self._watchers.heard(topic):
                continue
            if (before := named.get(topic)) is not None:
                count = one.run.next_sequence - before.run.first_sequence
                named[topic] = Appended(one.watch_key, replace(before.run, count=count))
            elif len(one.run.events) > LIVE_BYTES_MAX:
                named[topic] = Appended(one.watch_key, _named(one.run))
            else:
                self._publish(topic, one)
        for topic, one in named.items():
            self._publish(topic, one)

    def _publish(self, topic: bytes, one: Appended) -> None:
        nonce = self._edges.random_bytes(NONCE_BYTES)
        self._publisher.publish([topic, seal(one.watch_key, self._encoder.encode(one.run), nonce)])
        self._counts.add("announced")


def _named(run: EventSegment) -> LiveSegment:
    """The numbers of a run alone."""
    return LiveSegment(first_sequence=run.first_sequence, count=run.count, attempt=run.attempt)
