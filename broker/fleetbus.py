"""Bus of a fleet of brokers on one store: carries news to the other brokers too, as hints.

```
 Ledger ─ BatchNews ─► FleetBus ─┬─► LocalBus ─► Announcer ─► relay ══ segments ══► relays of other brokers
        ◄─ take_ready ──┘  ▲     └─ Hint, sealed ──────────► relay ══ hints ═════► their FleetBus
                           └─ hear ◄──── hints of others ── relay
```

A hint names queues that have become ready, so that requests parked at another broker are tried again, and jobs whose
agents are to be nudged. Hints may be lost. So each batch with ready queues raises the number `ready_seq` in the
broker's row of the store, and a hint says which numbers it covers: `heard` is, for each broker, the number up to which
nothing is missing. A gap makes every queue ready. At each beat the Fleet compares `heard` with the rows, and says so.

Hints are sealed with a key of the fleet. Any other machine sees only ciphertext, and what it might send is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from airunner.broker.bus import EVERY_QUEUE, BatchNews, LocalBus
from airunner.broker.counts import Counts
from airunner.broker.inbox import Nudged, ToGateway
from airunner.broker.store.rows import QueueKey
from airunner.certs.sealed import NONCE_BYTES, open_sealed, seal, topic_of
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import Forged
from airunner.protocol.frames import PEER_TOPIC
from airunner.transport.ports import Edges, PeerPublisher

HINT_BYTES_MAX: Final = 4_096  # of an encoded hint: one longer says that every queue is ready, and nudges nobody
READY_MAX: Final = 4_096  # queues made ready by others that wait for the Ledger; with more, every queue is ready
HINT_NAMES_MAX: Final = 512  # queues and jobs in a hint: with more it is surely too long, and not encoded


class Hint(Struct, frozen=True):
    """Hint of a broker: what it has committed, with the numbers after `after_seq` up to `ready_seq`.

    `ready`: queues with jobs that may be leased; None: every queue. `nudged`: jobs whose agents are nudged.
    """

    broker: str
    after_seq: int
    ready_seq: int
    ready: list[QueueKey] | None
    nudged: list[Nudged]


def nothing_known(_keys: Collection[QueueKey] | None) -> None:
    """Forget nothing: the engine remembers no place in a queue."""


def no_bell(_queues: Collection[QueueKey]) -> None:
    """Ring no bell: hints are all that other brokers get."""


class FleetBus:
    """Bus of the broker with the id `broker` in a fleet; `local` is its bus.

    `relay` publishes hints and hears those of others, sealed with `key`. `ready_seq` returns the number that the last
    commit has left in this broker's row, and `wake` makes the Ledger take the ready queues. `forget_places` is
    `Engine.forget_places`: it is called with the queues that others have made ready, when the Ledger takes them.
    `ring` is called with the queues of a hint: it reaches brokers that hints do not.
    """

    def __init__(
        self,
        local: LocalBus,
        relay: PeerPublisher,
        gateway: ToGateway,
        key: bytes,
        broker: str,
        ready_seq: Callable[[], int],
        wake: Callable[[], None],
        edges: Edges,
        counts: Counts,
        forget_places: Callable[[Collection[QueueKey] | None], None] = nothing_known,
        ring: Callable[[Collection[QueueKey]], None] = no_bell,
    ) -> None:
        self._heard: dict[str, int] = {}  # by broker: nothing with a number up to this one is missing
        self._local = local
        self._relay = relay
        self._gateway = gateway
        self._key = key
        self._topic = topic_of(key)
        self._broker = broker
        self._ready_seq = ready_seq
        self._wake = wake
        self._forget_places = forget_places
        self._ring = ring
        self._edges = edges
        self._counts = counts
        self._hinted_seq = ready_seq()  # number of the last hint
        self._ready: set[QueueKey] = set()  # queues that others have made ready
        self._alone = True  # no other broker is live
        self._decoder = msgspec.msgpack.Decoder(Hint)
        relay.join(self._topic, self.hear)

    def publish(self, news: BatchNews) -> None:
        """See `Bus`."""
        self._local.publish(news)
        ready_seq = self._ready_seq()
        if not self._alone and (ready_seq > self._hinted_seq or news.ready or news.nudged):
            self._send(Hint(self._broker, self._hinted_seq, ready_seq, list(news.ready), news.nudged))
            self._ring(news.ready)
        self._hinted_seq = ready_seq  # also when alone: another broker then notices that it has missed these numbers

    def take_ready(self) -> set[QueueKey]:
        """See `Bus`."""
        ready, self._ready = self._ready, set()
        if ready:
            self._forget_places(None if EVERY_QUEUE in ready else ready)
        return ready | self._local.take_ready()

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """Set the other live brokers, by id, and the endpoints of their live events; a repeat changes nothing."""
        self._alone = not peers
        self._heard = {broker: seq for broker, seq in self._heard.items() if broker in peers}
        self._relay.set_peers([peers[broker] for broker in sorted(peers)])

    @property
    def heard(self) -> Mapping[str, int]:
        """For each broker that was heard, the number up to which none of its hints is missing."""
        return self._heard

    def miss(self, stored: Mapping[str, int]) -> None:
        """Make every queue ready if hints with the numbers that are `stored` have not come; they never will."""
        if missed := {broker: seq for broker, seq in stored.items() if seq > self._heard.get(broker, -1)}:
            self._note_missed(missed)

    def _note_missed(self, seqs: Mapping[str, int]) -> None:
        """Take these numbers for heard; that a broker was not heard before is no loss: it or this one has begun."""
        if not self._heard.keys().isdisjoint(seqs):
            self._counts.add("hints_missed")
        self._heard |= seqs
        self.ready_all()

    def ready_all(self) -> None:
        """Make every queue ready on which a request is parked."""
        self.make_ready(None)

    def make_ready(self, queues: Collection[QueueKey] | None) -> None:
        """Make queues ready, as another broker says they are; None: every queue on which a request is parked."""
        self._ready.update([EVERY_QUEUE] if queues is None else queues)
        if len(self._ready) > READY_MAX:
            self._ready = {EVERY_QUEUE}
        self._wake()

    def replay_all(self) -> None:
        """Make every listener replay, and others try all: what a batch has done may never have been published."""
        self._relay.replay_all()
        self.publish(BatchNews(ready={EVERY_QUEUE}))

    def hear(self, sealed: bytes) -> None:
        """Hear a hint of another broker; one that no broker of the fleet has sealed is dropped."""
        try:
            hint = self._decoder.decode(open_sealed(self._key, sealed))
        except (Forged, *UNDECODABLE):
            self._counts.add("hints_dropped")
            return
        if hint.broker == self._broker:
            return
        self._counts.add("hints_heard")
        known_seq = self._heard.get(hint.broker)
        if known_seq is None or not hint.after_seq <= known_seq <= hint.ready_seq:  # or it has begun to count again
            self._note_missed({hint.broker: hint.ready_seq})
        elif hint.ready is None or hint.ready:
            self.make_ready(hint.ready)
        self._heard[hint.broker] = hint.ready_seq
        if hint.nudged:
            self._gateway.send(hint.nudged)

    def _send(self, hint: Hint) -> None:
        encoded = b""
        names = len(hint.ready or ()) + sum(len(nudged.job_ids) for nudged in hint.nudged)
        if names <= HINT_NAMES_MAX:
            encoded = msgspec.msgpack.encode(hint)
        if not encoded or len(encoded) > HINT_BYTES_MAX:
            # Agents whose nudge is left out send a heartbeat of their own within seconds.
            encoded = msgspec.msgpack.encode(msgspec.structs.replace(hint, ready=None, nudged=[]))
        self._relay.publish([PEER_TOPIC + self._topic, seal(self._key, encoded, self._edges.random_bytes(NONCE_BYTES))])
        self._counts.add("hints")
