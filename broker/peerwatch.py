"""Watch over peers: what a broker concludes at each of its beats from the rows of all brokers of the store. Pure.

A beat raises a number in the broker's row. No clock is compared with another machine's: a broker is dead when its
number has stood still for `DEAD_S` of this broker's own steady time, in which this broker's beats have succeeded. An
interval between two of them counts for at most `COUNTED_S_MAX`: while the store was away nobody could beat, and a
process that was stopped has seen nothing. So it takes at least five beats of this broker to find another one dead.

```
 beat of the other    7   8   8   8   8   8   8   8   8   8   8   8   …  dead: adopt it, as it was seen
 counted, in s        0   0   1   2   3   4   5   7   8   9  10  ↑
 own beat after            1   1   1   1   1  60   1   1   1   1 s
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from airunner.broker.store.rows import BrokerRow, BrokerSeen

BEAT_S: Final = 1.0  # between two beats of a broker: so long a lost hint may delay a job
DEAD_S: Final = 10.0  # an adoption costs nothing but the broker: no shorter than a slow commit or a failover may be
COUNTED_S_MAX: Final = 2 * BEAT_S  # most that one interval between two of this broker's beats counts


class Sighting(Struct):
    """Sighting of a broker: how it was seen last, and since when it has been like that (anyio's clock).

    `still_s` counts that time as the module explains.
    """

    seen: BrokerSeen
    since_s: float
    still_s: float = 0.0


class Conclusion(Struct, frozen=True, kw_only=True):
    """Conclusion from one beat.

    `peers`: the endpoint of live events of each other live broker, by id. `unheard`: by id, the number of a peer's last
    batch with ready queues, if its hint has not come yet. `left`: peers that have ended since the last beat. `dead`:
    brokers to adopt. `is_first`: this is the live broker with the lowest id.
    """

    peers: dict[str, str]
    unheard: dict[str, int]
    left: frozenset[str]
    dead: list[BrokerSeen]
    is_first: bool


class PeerWatch:
    """Watch over the other brokers, by the broker with the id `broker`."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._sightings: dict[str, Sighting] = {}  # by id: other live brokers
        self._beaten_s: float | None = None  # when this broker's last beat succeeded

    def conclude(self, rows: Iterable[BrokerRow], heard: Mapping[str, int], now_s: float) -> Conclusion:
        """Conclude from the rows that a beat has read at `now_s`; `heard`: up to which number hints are complete."""
        counted_s = 0.0 if self._beaten_s is None else min(now_s - self._beaten_s, COUNTED_S_MAX)
        self._beaten_s = now_s
        others = [row for row in rows if row.broker != self._broker]
        live = {row.broker: row for row in others if not row.dead}
        left = frozenset(self._sightings.keys() - live.keys())
        unheard = {broker: row.ready_seq for broker, row in live.items() if row.ready_seq > heard.get(broker, -1)}
        self._sightings = {broker: self._look(row, counted_s, now_s) for broker, row in live.items()}
        still = [known.seen for known in self._sightings.values() if known.still_s >= DEAD_S]
        ended = [BrokerSeen(row.broker, row.epoch, row.beat) for row in others if row.dead and row.leases]
        return Conclusion(
            peers={broker: row.events for broker, row in live.items()},
            unheard=unheard,
            left=left,
            dead=still + ended,
            is_first=all(self._broker < broker for broker in live),
        )

    def _look(self, row: BrokerRow, counted_s: float, now_s: float) -> Sighting:
        seen = BrokerSeen(row.broker, row.epoch, row.beat)
        known = self._sightings.get(row.broker)
        if known is None or known.seen != seen:
            return Sighting(seen, now_s)
        return Sighting(seen, known.since_s, known.still_s + counted_s)

    def still_s(self, broker: str, now_s: float) -> float | None:
        """Return how long a broker's beat has stood still; None: it is not known as a live broker."""
        if broker == self._broker:
            return None if self._beaten_s is None else now_s - self._beaten_s
        known = self._sightings.get(broker)
        return None if known is None else now_s - known.since_s
