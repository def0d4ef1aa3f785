"""Links: the relay's connections to the other brokers of the fleet, one for each.

A link connects again whenever its connection ends, after a pause, and subscribes to every topic again. A peer welcomes
each subscription with an empty message on its topic: from then on it publishes the topic's events to this link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Final

import anyio

from airunner.protocol.errors import OperatorError
from airunner.protocol.frames import PEER_TOPIC
from airunner.transport.backoff import Backoff
from airunner.transport.ports import Ending, Frames, Peer

RETRY_FIRST_MS: Final = 50  # longest pause before the first further try to connect
RETRY_LAST_MS: Final = 1_000  # longest pause after several failed tries: a peer that is back is found within a second

Connect = Callable[[str], Peer]
"""Connect to the live events at an endpoint. Raises `OperatorError`: it is not an endpoint."""


class PeerLink:
    """Link to the peer at `endpoint`; cancel `scope` to end it.

    `topics` lists those to subscribe to when a connection begins. `receive` is called with each message, and `ended`
    when a connection has ended.
    """

    def __init__(
        self,
        endpoint: str,
        connect: Connect,
        topics: Callable[[], Iterable[bytes]],
        receive: Callable[[PeerLink, Frames], None],
        ended: Callable[[PeerLink, Ending], None],
        random: Callable[[], float],
    ) -> None:
        self.endpoint = endpoint
        self.scope = anyio.CancelScope()
        self.welcomed: set[bytes] = set()  # topics that the peer has welcomed on this connection
        self._connect = connect
        self._topics = topics
        self._receive = receive
        self._ended = ended
        self._backoff = Backoff(random, RETRY_FIRST_MS, RETRY_LAST_MS)
        self._peer: Peer | None = None

    async def run(self) -> None:
        """Keep connected until the scope is cancelled."""
        with self.scope:
            while True:
                self._ended(self, await self._one_connection())
                await self._backoff.pause()

    def welcome(self, topic: bytes) -> None:
        """Note that the peer has welcomed a subscription, and so that the connection works."""
        self.welcomed.add(topic)
        self._backoff.reset()

    def subscribe(self, topic: bytes) -> None:
        """Subscribe to a topic, now or when the next connection begins."""
        if self._peer is not None:
            self._peer.subscribe(PEER_TOPIC + topic)

    def unsubscribe(self, topic: bytes) -> None:
        """End the subscription to a topic."""
        self.welcomed.discard(topic)
        if self._peer is not None:
            self._peer.unsubscribe(PEER_TOPIC + topic)

    async def _one_connection(self) -> Ending:
        try:
            peer = self._connect(self.endpoint)
        except OperatorError:
            return Ending.UNRESOLVED
        ending = Ending.DROPPED
        with closing(peer):
            self._peer = peer
            try:
                for topic in self._topics():
                    peer.subscribe(PEER_TOPIC + topic)
                async with anyio.create_task_group() as group:
                    group.start_soon(peer.read, partial(self._receive, self))
                    ending = await peer.ended()
                    group.cancel_scope.cancel()
            finally:
                self._peer = None
                self.welcomed.clear()
        return ending
