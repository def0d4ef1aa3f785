"""The relay's listeners: which subscriptions the broker is told of. Pure.

A machine may subscribe so often a second; what is beyond stands in libzmq, but the broker hears nothing of it and
announces nothing for it. Of a connection that has ended libzmq says only what it had subscribed to, not whose it was:
those that the broker was not told of are taken to have left first.
"""

from __future__ import annotations

from typing import Final

from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.protocol.errors import Quota
from airunner.protocol.frames import TOPIC_BYTES
from airunner.transport.ports import Subscription

SUBSCRIPTIONS_A_SECOND: Final = 1_000.0  # of one machine; what the broker does for each takes some 10 µs
BURST_S: Final = 10.0  # as when a client that follows thousands of jobs comes back


class Listeners:
    """Of all topics; what it keeps of one is less than what libzmq does."""

    def __init__(self) -> None:
        self._rates = Rates(SUBSCRIPTIONS_A_SECOND, BURST_S)
        self._told: dict[bytes, int] = {}
        self._untold: dict[bytes, int] = {}

    def tells(self, change: Subscription, now_ms: int) -> bool:
        """Whether the broker is to hear of this."""
        if len(change.topic) != TOPIC_BYTES:
            return False
        if change.wanted:
            told = self._in_time(change.key, now_ms)
            counts = self._told if told else self._untold
            counts[change.topic] = counts.get(change.topic, 0) + 1
            return told
        return not _one_less(self._untold, change.topic) and _one_less(self._told, change.topic)

    def _in_time(self, key: str | None, now_ms: int) -> bool:
        assert key is not None, "somebody has sent it"
        bucket = Bucket(key, Purpose.MACHINE)
        try:
            self._rates.require(bucket, now_ms)
        except Quota:
            return False
        self._rates.charge(bucket, 1, now_ms)
        return True


def _one_less(counts: dict[bytes, int], topic: bytes) -> bool:
    """Whether there was one."""
    count = counts.pop(topic, 0)
    if count > 1:
        counts[topic] = count - 1
    return count > 0
