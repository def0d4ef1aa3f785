"""Brokers of a DynamoDB store: this one's row, the rows of all, and the adoption of what a dead one has left.

What a dead broker has left is taken over item by item, in any number of steps, by the broker that sees it first:

1. Its row is marked as dead, if it is still as it was seen; from then on it fails its next batch (`Fenced`).
2. Its leases and delays get this broker as their owner, as far as the index shows them.
3. Its tally buckets are folded into this broker's, each in a transaction.
4. When the index must show everything, and shows nothing any more, its row is marked as clean.

A batch that a dead broker had under way when it was marked may still be done, under its conditions. Then it owns jobs
again: the index of clean brokers is searched from time to time, and what is found is adopted too; and so are tally
buckets that retention finds.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from msgspec import Struct

from airunner.broker.store.contract import Fenced, Moved
from airunner.broker.store.dynamodb.batches import FENCED, Batch
from airunner.broker.store.dynamodb.items import Item
from airunner.broker.store.dynamodb.outbox import Outbox
from airunner.broker.store.dynamodb.owned import LATE_S, Owned, indexed, owns_any, take_over
from airunner.broker.store.dynamodb.saving import Saving, read_tallies
from airunner.broker.store.dynamodb.schema import BROKERS, TENANTS, Key
from airunner.broker.store.dynamodb.table import Table, Value, new_token
from airunner.broker.store.rows import BrokerRow, BrokerSeen
from airunner.protocol.errors import NoSpace

ADOPTED_MAX: Final = 1_000  # jobs that are adopted in one batch; the next beat goes on
_ALIVE: Final = "epoch = :epoch AND dead = :no"
_NO: Final[Value] = {"BOOL": False}
_YES: Final[Value] = {"BOOL": True}


class OwnRow(Struct):
    """Row of this broker, as it opened the store."""

    broker: str
    epoch: int
    slot: int
    ready_seq: int

    @property
    def key(self) -> Key:
        """Key of the item."""
        return BROKERS, self.broker

    def require_alive(self, item: Item | None) -> None:
        """Require that nobody has taken this broker for dead. Raises `Fenced`."""
        if item is None or item["dead"]["BOOL"] or int(item["epoch"]["N"]) != self.epoch:
            raise Fenced(FENCED)

    def beat(self, table: Table, ready_seq: int) -> None:
        """Show that this broker lives. Raises `Fenced`."""
        values = {":one": {"N": "1"}, ":seq": {"N": str(ready_seq)}, ":epoch": {"N": str(self.epoch)}, ":no": _NO}
        if not table.update(self.key, "SET ready_seq = :seq ADD beat :one", _ALIVE, values):
            self.require_alive(table.get([self.key]).get(self.key))

    def retire(self, table: Table) -> None:
        """Mark this broker as dead, because it ends."""
        values = {":epoch": {"N": str(self.epoch)}, ":no": _NO, ":yes": _YES}
        table.update(self.key, "SET dead = :yes", _ALIVE, values)


def broker_items(table: Table) -> list[Item]:
    """Read the rows of all brokers, by id."""
    return list(table.query("pk = :pk", {":pk": {"S": BROKERS}}))


def read_broker(item: Item) -> BrokerRow:
    """Read a broker from its item; `leases` is 1 if it is dead and may still own something."""
    return BrokerRow(
        broker=item["sk"]["S"],
        epoch=int(item["epoch"]["N"]),
        beat=int(item["beat"]["N"]),
        ready_seq=int(item["ready_seq"]["N"]),
        requests=item["requests"]["S"],
        events=item["events"]["S"],
        version=item["version"]["S"],
        dead=item["dead"]["BOOL"],
        leases=int(item["dead"]["BOOL"] and not item["clean"]["BOOL"]),
    )


def tenants_of(table: Table) -> list[str]:
    """Read the names of all tenants that have, or had, something in the store."""
    return [item["sk"]["S"] for item in table.query("pk = :pk", {":pk": {"S": TENANTS}})]


class Adoption:
    """Adoption of dead brokers' jobs by the broker `broker`."""

    def __init__(self, table: Table, owned: Owned, outbox: Outbox, broker: str) -> None:
        self._table = table
        self._owned = owned
        self._outbox = outbox
        self._broker = broker
        self._since_s: dict[tuple[str, int], float] = {}  # by broker and epoch: when it was first adopted from

    def adopt(self, seen: BrokerSeen, now_ms: int) -> bool:
        """Take over what the index shows of a broker; False: it has beaten since, or there was nothing new.

        Raises `StoreAway`.
        """
        key = (BROKERS, seen.broker)
        item = self._table.get([key]).get(key)
        if item is None or (int(item["epoch"]["N"]), int(item["beat"]["N"])) != (seen.epoch, seen.beat):
            return False
        as_seen = {":epoch": item["epoch"], ":beat": item["beat"], ":no": _NO, ":yes": _YES}
        if not item["dead"]["BOOL"]:
            condition = f"{_ALIVE} AND beat = :beat"
            if not self._table.update(key, "SET dead = :yes", condition, as_seen):
                return False
        now_s = self._table.edges.steady_s()
        is_first = (seen.broker, seen.epoch) not in self._since_s
        since_s = self._since_s.get((seen.broker, seen.epoch), now_s)
        pks = list(indexed(self._table, seen.broker))
        taken = take_over(self._table, self._owned, pks[:ADOPTED_MAX], seen.broker, self._broker, now_ms)
        is_last = not pks and now_s >= since_s + LATE_S
        folded = 0
        if is_first or is_last:
            folded = self._fold_tallies(seen.broker) + self._outbox.adopt_parcels(seen.broker)
        self._since_s[seen.broker, seen.epoch] = since_s  # only now: a first step that is cut off is done again
        if is_last and not folded:
            self._table.update(
                key, "SET clean = :yes", "epoch = :epoch AND dead = :yes", {":epoch": item["epoch"], ":yes": _YES}
            )
            del self._since_s[seen.broker, seen.epoch]
        return is_first or taken > 0

    def _fold_tallies(self, broker: str) -> int:
        """Fold a broker's tally buckets into this broker's; return how many there were."""
        folded = 0
        for tenant in tenants_of(self._table):
            tallies = read_tallies(self._table, tenant)
            for bucket in tallies.buckets:
                if bucket.broker != broker:
                    continue
                saving = Saving(self._table, Batch(tenants={tenant: tallies}), self._broker, 0)
                folded += 1
                with suppress(Moved):  # the next step tries again
                    own = saving.bucket(tenant, bucket.number)
                    own.merge(bucket)
                    try:
                        saving.put_buckets(self._outbox.acknowledged)
                    except NoSpace:  # together they are too large; it counts where it is
                        folded -= 1
                        continue
                    saving.delete(bucket.key, bucket.rev)
                    self._table.transact(saving.actions, new_token(self._table.edges))
                    self._outbox.adopt(own, saving.parcels)
                    tallies = read_tallies(self._table, tenant)
        return folded

    def look_for_late(self) -> None:
        """Mark clean brokers that own jobs again as not clean, so that they are adopted from."""
        for item in broker_items(self._table):
            if item["dead"]["BOOL"] and item["clean"]["BOOL"] and owns_any(self._table, item["sk"]["S"]):
                values = {":yes": _YES, ":no": _NO}
                self._table.update((BROKERS, item["sk"]["S"]), "SET clean = :no", "dead = :yes", values)

    def remove_brokers(self, opened_before_ms: int, counting: Collection[str]) -> None:
        """Remove dead brokers that were opened before an instant and own nothing.

        Those of which a tally bucket was stored late are marked as not clean; `counting`: brokers that have any.
        """
        for item in broker_items(self._table):
            if not (item["dead"]["BOOL"] and item["clean"]["BOOL"]):
                continue
            key, values = (BROKERS, item["sk"]["S"]), {":yes": _YES, ":epoch": item["epoch"]}
            condition = "dead = :yes AND clean = :yes AND epoch = :epoch"
            if key[1] in counting:
                self._table.update(key, "SET clean = :no", condition, {**values, ":no": _NO})
            elif int(item["opened_ms"]["N"]) < opened_before_ms:
                self._table.delete(key, condition, values)
