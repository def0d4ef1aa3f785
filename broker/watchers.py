"""Watchers of live events: counts the listeners of each job, and bounds how many jobs a tenant listens to. Pure.

The Gateway calls `grant` before it sends a watch key to a client. The Announcer reports subscriptions and their ends,
and checks whether a job has listeners.

A job counts once towards its tenant's bound, however many clients listen to it, because its events are sealed once. A
granted key counts for `GRANT_MS`, or for as long as its topic has subscribers. A peer that subscribes to everything
sees all topics, so only machines that were granted a topic's key count as its listeners: no machine uses up another
tenant's bound. If an earlier broker has granted a key, its tenant is not known: such topics are served, and not
counted towards a bound. So are those of other brokers of the fleet, which have granted their listeners the keys.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Final, NamedTuple

from airunner.protocol.errors import Quota

GRANT_MS: Final = 30_000  # how long a granted key counts without a subscription; clients take some seconds at most
TOPICS_MAX: Final = 200_000  # topics whose tenant is remembered; the least recently granted is forgotten first
MACHINES_MAX: Final = 64  # machines remembered for one key; the least recently granted is forgotten first
LISTENED_MAX: Final = 100_000  # topics whose listeners are counted; at this number every job's events are published


class _Granted(NamedTuple):
    """Grant of a topic's watch key: its tenant, and the machines (their public keys) that got it, the latest last."""

    tenant: str
    machines: dict[str, None]


class Watchers:
    """Watchers of all tenants; a tenant may listen to `watched_max` jobs at once (None: no bound)."""

    def __init__(self, watched_max: int | None = None) -> None:
        self._watched_max = watched_max
        self._granted: dict[bytes, _Granted] = {}  # by topic, the latest last
        self._watched: defaultdict[str, dict[bytes, float]] = defaultdict(dict)  # by tenant, topic: counts until (ms)
        self._listeners: dict[bytes, int] = {}  # by topic: how many
        self._peers: dict[bytes, int] = {}  # by topic: how many other brokers have listeners

    def grant(self, tenant: str, topic: bytes, machine: str, now_ms: int) -> None:
        """Grant a machine the watch key of a topic.

        Raises `Quota`: the tenant already listens to `watched_max` jobs.
        """
        if self._watched_max is None:
            return
        watched = self._watched[tenant]
        if topic not in watched:
            for lapsed in [known for known, until_ms in watched.items() if until_ms <= now_ms]:
                del watched[lapsed]
            if len(watched) >= self._watched_max:
                raise Quota(
                    f"this tenant listens to {len(watched)} jobs, and its limit is {self._watched_max}: "
                    "end a monitor, or try again later"
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

    def add_listener(self, topic: bytes, machine: str | None) -> bool:
        """Count a new subscription; False: its machine was not granted the key, or its tenant is at its bound."""
        granted = self._granted.get(topic)
        if granted is not None:
            if machine not in granted.machines or not self._has_room(granted.tenant, topic):
                return False
            self._watched[granted.tenant][topic] = math.inf
        if topic in self._listeners or len(self._listeners) < LISTENED_MAX:
            self._listeners[topic] = self._listeners.get(topic, 0) + 1
        return True

    def remove_listener(self, topic: bytes, machine: str | None) -> None:
        """Count the end of a subscription; `machine` is None if it ended with its connection."""
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
        """Forget all listeners; their topics count for another `GRANT_MS`, so that listeners may subscribe again."""
        self._listeners.clear()
        self._peers.clear()
        for watched in self._watched.values():
            for topic, until_ms in watched.items():
                watched[topic] = min(until_ms, now_ms + GRANT_MS)

    def add_peer(self, topic: bytes) -> None:
        """Count another broker that has listeners of a topic; the relay bounds how many topics they are."""
        self._peers[topic] = self._peers.get(topic, 0) + 1

    def remove_peer(self, topic: bytes) -> None:
        """Count another broker less that has listeners of a topic."""
        if (left := self._peers.pop(topic, 0) - 1) > 0:
            self._peers[topic] = left

    def has_listeners(self) -> bool:
        """Check whether any topic has listeners, here or at another broker."""
        return bool(self._listeners or self._peers)

    def has_listener(self, topic: bytes) -> bool:
        """Check whether a topic may have listeners, here or at another broker."""
        return topic in self._listeners or topic in self._peers or len(self._listeners) >= LISTENED_MAX

    def _has_room(self, tenant: str, topic: bytes) -> bool:
        """Check the tenant's bound again: a machine can collect keys and subscribe to all their topics at once."""
        assert self._watched_max is not None, "a grant is remembered, though there is no bound"
        watched = self._watched[tenant]
        others = sum(until_ms == math.inf for known, until_ms in watched.items() if known != topic)
        return others < self._watched_max
