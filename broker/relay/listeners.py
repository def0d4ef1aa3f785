"""Subscriptions at the relay: decides which of them are reported to the broker. Pure.

A machine may subscribe a limited number of times a second. libzmq accepts further subscriptions, but they are not
reported to the broker, which publishes nothing for them. When a connection ends, libzmq reports its topics, but not its
machine. So any end of a subscription is counted as that of an unreported one, as long as its topic has one.

Other brokers subscribe to *peer topics*, as often as they like, but to a bounded number. Such a subscription of any
other machine is never reported, and neither is its end: it has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.protocol.frames import PEER_TOPIC, PEER_TOPIC_BYTES, TOPIC_BYTES
from airunner.transport.ports import Subscription

SUBSCRIPTIONS_A_SECOND: Final = 1_000.0  # subscriptions of one machine; each takes the broker some 10 µs
BURST_S: Final = 10.0  # seconds of that rate at once: a client that follows thousands of jobs may reconnect
PEER_TOPICS_MAX: Final = 100_000  # topics to which peers subscribe: some 15 MB; more are not reported

IsPeer = Callable[[str], bool]
"""Check of a key (Z85): whether the allow-list has it with the role `broker`."""


class Listeners:
    """Subscriptions to all topics, counted; libzmq needs more memory for them than this class."""

    def __init__(self, is_peer: IsPeer = lambda _key: False) -> None:
        self._rates = Rates(SUBSCRIPTIONS_A_SECOND, BURST_S)
        self._is_peer = is_peer
        self._reported: dict[bytes, int] = {}
        self._unreported: dict[bytes, int] = {}
        self._peers: dict[bytes, int] = {}  # by topic, without its prefix: reported subscriptions of peers

    @property
    def topics(self) -> list[bytes]:
        """Topics with reported listeners."""
        return list(self._reported)

    @property
    def peer_topics(self) -> list[bytes]:
        """Topics, without their prefix, to which peers subscribe."""
        return list(self._peers)

    def has(self, topic: bytes) -> bool:
        """Check whether a topic has reported listeners."""
        return topic in self._reported

    def has_peer(self, topic: bytes) -> bool:
        """Check whether a peer may subscribe to a topic."""
        return topic in self._peers or len(self._peers) >= PEER_TOPICS_MAX

    def record(self, change: Subscription, now_ms: int) -> bool:
        """Count a change, and decide whether to report it to the broker."""
        if len(change.topic) == PEER_TOPIC_BYTES and change.topic.startswith(PEER_TOPIC):
            return self._record_peer(change)
        if len(change.topic) != TOPIC_BYTES:
            return False
        if change.wanted:
            assert change.key is not None, "subscription without a sender"
            reported = self._rates.take(Bucket(change.key, Purpose.MACHINE), now_ms)
            _one_more(self._reported if reported else self._unreported, change.topic)
            return reported
        return not _one_less(self._unreported, change.topic) and _one_less(self._reported, change.topic)

    def _record_peer(self, change: Subscription) -> bool:
        topic = change.topic.removeprefix(PEER_TOPIC)
        may_count = change.key is None or self._is_peer(change.key)
        if change.wanted:
            reported = may_count and (topic in self._peers or len(self._peers) < PEER_TOPICS_MAX)
            _one_more(self._peers if reported else self._unreported, topic if reported else change.topic)
            return reported
        return not _one_less(self._unreported, change.topic) and may_count and _one_less(self._peers, topic)


def _one_more(counts: dict[bytes, int], topic: bytes) -> None:
    counts[topic] = counts.get(topic, 0) + 1


def _one_less(counts: dict[bytes, int], topic: bytes) -> bool:
    """Subtract one from a topic's count; False: it was zero."""
    count = counts.pop(topic, 0)
    if count > 1:
        counts[topic] = count - 1
    return count > 0
