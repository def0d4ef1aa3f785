"""Which jobs' live events are listened to, by how many, and how many jobs each tenant may listen to. Pure.

The Gateway asks before it hands a watch key out; the Announcer tells what is subscribed and what is left, and asks who
is there to hear.

To a tenant's bound a job counts once, however many listen to it: what it costs the broker is to seal and send its
events. A key that was handed out counts for `GRANT_MS`, until its topic is subscribed; and again whenever that is
subscribed anew, as after a lost connection. Topics can be seen by whoever listens to everything, so only the machines
that were handed a key count as its listeners: nobody uses up what is another tenant's. Where another broker, before
this one, has handed the key out, the tenant is not known; such topics are served.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Final, NamedTuple

from airunner.protocol.errors import Quota

GRANT_MS: Final = 30_000  # a client subscribes as soon as it has the key, or tries for some seconds
TOPICS_MAX: Final = 200_000  # whose tenant is remembered; the one that was handed out longest ago is forgotten
MACHINES_MAX: Final = 64  # that were handed one key; the first is forgotten
LISTENED_MAX: Final = 100_000  # topics that are counted; beyond it everything is announced, heard or not


class _Granted(NamedTuple):
    """Whose a topic is, and which machines' keys it was handed to, the last at the end."""

    tenant: str
    machines: dict[str, None]


class Watchers:
    """Of all tenants; without a bound everybody may listen to everything of his own."""

    def __init__(self, watched_max: int | None = None) -> None:
        self._watched_max = watched_max
        self._granted: dict[bytes, _Granted] = {}  # by topic, those handed out last at the end
        self._watched: defaultdict[str, dict[bytes, float]] = defaultdict(dict)  # topics, until when each counts (ms)
        self._listeners: dict[bytes, int] = {}

    def grant(self, tenant: str, topic: bytes, machine: str, now_ms: int) -> None:
        """A watch key is about to be handed to a machine.

        Raises `Quota`, where the tenant listens to as many jobs as it may.
        """
        if self._watched_max is None:
            return
        watched = self._watched[tenant]
        if topic not in watched:
            for lapsed in [one for one, until_ms in watched.items() if until_ms <= now_ms]:
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
        """Whether whoever subscribes now is to be served."""
        granted = self._granted.get(topic)
        if granted is not None:
            if machine not in granted.machines or not self._has_room(granted.tenant, topic):
                return False
            self._watched[granted.tenant][topic] = math.inf
        if topic in self._listeners or len(self._listeners) < LISTENED_MAX:
            self._listeners[topic] = self._listeners.get(topic, 0) + 1
        return True

    def left(self, topic: bytes, machine: str | None) -> None:
        """One listener less; of a connection that has ended nobody knows the `machine`."""
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

    def everybody_left(self, now_ms: int) -> None:
        """Nobody listens; those who did may come back, and have their places kept for as long as with a new key."""
        self._listeners.clear()
        for watched in self._watched.values():
            for topic, until_ms in watched.items():
                watched[topic] = min(until_ms, now_ms + GRANT_MS)

    def heard(self, topic: bytes) -> bool:
        """Whether anybody may listen to it."""
        return topic in self._listeners or len(self._listeners) >= LISTENED_MAX

    def _has_room(self, tenant: str, topic: bytes) -> bool:
        """Whether the tenant may listen to this job: keys can be collected, and subscribed to all at once."""
        assert self._watched_max is not None, "else nothing is remembered"
        watched = self._watched[tenant]
        others = sum(until_ms == math.inf for one, until_ms in watched.items() if one != topic)
        return others < self._watched_max
