"""To how many jobs' live events each tenant listens, and may. Pure.

The Gateway asks before it hands a watch key out, and the Announcer tells what is subscribed and what is left.

A job counts once, however many listen to it: what it costs the broker is to seal and send its events. A key that was
handed out counts for `GRANT_MS`, until its topic is subscribed; and again whenever that is subscribed anew, as after a
lost connection.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Final

from airunner.protocol.errors import Quota

GRANT_MS: Final = 30_000  # a client subscribes as soon as it has the key, or tries for some seconds
TOPICS_MAX: Final = 200_000  # whose tenant is remembered; the one that was handed out longest ago is forgotten


class Watchers:
    """Of all tenants; without a bound everybody may listen to everything of his own."""

    def __init__(self, watched_max: int | None = None) -> None:
        self._watched_max = watched_max
        self._tenants: dict[bytes, str] = {}  # by topic, those handed out last at the end
        self._watched: defaultdict[str, dict[bytes, float]] = defaultdict(dict)  # topics, until when each counts (ms)

    def grant(self, tenant: str, topic: bytes, now_ms: int) -> None:
        """A watch key is about to be handed out. Raises `Quota`, where the tenant has as many as it may have."""
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
        self._tenants.pop(topic, None)
        self._tenants[topic] = tenant
        while len(self._tenants) > TOPICS_MAX:
            forgotten = next(iter(self._tenants))
            self._watched[self._tenants.pop(forgotten)].pop(forgotten, None)
        watched[topic] = max(watched.get(topic, 0), now_ms + GRANT_MS)

    def subscribed(self, topic: bytes) -> None:
        """Somebody listens."""
        if (tenant := self._tenants.get(topic)) is not None:
            self._watched[tenant][topic] = math.inf

    def left(self, topic: bytes) -> None:
        """Nobody listens any more."""
        if (tenant := self._tenants.get(topic)) is not None:
            self._watched[tenant].pop(topic, None)
            if not self._watched[tenant]:
                del self._watched[tenant]
