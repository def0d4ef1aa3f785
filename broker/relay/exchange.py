"""Exchange of live events between the subscribers here, this broker, and the other brokers of its fleet.

```
 broker ──publish──► Exchange ──topic────────► monitors
                       │  ▲ └───0x01 + topic──► peers, which subscribed to it
   hint ◄──hear────────┘  └──── 0x01 + topic─── peers: sent on as `topic`, to the monitors only
```

- A topic that the broker has accepted here (it confirms the subscription with an empty message) is subscribed at each
  peer, until its last listener leaves. Segments pass unopened.
- A monitor is welcomed once each peer has welcomed the topic, or after `WELCOME_S`: from then on it hears what is
  published anywhere. A peer that welcomes a topic later, or again after its connection was lost, may have published
  what nobody here has heard; its welcome is sent on, and monitors replay.
- What came from a peer is never sent to a peer.

Without peers, everything goes straight through. It runs over ports only: in the relay process over CURVE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from airunner.broker.relay.links import Connect, PeerLink
from airunner.broker.relay.listeners import Listeners
from airunner.protocol.frames import PEER_TOPIC, PEER_TOPIC_BYTES
from airunner.transport.bell import Bell
from airunner.transport.ports import DRAIN_MESSAGES_MAX, Ending, Frames, Publisher, Subscription

WELCOME_S: Final = 2.0  # seconds until a monitor is welcomed, though a peer has not welcomed its topic
WELCOME: Final = b""  # payload of the message that welcomes (confirms) a subscription

Report = Callable[[str, Ending | None], None]
"""Callback for the endpoint of a peer whose connection has ended, and why; None: the peer is connected."""


def _ignore(_sealed: bytes) -> None:
    """Ignore hints: the broker has not joined a fleet."""


def _report_nothing(_endpoint: str, _ending: Ending | None) -> None:
    """Report no connections of peers."""


class Exchange:
    """Exchange around the socket `publisher`; see `ports.PeerPublisher`. `connect` makes connections to peers."""

    def __init__(
        self,
        publisher: Publisher,
        connect: Connect,
        listeners: Listeners,
        random: Callable[[], float],
        report: Report = _report_nothing,
    ) -> None:
        self.endpoint = publisher.endpoint
        self._publisher = publisher
        self._connect = connect
        self._listeners = listeners
        self._random = random
        self._report = report
        self._hear: Callable[[bytes], None] = _ignore
        self._hint_topic: bytes | None = None
        self._group: TaskGroup | None = None
        self._links: dict[str, PeerLink] = {}  # by endpoint
        self._accepted: set[bytes] = set()  # topics of listeners here that the broker has confirmed
        self._unwelcomed: dict[bytes, float] = {}  # by topic: when its listeners are welcomed at the latest
        self._waits = Bell()
        self._replaying = anyio.CancelScope()

    async def run(self) -> None:
        """Keep the links to the peers, and welcome late, until cancelled."""
        async with anyio.create_task_group() as self._group:
            for link in self._links.values():
                self._group.start_soon(link.run)
            await self._welcome_late()

    def publish(self, frames: Sequence[bytes]) -> None:
        """Publish a message of the broker, to listeners here and at peers; or welcome those of one topic here."""
        topic, payload = frames
        if len(topic) == PEER_TOPIC_BYTES:
            self._publisher.publish(frames)
        elif payload == WELCOME:
            self._accept(topic)
        else:
            self._publisher.publish(frames)
            if self._listeners.has_peer(topic):
                self._publisher.publish([PEER_TOPIC + topic, payload])

    async def subscriptions(self) -> list[Subscription]:
        """Receive the changes of subscriptions that concern the broker; wait for the first."""
        while True:
            changes = await self._publisher.subscriptions()
            now_ms = int(anyio.current_time() * 1_000)
            changes = [change for change in changes if self._listeners.record(change, now_ms)]
            if reported := [change for change in changes if not self._is_of_hints(change)]:
                return reported

    def join(self, hint_topic: bytes, hear: Callable[[bytes], None]) -> None:
        """See `ports.PeerPublisher`."""
        self._hint_topic, self._hear = hint_topic, hear

    def set_peers(self, endpoints: Sequence[str]) -> None:
        """See `ports.PeerPublisher`."""
        for endpoint in [known for known in self._links if known not in endpoints]:
            self._links.pop(endpoint).scope.cancel()
        for endpoint in endpoints:
            if endpoint not in self._links:
                link = PeerLink(endpoint, self._connect, self._topics, self._receive, self._ended, self._random)
                self._links[endpoint] = link
                if self._group is not None:
                    self._group.start_soon(link.run)
        for topic in list(self._unwelcomed):
            self._welcome_if_due(topic)

    @property
    def parted(self) -> bool:
        """See `ports.PeerPublisher`."""
        return any(self._hint_topic not in link.welcomed for link in self._links.values())

    def replay_all(self) -> None:
        """See `ports.PeerPublisher`."""
        assert self._group is not None, "not running"
        self._replaying.cancel()  # this one covers what that one has left
        self._replaying = anyio.CancelScope()
        self._group.start_soon(self._replay_all, self._replaying)

    def close(self) -> None:
        """Close the socket."""
        self._publisher.close()

    def _is_of_hints(self, change: Subscription) -> bool:
        """Welcome a peer's subscription to hints, which each broker publishes anyway; unsubscribe where nobody listens.

        Returns whether the change needs no report.
        """
        if change.topic == PEER_TOPIC + (self._hint_topic or b""):
            if change.wanted:
                self._publisher.publish([change.topic, WELCOME])
            return True
        if not (change.wanted or self._listeners.has(change.topic)):
            self._leave(change.topic)
        return False

    def _topics(self) -> list[bytes]:
        """List the topics to subscribe to at a peer; hints first."""
        return [*([] if self._hint_topic is None else [self._hint_topic]), *self._accepted]

    def _accept(self, topic: bytes) -> None:
        """Welcome the listeners of a topic, once the peers have welcomed it."""
        if not self._listeners.has(topic):  # they have left meanwhile
            self._publisher.publish([topic, WELCOME])
            return
        if topic not in self._accepted:
            self._accepted.add(topic)
            for link in self._links.values():
                link.subscribe(topic)
        self._unwelcomed.setdefault(topic, anyio.current_time() + WELCOME_S)
        self._welcome_if_due(topic)
        if topic in self._unwelcomed:
            self._waits.ring()

    def _leave(self, topic: bytes) -> None:
        """End the subscriptions of a topic that has no listeners here any more."""
        self._unwelcomed.pop(topic, None)
        if topic in self._accepted:
            self._accepted.remove(topic)
            for link in self._links.values():
                link.unsubscribe(topic)

    def _receive(self, link: PeerLink, frames: Frames) -> None:
        """Receive a message of a peer: a segment or a welcome for the listeners here, or a hint for the broker."""
        if len(frames) != 2 or len(frames[0]) != PEER_TOPIC_BYTES:  # noqa: PLR2004 - topic and payload
            return
        topic, payload = frames[0].removeprefix(PEER_TOPIC), frames[1]
        if payload == WELCOME:
            link.welcome(topic)
        if topic == self._hint_topic:
            if payload == WELCOME:
                self._report(link.endpoint, None)
            else:
                self._hear(payload)
        elif topic not in self._accepted:
            return  # its last listener has left meanwhile
        elif payload == WELCOME and topic in self._unwelcomed:
            self._welcome_if_due(topic)
        else:
            self._publisher.publish([topic, payload])

    def _ended(self, link: PeerLink, ending: Ending) -> None:
        self._report(link.endpoint, ending)

    def _welcome_if_due(self, topic: bytes) -> None:
        """Welcome the listeners of a topic here if all peers have welcomed it."""
        if all(topic in link.welcomed for link in self._links.values()):
            self._unwelcomed.pop(topic)
            self._publisher.publish([topic, WELCOME])

    async def _welcome_late(self) -> None:
        """Welcome listeners for whose topic some peer's welcome has not come in time."""
        while True:
            while self._unwelcomed:
                topic, due_s = next(iter(self._unwelcomed.items()))  # the earliest: each waits for as long
                if due_s <= anyio.current_time():
                    del self._unwelcomed[topic]
                    self._publisher.publish([topic, WELCOME])
                else:
                    await anyio.sleep_until(due_s)
            await self._waits.wait()

    async def _replay_all(self, scope: anyio.CancelScope) -> None:
        """Welcome every listener again, here and at the peers: it then replays."""
        topics = [*self._listeners.topics, *(PEER_TOPIC + topic for topic in self._listeners.peer_topics)]
        with scope:
            for number, topic in enumerate(topics):
                if number % DRAIN_MESSAGES_MAX == 0:
                    await anyio.lowlevel.checkpoint()
                self._publisher.publish([topic, WELCOME])
