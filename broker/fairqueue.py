"""Fair queue: the Ledger's inbox, with one FIFO (lane) per tenant; waiting tenants get equal shares of the work.

A request waits behind requests of its own tenant, and not behind those of other tenants. The lane that has been served
least goes next: each received request counts with its price, which `charge` corrects once its work is measured. So if
two tenants both request more than the broker can do, each gets half of its work, however costly the requests are.

```
 served   a ██████████      b ███      c ████      next: b, until it has been served as much as c
```

The algorithm is start-time fair queueing (Goyal, Vin and Cheng, 1996), a form of deficit round robin. A lane's place is
the work that it was served, in units. A lane that becomes busy starts no lower than the lane served last, so an idle
tenant saves up nothing; and once all lanes are empty, all places are forgotten.

A lane is bounded, in requests and in bytes; when it is full, only its own tenant gets `busy`. The broker's own commands
(expiry, retention, beats, renewal of all leases, backup) come first: there are only a few at a time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.lowlevel
from anyio import WouldBlock

from airunner.broker.inbox import BetweenBatches, Pending
from airunner.broker.lifecycle.commands import Adopt, Beat, Expire, JanitorCommand, RenewAll

LANE_REQUESTS_MAX: Final = 2_048  # waiting requests of one tenant
LANE_BYTES_MAX: Final = 33_554_432  # bytes of one tenant's waiting requests
REQUESTS_MAX: Final = 16_384  # waiting requests of all tenants together
TENANTS_MAX: Final = REQUESTS_MAX  # tenants whose place is remembered; the one served longest ago is forgotten first

OwnCommand = Expire | RenewAll | JanitorCommand | Beat | Adopt | BetweenBatches
Entry = Pending | OwnCommand


class _Lane:
    """Lane of one tenant's requests; `place`: the work that it was served. If places are equal, `turn` decides."""

    def __init__(self, place: int, turn: int) -> None:
        self.requests: deque[Pending] = deque()
        self.size_bytes = 0
        self.place = place
        self.turn = turn


class FairQueue:
    """Fair queue of all tenants: senders never wait; one actor receives."""

    def __init__(self) -> None:
        self._own: deque[OwnCommand] = deque()
        self._lanes: dict[str, _Lane] = {}  # by tenant; empty lanes are removed
        self._order: list[tuple[int, int, str]] = []  # heap of places, turns and tenants; some entries are out of date
        self._served: dict[str, int] = {}  # by tenant: the place, in units; the one served longest ago first
        self._last_place = 0  # place of the lane that was served last
        self._turns = 0
        self._requests = 0
        self._receive: Callable[[], None] | None = None

    @contextmanager
    def received_by(self, receive: Callable[[], None]) -> Generator[None]:
        """Have `wake` call `receive` during the block."""
        self._receive = receive
        try:
            yield
        finally:
            self._receive = None

    def send_nowait(self, entry: Entry) -> None:
        """Append an entry, for `wake`. Raises `WouldBlock`: the tenant's lane is full, or the whole queue."""
        if isinstance(entry, Pending):
            self._put(entry)
        else:
            self._own.append(entry)  # few: nearly all senders wait for the outcome before the next

    def wake(self) -> None:
        """Have the receiver look for entries: called once for all those that arrived together."""
        if self._receive is not None:
            self._receive()

    async def send(self, entry: OwnCommand) -> None:
        """Append a command of the broker's own actors."""
        await anyio.lowlevel.checkpoint()
        self.send_nowait(entry)
        self.wake()

    def next(self) -> Entry | None:
        """Peek at the next entry without receiving it."""
        if self._own:
            return self._own[0]
        return self._lanes[self._first()].requests[0] if self._lanes else None

    def receive_nowait(self) -> Entry:
        """Receive the next entry. Raises `WouldBlock`: the queue is empty."""
        if self._own:
            return self._own.popleft()
        if not self._lanes:
            raise WouldBlock
        tenant = self._first()
        lane = self._lanes[tenant]
        pending = lane.requests.popleft()
        lane.size_bytes -= pending.size_bytes
        self._requests -= 1
        self._last_place = lane.place
        if lane.requests:
            lane.turn = self._next_turn()
        else:
            del self._lanes[tenant]
        if self._lanes:
            self.charge(tenant, pending.price)
        else:  # no tenant waits: every tenant starts at the same place again
            self._served.clear()
            self._order.clear()
        return pending

    def charge(self, tenant: str, units: int) -> None:
        """Charge a tenant `units` of work; negative: a request took less work than its price."""
        if not units:
            return
        place = max(self._last_place, self._served.pop(tenant, self._last_place) + units)
        self._served[tenant] = place
        if (lane := self._lanes.get(tenant)) is not None:
            lane.place = place
            heapq.heappush(self._order, (place, lane.turn, tenant))
        while len(self._served) > TENANTS_MAX:
            del self._served[next(iter(self._served))]

    def _first(self) -> str:
        """Find the tenant whose lane is next."""
        while True:
            place, turn, tenant = self._order[0]
            lane = self._lanes.get(tenant)
            if lane is not None and (lane.place, lane.turn) == (place, turn):
                return tenant
            heapq.heappop(self._order)

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _put(self, pending: Pending) -> None:
        tenant = pending.command.tenant
        lane = self._lanes.get(tenant)
        if lane is not None and (
            len(lane.requests) >= LANE_REQUESTS_MAX or lane.size_bytes + pending.size_bytes > LANE_BYTES_MAX
        ):
            raise WouldBlock
        if self._requests >= REQUESTS_MAX:
            raise WouldBlock
        if lane is None:
            lane = self._lanes[tenant] = _Lane(max(self._last_place, self._served.get(tenant, 0)), self._next_turn())
            heapq.heappush(self._order, (lane.place, lane.turn, tenant))
        lane.requests.append(pending)
        lane.size_bytes += pending.size_bytes
        self._requests += 1
