"""Fleet: the broker among the other brokers of its store: it beats, finds them, and adopts those that have died.

```
 Fleet ── Beat, Adopt ──► Ledger          every second; the reply has the rows of all brokers
       ◄─ Beaten, Adopted ─┘
       ── set_peers, miss ──► Bus         whom to hear, and which hints have to have come
```

While the store is away a beat has no reply, and no other is sent: nothing is concluded from the silence of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import anyio

from airunner.broker.fairqueue import FairQueue
from airunner.broker.inbox import Adopted, Beaten, FleetInbox
from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.peerwatch import BEAT_S, DEAD_S, PeerWatch
from airunner.broker.store.rows import BrokerRow, BrokerSeen
from airunner.protocol.replies import BrokerSummary

HINT_S: Final = 0.25  # seconds for a hint to come whose number is in the store: it takes some milliseconds


class PeerBus(Protocol):
    """Bus of a fleet, as the Fleet sees it; see `FleetBus`."""

    @property
    def heard(self) -> Mapping[str, int]:
        """For each broker that was heard, the number up to which none of its hints is missing."""
        ...

    def miss(self, stored: Mapping[str, int]) -> None:
        """Make every queue ready if hints with the numbers that are `stored` have not come."""
        ...

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Set the other live brokers, by id, and the endpoints of their live events."""
        ...

    def ready_all(self) -> None:
        """Make every queue ready on which a request is parked."""
        ...


def nothing_adopted() -> None:
    """Do nothing after an adoption: no actor waits for one."""


class Fleet:
    """Fleet actor of the broker with the id `broker`.

    `say` gets a line for the operator for each adoption, and `adopted` is called after it.
    """

    def __init__(
        self,
        inbox: FleetInbox,
        ledger: FairQueue,
        bus: PeerBus,
        broker: str,
        say: Callable[[str], None] = lambda _line: None,
        adopted: Callable[[], None] = nothing_adopted,
    ) -> None:
        self._adopted = adopted
        self._inbox = inbox
        self._ledger = ledger
        self._bus = bus
        self._broker = broker
        self._say = say
        self._watch = PeerWatch(broker)
        self.is_first = False  # whether this is the live broker with the lowest id, which removes old jobs

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            began_s = anyio.current_time()
            await self._ledger.send(Beat())
            beaten = await self._inbox.receive()
            if isinstance(beaten, Beaten) and beaten.brokers:  # none: it was refused
                await self._act(beaten.brokers)
            await anyio.sleep_until(began_s + BEAT_S)

    async def _act(self, rows: tuple[BrokerRow, ...]) -> None:
        concluded = self._watch.conclude(rows, self._bus.heard, anyio.current_time())
        self.is_first = concluded.is_first
        self._bus.set_peers(concluded.peers)
        if concluded.left:
            self._bus.ready_all()
        by_id = {row.broker: row for row in rows}
        for seen in concluded.dead:
            await self._adopt(by_id[seen.broker], seen)
        if concluded.unheard:
            await anyio.sleep(HINT_S)
            self._bus.miss(concluded.unheard)

    async def _adopt(self, row: BrokerRow, seen: BrokerSeen) -> None:
        """Adopt the jobs of a broker; if that fails, for example because it is at work again, the next beat decides."""
        await self._ledger.send(Adopt(seen))
        adopted = await self._inbox.receive()
        if isinstance(adopted, Adopted) and adopted.brokers:
            how = "has ended" if row.dead else f"has written nothing for {DEAD_S:.0f} s"
            self._say(f"broker {row.broker} at {row.requests} {how}: its jobs are adopted")
            self._adopted()

    def show(self, row: BrokerRow) -> BrokerSummary:
        """Show a broker by its row, and what is known of it besides."""
        still_s = self._watch.still_s(row.broker, anyio.current_time())
        is_this = row.broker == self._broker
        heard_seq = row.ready_seq if is_this else self._bus.heard.get(row.broker)
        return BrokerSummary(
            id=row.broker,
            endpoint=row.requests,
            leases=row.leases,
            version=row.version,
            dead=row.dead,
            asked=is_this,
            still_ms=None if still_s is None else int(still_s * 1_000),
            missed=None if heard_seq is None else max(0, row.ready_seq - heard_seq),
        )
