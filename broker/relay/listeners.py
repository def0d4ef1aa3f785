"""Subscriptions at the relay: decides which of them are reported to the broker. Pure.

A machine may subscribe a limited number of times a second. libzmq accepts further subscriptions, but they are not
reported to the broker, which publishes nothing for them. When a connection ends, libzmq reports its topics, but not its
machine. So any end of a subscription is counted as that of an unreported one, as long as its topic has one.
"""

from __future__ import annotations

from typing import Final

from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.protocol.frames import TOPIC_BYTES
from airunner.transport.ports import Subscription

SUBSCRIPTIONS_A_SECOND: Final = 1_000.0  # subscriptions of one machine; each takes the broker some 10 µs
BURST_S: Final = 10.0  # seconds of that rate at once: a client that follows thousands of jobs may reconnect


class Listeners:
    """Subscriptions to all topics, counted; libzmq needs more memory for them than this class."""

    def __init__(self) -> None:
        self._rates = Rates(SUBSCRIPTIONS_A_SECOND, BURST_S)
        self._reported: dict[bytes, int] = {}
        self._unreported: dict[bytes, int] = {}

    def record(self, change: Subscription, now_ms: int) -> bool:
        """Count a change, and decide whether to report it to the broker."""
        if len(change.topic) != TOPIC_BYTES:
            return False
        if change.wanted:
            assert change.key is not None, "subscription without a sender"
            reported = self._rates.take(Bucket(change.key, Purpose.MACHINE), now_ms)
            counts = self._reported if reported else self._unreported
            counts[change.topic] = counts.get(change.topic, 0) + 1
            return reported
        return not _one_less(self._unreported, change.topic) and _one_less(self._reported, change.topic)


def _one_less(counts: dict[bytes, int], topic: bytes) -> bool:
    """Subtract one from a topic's count; False: it was zero."""
    count = counts.pop(topic, 0)
    if count > 1:
        counts[topic] = count - 1
    return count > 0
