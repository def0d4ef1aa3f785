"""Outbox of lifecycle events: those that were stored with their batch, and are still to be announced outside.

An entry is stored in a tally bucket of this broker, in the transaction of its segment, and leaves it with the bucket's
next write after it was announced; so each event is announced at least once, whatever is killed. What a dead broker has
left comes with its buckets.

While nothing can be announced, for hours perhaps, buckets do not grow: their entries are moved to parcels, items of
their own, again in the transaction of a batch. Parcels are not held in memory; they are read when their turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Final

import msgspec
from msgspec import Struct

from airunner.broker.store.dynamodb.items import Item, read_segments
from airunner.broker.store.dynamodb.schema import JOB, bucket_of, job_pk, parcels_pk, segment_sk
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.dynamodb.tallies import Announcement, Bucket, read_bucket
from airunner.broker.store.rows import Changes, OutboxEntry
from airunner.protocol.names import JobId

PARCELS_READ: Final = 4  # parcels in memory at a time
INSIDE_MAX: Final = 64  # entries in a bucket beyond which they are moved to a parcel


class Parcel(Struct, frozen=True):
    """Parcel of entries that a bucket had no room for, an item under the broker's key."""

    sk: str
    tenant: str
    entries: tuple[Announcement, ...]


_Key = tuple[str, Announcement]  # tenant, and what is stored in the bucket
_lists = msgspec.msgpack.Decoder(tuple[Announcement, ...])


def parcel_of(tenant: str, entries: Iterable[Announcement], wall_s: int, token: str) -> Parcel:
    """Make a parcel of entries; the instant and the token make its key unlike all others."""
    return Parcel(f"{tenant}#{wall_s}#{token}", tenant, tuple(entries))


def write_parcel(broker: str, parcel: Parcel) -> Item:
    """Make the item of a parcel."""
    entries = {"B": msgspec.msgpack.encode(parcel.entries)}
    return {"pk": {"S": parcels_pk(broker)}, "sk": {"S": parcel.sk}, "entries": entries}


def read_parcel(item: Item) -> Parcel:
    """Read a parcel from its item."""
    sk = item["sk"]["S"]
    return Parcel(sk, sk.split("#")[0], _lists.decode(item["entries"]["B"]))


class Outbox:
    """Outbox of the broker `broker`. Entries are taken and acknowledged in another thread than the rest."""

    def __init__(self, table: Table, broker: str) -> None:
        self._table = table
        self._broker = broker
        self._lock = Lock()
        self._entries: dict[_Key, bytes | None] = {}  # None: the segment is to be read from the log
        self._acknowledged: dict[_Key, None] = {}
        self._parcels: dict[str, set[_Key]] = {}  # those in memory: what of them is not announced
        self._has_more = True  # whether there may be other parcels

    @property
    def acknowledged(self) -> list[_Key]:
        """Entries that may leave their buckets."""
        with self._lock:
            return list(self._acknowledged)

    def committed(self, buckets: Iterable[Bucket], changes: Changes, parcels: Iterable[Parcel] = ()) -> None:
        """Note buckets and parcels as they were stored now, with the events that came with them."""
        jobs = {row.number: row for row in (*changes.added, *(row for _, row in changes.changed))}
        events = {
            (jobs[segment.number].tenant, str(jobs[segment.number].job_id), segment.first_sequence): segment.events
            for segment in changes.segments
            if segment.number in jobs
        }
        with self._lock:
            for parcel in parcels:
                self._has_more = True
                for entry in parcel.entries:
                    self._entries.pop((parcel.tenant, entry), None)
            for bucket in buckets:
                stored = {(bucket.tenant, entry): None for entry in bucket.content.outbox}
                for key in stored:
                    if key not in self._acknowledged:
                        self._entries.setdefault(key, events.get((key[0], key[1].job_id, key[1].sequence)))
                for key in [key for key in self._acknowledged if _is_in(key, bucket) and key not in stored]:
                    del self._acknowledged[key]

    def adopt(self, bucket: Bucket, parcels: Iterable[Parcel] = ()) -> None:
        """Note a stored bucket, and parcels that were stored with it, whose events are not known."""
        self.committed([bucket], Changes(), parcels)

    def adopt_parcels(self, broker: str) -> int:
        """Take over another broker's parcels; return how many there were."""
        taken = 0
        for item in self._table.query("pk = :pk", {":pk": {"S": parcels_pk(broker)}}):
            taken += 1
            with self._lock:
                self._has_more = True
            own = {**item, "pk": {"S": parcels_pk(self._broker)}, "sk": {"S": f"{item['sk']['S']}#{broker}"}}
            self._table.put(own)
            self._table.delete((parcels_pk(broker), item["sk"]["S"]))
        return taken

    def take(self, limit: int) -> list[OutboxEntry]:
        """List entries that are to be announced; those taken before come again until they are acknowledged.

        `events` is empty if the job was removed.
        """
        self._drop_parcels()
        if self._has_more and len(self._parcels) < PARCELS_READ:
            self._read_parcels()
        with self._lock:
            some = list(self._entries.items())[:limit]
        entries: list[OutboxEntry] = []
        for (tenant, entry), events in some:
            found = self._read(tenant, entry) if events is None else events
            job_id = JobId(entry.job_id)
            entries.append(
                OutboxEntry(
                    tenant=tenant, job_id=job_id, queue=entry.queue, first_sequence=entry.sequence, events=found
                )
            )
        return entries

    def _read_parcels(self) -> None:
        values = {":pk": {"S": parcels_pk(self._broker)}}
        with self._lock:
            self._has_more = False  # unless one comes while they are read
        found = [read_parcel(item) for item in self._table.query("pk = :pk", values, limit=PARCELS_READ)]
        with self._lock:
            self._has_more |= len(found) == PARCELS_READ
            for parcel in found:
                if parcel.sk not in self._parcels:
                    keys = {(parcel.tenant, entry) for entry in parcel.entries}
                    self._parcels[parcel.sk] = keys
                    self._entries |= dict.fromkeys(keys)

    def acknowledge(self, entries: Iterable[OutboxEntry]) -> None:
        """Note that entries were announced. Raises `StoreAway`: some of their parcels are deleted later."""
        with self._lock:
            for entry in entries:
                key = (entry.tenant, Announcement(entry.job_id, entry.queue, entry.first_sequence))
                if key not in self._entries:
                    continue
                del self._entries[key]
                parcels = [sk for sk, keys in self._parcels.items() if key in keys]
                for sk in parcels:
                    self._parcels[sk].discard(key)
                if not parcels:
                    self._acknowledged[key] = None
        self._drop_parcels()

    def _drop_parcels(self) -> None:
        """Delete parcels of which all entries were announced."""
        with self._lock:
            emptied = [sk for sk, keys in self._parcels.items() if not keys]
        for sk in emptied:
            self._table.delete((parcels_pk(self._broker), sk))
            with self._lock:
                del self._parcels[sk]

    def flush(self) -> None:
        """Remove what was announced from buckets that nothing else has written since."""
        acknowledged = set(self.acknowledged)
        for tenant, number in {(tenant, bucket_of(entry.queue)) for tenant, entry in acknowledged}:
            key = Bucket(tenant, number, self._broker).key
            if (item := self._table.get([key]).get(key)) is None:
                continue
            bucket = read_bucket(item)
            bucket.content.outbox = [entry for entry in bucket.content.outbox if (tenant, entry) not in acknowledged]
            if self._table.put(bucket.item(), "rev = :rev", {":rev": {"N": str(bucket.rev)}}):
                self.committed([bucket], Changes())

    def _read(self, tenant: str, entry: Announcement) -> bytes:
        """Read a segment of a job's log; b"": it is not there."""
        pk = job_pk(tenant, entry.job_id)
        jobs = self._table.read_jobs(self._table.get([(pk, JOB)]))
        for segment in [segment for job in jobs for segment in job.segments]:
            if segment.first_sequence == entry.sequence:
                return segment.events
        values = {":pk": {"S": pk}, ":sk": {"S": segment_sk(entry.sequence)}}
        segments = read_segments(0, self._table.query("pk = :pk AND begins_with(sk, :sk)", values))
        return next((segment.events for segment in segments), b"")


def _is_in(key: _Key, bucket: Bucket) -> bool:
    return key[0] == bucket.tenant and bucket_of(key[1].queue) == bucket.number
