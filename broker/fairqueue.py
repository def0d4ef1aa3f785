"""The Ledger's inbox: a lane for each tenant, and turns between them.

What a tenant asks waits behind its own requests and not behind those of others: the Ledger takes from each lane in
turn, and goes round. A lane is bounded, in requests and in bytes; when it is full its tenant is told that we are busy,
and nobody else is. What the broker itself has to do (expiries, retention, to follow a step of the time) comes
first: it is one thing at a time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio
import anyio.lowlevel
from anyio import WouldBlock

from airunner.broker.inbox import Asked, Between
from airunner.broker.lifecycle.commands import Expire, Resume, Retain
from airunner.transport.bell import Bell

LANE_ASKS_MAX: Final = 2_048
LANE_BYTES_MAX: Final = 33_554_432
ASKS_MAX: Final = 16_384  # of all tenants together

Own = Expire | Resume | Retain | Between
Entry = Asked | Own


class Turns:
    """Senders never wait; one task receives."""

    def __init__(self) -> None:
        self._own: deque[Own] = deque()
        self._lanes: dict[str, deque[Asked]] = {}  # none is empty; the first is next
        self._bytes: dict[str, int] = {}
        self._asks = 0
        self._came = Bell()

    def send_nowait(self, entry: Entry) -> None:
        """Raises `WouldBlock`: the tenant's lane is full, or all are."""
        if isinstance(entry, Asked):
            self._put(entry)
        else:
            self._own.append(entry)  # bounded: each of those who send here waits for what comes of it
        self._came.ring()

    async def send(self, entry: Own) -> None:
        """The same, for the broker's own actors."""
        await anyio.lowlevel.checkpoint()
        self.send_nowait(entry)

    async def receive(self) -> Entry:
        """The next; waits for it."""
        while True:
            try:
                return self.receive_nowait()
            except WouldBlock:
                await self._came.wait()

    def next(self) -> Entry | None:
        """What would be received now."""
        if self._own:
            return self._own[0]
        return next(iter(self._lanes.values()))[0] if self._lanes else None

    def receive_nowait(self) -> Entry:
        """Raises `WouldBlock`: there is nothing."""
        if self._own:
            return self._own.popleft()
        if not self._lanes:
            raise WouldBlock
        tenant = next(iter(self._lanes))
        lane = self._lanes.pop(tenant)
        asked = lane.popleft()
        self._asks -= 1
        self._bytes[tenant] -= asked.size_bytes
        if lane:
            self._lanes[tenant] = lane  # behind the others
        else:
            del self._bytes[tenant]
        return asked

    def _put(self, asked: Asked) -> None:
        tenant = asked.ask.tenant
        lane = self._lanes.get(tenant)
        taken = self._bytes.get(tenant, 0)
        if lane is not None and (len(lane) >= LANE_ASKS_MAX or taken + asked.size_bytes > LANE_BYTES_MAX):
            raise WouldBlock
        if self._asks >= ASKS_MAX:
            raise WouldBlock
        if lane is None:
            lane = self._lanes[tenant] = deque()
        lane.append(asked)
        self._bytes[tenant] = taken + asked.size_bytes
        self._asks += 1
