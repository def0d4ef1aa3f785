"""Fair queue: the Ledger's inbox, with a lane for each tenant, served by how much work the tenants were.

What a tenant asks waits behind its own requests and not behind those of others. The lane that has been served least
goes next: each request that is taken counts for its price, and `charge` corrects that once its work is measured. So of
two tenants that both ask more than there is, each gets half of the broker's work, however dear the requests of one are.

```
 served   a ██████████      b ███      c ████      next: b, until it has been served as much as c
```

It is deficit round robin in the form of start-time fair queueing (Goyal, Vin and Cheng, 1996): a lane's place is how
much it was served, counted from where the others were when it last became busy. Nothing is saved up while idle, and
nothing owed once no lane is left.

A lane is bounded, in requests and in bytes; when it is full its tenant is told that we are busy, and nobody else is.
What the broker itself has to do (expiries, retention, to follow a step of the time) comes first: it is one thing at a
time.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

import anyio
import anyio.lowlevel
from anyio import WouldBlock

from airunner.broker.inbox import Asked, Between
from airunner.broker.lifecycle.commands import Expire, Resume, Retain
from airunner.broker.requests import price_of
from airunner.transport.bell import Bell

LANE_ASKS_MAX: Final = 2_048
LANE_BYTES_MAX: Final = 33_554_432
ASKS_MAX: Final = 16_384  # of all tenants together
TENANTS_MAX: Final = ASKS_MAX  # whose places are remembered; who was served longest ago is forgotten first

Own = Expire | Resume | Retain | Between
Entry = Asked | Own


class _Lane:
    """One tenant's requests, and where they stand: `place` is how much work it was served, of equals `turn` decides."""

    def __init__(self, place: int, turn: int) -> None:
        self.asks: deque[Asked] = deque()
        self.size_bytes = 0
        self.place = place
        self.turn = turn


class Turns:
    """Senders never wait; one task receives."""

    def __init__(self) -> None:
        self._own: deque[Own] = deque()
        self._lanes: dict[str, _Lane] = {}  # none is empty
        self._order: list[tuple[int, int, str]] = []  # a heap of places, turns and tenants; some are out of date
        self._served: dict[str, int] = {}  # where each tenant stands, in units; the longest ago first
        self._now = 0  # the place of the lane that was served last
        self._turns = 0
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
        return self._lanes[self._first()].asks[0] if self._lanes else None

    def receive_nowait(self) -> Entry:
        """Raises `WouldBlock`: there is nothing."""
        if self._own:
            return self._own.popleft()
        if not self._lanes:
            raise WouldBlock
        tenant = self._first()
        lane = self._lanes[tenant]
        asked = lane.asks.popleft()
        lane.size_bytes -= asked.size_bytes
        self._asks -= 1
        self._now = lane.place
        if lane.asks:
            lane.turn = self._next_turn()
        else:
            del self._lanes[tenant]
        if self._lanes:
            self.charge(tenant, price_of(asked.ask.request))
        else:  # nobody has waited for anybody
            self._served.clear()
            self._order.clear()
        return asked

    def charge(self, tenant: str, units: int) -> None:
        """Count that much work of a tenant's; where its requests were less than their prices say it is negative."""
        place = max(self._now, self._served.pop(tenant, self._now) + units)
        self._served[tenant] = place
        if (lane := self._lanes.get(tenant)) is not None:
            lane.place = place
            heapq.heappush(self._order, (place, lane.turn, tenant))
        while len(self._served) > TENANTS_MAX:
            del self._served[next(iter(self._served))]

    def _first(self) -> str:
        """The tenant whose lane is next."""
        while True:
            place, turn, tenant = self._order[0]
            lane = self._lanes.get(tenant)
            if lane is not None and (lane.place, lane.turn) == (place, turn):
                return tenant
            heapq.heappop(self._order)

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _put(self, asked: Asked) -> None:
        tenant = asked.ask.tenant
        lane = self._lanes.get(tenant)
        if lane is not None and (
            len(lane.asks) >= LANE_ASKS_MAX or lane.size_bytes + asked.size_bytes > LANE_BYTES_MAX
        ):
            raise WouldBlock
        if self._asks >= ASKS_MAX:
            raise WouldBlock
        if lane is None:
            lane = self._lanes[tenant] = _Lane(max(self._now, self._served.get(tenant, 0)), self._next_turn())
            heapq.heappush(self._order, (lane.place, lane.turn, tenant))
        lane.asks.append(asked)
        lane.size_bytes += asked.size_bytes
        self._asks += 1
