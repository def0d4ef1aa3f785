"""Announcer: publishes committed events live, through the relay.

Each message is sealed with the job's watch key, under a topic that is a hash of that key: a peer that subscribes to
everything learns nothing. Events of a job without listeners are not sealed or sent; a slow listener replays the events
that it has missed. The Announcer confirms each subscription that `Watchers` accepts with an empty message on its topic,
so that a monitor knows from when on it receives every event.

Other brokers subscribe for their own listeners: their subscriptions are confirmed too, and need no grant here.

A socket's queue is bounded in messages, not in bytes. To bound it in bytes too, only short segments are published
whole: of a long segment, and of the job's later segments in the same batch, only the sequence numbers are published,
and listeners replay the events. So it is with a compressed segment: it was long, and not every listener decompresses.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from airunner.broker.counts import Counts
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.watchers import Watchers
from airunner.certs.sealed import NONCE_BYTES, seal, topic_of
from airunner.protocol.compression import is_compressed
from airunner.protocol.events import EventSegment, LiveSegment
from airunner.protocol.frames import LIVE_BYTES_MAX, PEER_TOPIC, PEER_TOPIC_BYTES, TOPIC_BYTES
from airunner.transport.ports import ALL_LISTENERS_LEFT, Edges, Publisher


class Announcer:
    """Announcer actor."""

    def __init__(self, publisher: Publisher, edges: Edges, counts: Counts, watchers: Watchers) -> None:
        self._publisher = publisher
        self._edges = edges
        self._counts = counts
        self._watchers = watchers
        self._encoder = msgspec.msgpack.Encoder()

    async def run(self) -> None:
        """Confirm new subscriptions until cancelled."""
        while True:
            for change in await self._publisher.subscriptions():
                topic, wanted, machine = change
                if change == ALL_LISTENERS_LEFT:
                    self._watchers.all_listeners_left(self._edges.wall_ms())
                elif len(topic) == PEER_TOPIC_BYTES:
                    self._record_peer(topic, wanted=wanted)
                elif not wanted:
                    self._watchers.remove_listener(topic, machine)
                elif len(topic) == TOPIC_BYTES and self._watchers.add_listener(topic, machine):
                    self._publisher.publish([topic, b""])

    def _record_peer(self, topic: bytes, *, wanted: bool) -> None:
        """Record that a broker's subscription has begun, and confirm it, or that it has ended."""
        if not wanted:
            self._watchers.remove_peer(topic.removeprefix(PEER_TOPIC))
        else:
            self._watchers.add_peer(topic.removeprefix(PEER_TOPIC))
            self._publisher.publish([topic, b""])

    def send(self, batch: Sequence[Appended], /) -> None:
        """Publish a batch: each job's segments before its first long one, then only the rest's sequence numbers."""
        if not self._watchers.has_listeners():
            return
        shortened: dict[bytes, Appended] = {}  # by topic
        for appended in batch:
            topic = topic_of(appended.watch_key)
            if not self._watchers.has_listener(topic):
                continue
            if (before := shortened.get(topic)) is not None:
                count = appended.segment.next_sequence - before.segment.first_sequence
                shortened[topic] = Appended(appended.watch_key, replace(before.segment, count=count))
            elif len(appended.segment.events) > LIVE_BYTES_MAX or is_compressed(appended.segment.events):
                shortened[topic] = Appended(appended.watch_key, _without_events(appended.segment))
            else:
                self._publish(topic, appended)
        for topic, appended in shortened.items():
            self._publish(topic, appended)

    def _publish(self, topic: bytes, appended: Appended) -> None:
        nonce = self._edges.random_bytes(NONCE_BYTES)
        self._publisher.publish([topic, seal(appended.watch_key, self._encoder.encode(appended.segment), nonce)])
        self._counts.add("announced")


def _without_events(segment: EventSegment) -> LiveSegment:
    """Return the segment without its events: only its sequence numbers are left."""
    return LiveSegment(first_sequence=segment.first_sequence, count=segment.count, attempt=segment.attempt)
