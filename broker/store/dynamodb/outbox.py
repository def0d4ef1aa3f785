"""Outbox of lifecycle events: those that were stored with their batch, and are still to be announced outside.

An entry is stored in a tally bucket of this broker, in the transaction of its event, and leaves it with the bucket's
next write after it was announced; so each event is announced at least once, whatever is killed. What a dead broker has
left comes with its buckets.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from msgspec import Struct

from airunner.broker.store.dynamodb.items import JobItem, read_job, read_segments
from airunner.broker.store.dynamodb.schema import JOB, bucket_of, job_pk, segment_sk
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.dynamodb.tallies import Announcement, Bucket, read_bucket
from airunner.broker.store.rows import Changes


class OutboxEntry(Struct, frozen=True):
    """Lifecycle event to announce; `events`: the event's segment, as a MessagePack array; b"": its job was removed."""

    tenant: str
    job_id: str
    queue: str
    sequence: int
    events: bytes


_Key = tuple[str, Announcement]  # tenant, and what is stored in the bucket


class Outbox:
    """Outbox of a broker. Entries are taken and acknowledged in another thread than the rest."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: dict[_Key, bytes | None] = {}  # None: the event is to be read from the log
        self._acknowledged: dict[_Key, None] = {}

    @property
    def acknowledged(self) -> list[_Key]:
        """Entries that may leave their buckets."""
        with self._lock:
            return list(self._acknowledged)

    def committed(self, buckets: Iterable[Bucket], changes: Changes) -> None:
        """Note buckets as they were stored now, with the events that came with them."""
        jobs = {row.number: row for row in (*changes.added, *(row for _, row in changes.changed))}
        events = {
            (jobs[segment.number].tenant, str(jobs[segment.number].job_id), segment.first_sequence): segment.events
            for segment in changes.segments
            if segment.number in jobs
        }
        with self._lock:
            for bucket in buckets:
                stored = {(bucket.tenant, entry) for entry in bucket.content.outbox}
                for key in stored:
                    if key not in self._acknowledged:
                        self._entries.setdefault(key, events.get((key[0], key[1].job_id, key[1].sequence)))
                for key in [key for key in self._acknowledged if _is_in(key, bucket) and key not in stored]:
                    del self._acknowledged[key]

    def adopt(self, bucket: Bucket) -> None:
        """Note a stored bucket whose events are not known."""
        self.committed([bucket], Changes())

    def take(self, table: Table, limit: int) -> list[OutboxEntry]:
        """List entries that are to be announced, the oldest first; those taken before come again until acknowledged."""
        with self._lock:
            some = list(self._entries.items())[:limit]
        entries: list[OutboxEntry] = []
        for (tenant, one), events in some:
            found = _read(table, tenant, one) if events is None else events
            entries.append(OutboxEntry(tenant, one.job_id, one.queue, one.sequence, found))
        return entries

    def acknowledge(self, entries: Iterable[OutboxEntry]) -> None:
        """Note that entries were announced."""
        with self._lock:
            for entry in entries:
                key = (entry.tenant, Announcement(entry.job_id, entry.queue, entry.sequence))
                if key in self._entries:
                    del self._entries[key]
                    self._acknowledged[key] = None

    def flush(self, table: Table, broker: str) -> None:
        """Remove what was announced from buckets that nothing else has written since."""
        acknowledged = set(self.acknowledged)
        for tenant, number in {(tenant, bucket_of(one.queue)) for tenant, one in acknowledged}:
            key = Bucket(tenant, number, broker).key
            if (item := table.get([key]).get(key)) is None:
                continue
            bucket = read_bucket(item)
            bucket.content.outbox = [entry for entry in bucket.content.outbox if (tenant, entry) not in acknowledged]
            if table.put(bucket.item(), "rev = :rev", {":rev": {"N": str(bucket.rev)}}):
                self.committed([bucket], Changes())


def _is_in(key: _Key, bucket: Bucket) -> bool:
    return key[0] == bucket.tenant and bucket_of(key[1].queue) == bucket.number


def _read(table: Table, tenant: str, one: Announcement) -> bytes:
    """Read an event from the log of its job; b"": it is not there."""
    pk = job_pk(tenant, one.job_id)
    item = table.get([(pk, JOB)]).get((pk, JOB))
    job: JobItem | None = None if item is None else read_job(item)
    for segment in job.segments if job else ():
        if segment.first_sequence == one.sequence:
            return segment.events
    values = {":pk": {"S": pk}, ":sk": {"S": segment_sk(one.sequence)}}
    for segment in read_segments(0, table.query("pk = :pk AND begins_with(sk, :sk)", values)):
        return segment.events
    return b""
