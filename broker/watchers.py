"""Watchers of live events: counts the listeners of each job, and bounds how many jobs a tenant listens to. Pure.

The Gateway asks before it hands a watch key out; the Announcer reports subscriptions and their ends, and asks whether a
job has listeners.

A job counts once towards its tenant's bound, however many listen to it: its cost is sealing and sending its events. A
key that was handed out counts for `GRANT_MS`, until its topic is subscribed; and again whenever that is subscribed
again, as after a lost connection. Any peer that subscribes to everything sees topics, so only the machines that were
handed a key count as its listeners: no machine uses up another tenant's bound. Where a broker before this one has
handed the key out, the tenant is not known; such topics are served.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Final, NamedTuple

from airunner.protocol.errors import Quota

GRANT_MS: Final = 30_000  # a client subscribes as soon as it has the key, or tries for some seconds
TOPICS_MAX: Final = 200_000  # whose tenant is remembered; the one granted longest ago is forgotten
MACHINES_MAX: Final = 64  # that were handed one key; the first is forgotten
LISTENED_MAX: Final = 100_000  # topics that are counted; beyond it every job's events are published


class _Granted(NamedTuple):
    """Grant of a topic: its tenant, and the machines' keys it was handed to, the last at the end."""

    tenant: str
    machines: dict[str, None]


class Watchers:
    """Watchers of all tenants; without `watched_max` a tenant may listen to all of its jobs."""

    def __init__(self, watched_max: int | None = None) -> None:
        self._watched_max = watched_max
        self._granted: dict[bytes, _Granted] = {}  # by topic, those handed out last at the end
        self._watched: defaultdict[str, dict[bytes, float]] = defaultdict(dict)  # topics, until when each counts (ms)
        self._listeners: dict[bytes, int] = {}

    def grant(self, tenant: str, topic: bytes, machine: str, now_ms: int) -> None:
        """Grant a machine the watch key of a topic.

        Raises `Quota`, where the tenant listens to as many jobs as it may.
        """
        if self._watched_max is None:
            return
        watched = self._watched[tenant]
        if topic not in watched:
            for lapsed in [known for known, until_ms in watched.items() if until_ms <= now_ms]:
                del watched[lapsed]
            if len(watched) >= self._watched_max:
                raise Quota(
                    f"this tenant listens to {len(watched)} jobs, and {self._watched_max} are the most: "
                    "end a monitor, or look again later"
                )
        _, machines = self._granted.pop(topic, _Granted(tenant, {}))
        machines.pop(machine, None)
        machines[machine] = None
        if len(machines) > MACHINES_MAX:
            del machines[next(iter(machines))]
        self._granted[topic] = _Granted(tenant, machines)
        while len(self._granted) > TOPICS_MAX:
            forgotten = next(iter(self._granted))
            self._watched[self._granted.pop(forgotten).tenant].pop(forgotten, None)
        watched[topic] = max(watched.get(topic, 0), now_ms + GRANT_MS)

    def subscribed(self, topic: bytes, machine: str | None) -> bool:
        """Count a new subscription; False where its machine is not to be served."""
        granted = self._granted.get(topic)
        if granted is not None:
            if machine not in granted.machines or not self._has_room(granted.tenant, topic):
                return False
            self._watched[granted.tenant][topic] = math.inf
        if topic in self._listeners or len(self._listeners) < LISTENED_MAX:
            self._listeners[topic] = self._listeners.get(topic, 0) + 1
        return True

    def left(self, topic: bytes, machine: str | None) -> None:
        """Count the end of a subscription; `machine` is None where its connection has ended."""
        granted = self._granted.get(topic)
        if granted is not None and machine is not None and machine not in granted.machines:
            return
        left = self._listeners.pop(topic, 0) - 1
        if left > 0:
            self._listeners[topic] = left
        elif granted is not None:
            self._watched[granted.tenant].pop(topic, None)
            if not self._watched[granted.tenant]:
                del self._watched[granted.tenant]

    def all_listeners_left(self, now_ms: int) -> None:
        """Forget all listeners; their topics still count for `GRANT_MS`, so that they may come back."""
        self._listeners.clear()
        for watched in self._watched.values():
            for topic, until_ms in watched.items():
                watched[topic] = min(until_ms, now_ms + GRANT_MS)

    def listen(self) -> bool:
        """Check whether any topic has listeners."""
        return bool(self._listeners)

    def heard(self, topic: bytes) -> bool:
        """Check whether a topic may have listeners."""
        return topic in self._listeners or len(self._listeners) >= LISTENED_MAX

    def _has_room(self, tenant: str, topic: bytes) -> bool:
        """Check the tenant's bound again: a machine can collect keys and subscribe to all of them at once."""
        assert self._watched_max is not None, "without a bound no grant is remembered"
        watched = self._watched[tenant]
        others = sum(until_ms == math.inf for known, until_ms in watched.items() if known != topic)
        return others < self._watched_max
