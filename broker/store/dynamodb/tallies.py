"""Tally buckets: what a broker has counted of some of a tenant's queues, in one item that only this broker writes.

Each broker counts by itself, so that no broker waits for another; reading sums the buckets of all. A bucket has the
queues whose names have the same hash. Beside the counters it has what belongs to the same transactions:

- the modes of its queues that are not open, in an attribute of its own, `m`. A change of a mode is written to the
  buckets of all brokers; so a batch that was decided on the mode before loses its condition, which is the bucket's
  revision, and is decided again;
- how many idempotency records this broker has stored, by hour: records are removed by DynamoDB, without a word;
- lifecycle events that are still to be announced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from airunner.broker.store.dynamodb.items import Item
from airunner.broker.store.dynamodb.schema import Key, bucket_sk, tallies_pk
from airunner.broker.store.rows import QueueCounts, QueueKey
from airunner.protocol.replies import QueueMode

HOUR_MS: Final = 3_600_000
KEPT_MS: Final = 24 * HOUR_MS  # least age of an idempotency record whose count is taken back


class QueueTally(Struct, array_like=True):
    """Tally of a queue: all jobs that are stored, the counts of `QueueCounts`, and living jobs by the key of needs."""

    jobs: int = 0
    waiting: int = 0
    delayed: int = 0
    running: int = 0
    kinds: dict[bytes, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether it adds nothing to any counter."""
        return not (self.jobs or self.waiting or self.delayed or self.running or self.kinds)

    def add_kind(self, needs: bytes, jobs: int) -> None:
        """Add to the count of living jobs with these needs."""
        self.kinds[needs] = self.kinds.get(needs, 0) + jobs
        if not self.kinds[needs]:
            del self.kinds[needs]

    def add(self, other: QueueTally) -> None:
        """Add another tally of the same queue."""
        self.jobs += other.jobs
        self.waiting += other.waiting
        self.delayed += other.delayed
        self.running += other.running
        for needs, jobs in other.kinds.items():
            self.add_kind(needs, jobs)


class Announcement(Struct, array_like=True, frozen=True):
    """Lifecycle events that are still to be announced: the job, its queue, and the first sequence of their segment."""

    job_id: str
    queue: str
    sequence: int


class HourTally(Struct, array_like=True, frozen=True):
    """Tally of the idempotency records of an hour: how many, and when the last one was answered."""

    records: int
    last_ms: int


class _Content(Struct, array_like=True):
    queues: dict[str, QueueTally] = {}
    size_bytes: int = 0  # part of the tenant's usage
    waiting: int = 0
    records: dict[int, HourTally] = {}  # by the hour in which they were stored
    outbox: list[Announcement] = []


_contents = msgspec.msgpack.Decoder(_Content)


class Bucket:
    """Tally bucket of a broker; `rev` 0: it is not stored."""

    def __init__(self, tenant: str, number: int, broker: str) -> None:
        self.tenant, self.number, self.broker = tenant, number, broker
        self.rev = 0
        self.modes: dict[str, str] = {}  # of queues that are not open
        self.content = _Content()
        self.stored_names = 0  # `names` as it is stored

    @property
    def key(self) -> Key:
        """Key of the item."""
        return tallies_pk(self.tenant), bucket_sk(self.number, self.broker)

    @property
    def names(self) -> int:
        """How many names of queues it has."""
        return len(self.content.queues) + len(self.modes)

    def queue(self, name: str) -> QueueTally:
        """Return the tally of a queue, to be changed."""
        return self.content.queues.setdefault(name, QueueTally())

    def add_records(self, count: int, answered_ms: int) -> None:
        """Count records of the hour in which they were answered."""
        records, hour = self.content.records, answered_ms // HOUR_MS
        before = records.get(hour, HourTally(0, 0))
        records[hour] = HourTally(before.records + count, max(before.last_ms, answered_ms))

    def drop_records(self, hour: int, count: int) -> None:
        """Take back records of an hour."""
        records = self.content.records
        if (before := records.get(hour)) is not None:
            records[hour] = HourTally(before.records - count, before.last_ms)
            if records[hour].records <= 0:
                del records[hour]

    def merge(self, other: Bucket) -> None:
        """Add what another broker's bucket has: it is folded into this one."""
        mine, theirs = self.content, other.content
        for name, tally in theirs.queues.items():
            self.queue(name).add(tally)
        mine.size_bytes += theirs.size_bytes
        mine.waiting += theirs.waiting
        for records in theirs.records.values():
            self.add_records(records.records, records.last_ms)
        mine.outbox += theirs.outbox
        self.modes |= other.modes

    def copy(self) -> Bucket:
        """Copy it, to be changed."""
        other = Bucket(self.tenant, self.number, self.broker)
        other.rev, other.modes = self.rev, dict(self.modes)
        other.content = _contents.decode(msgspec.msgpack.encode(self.content))
        other.stored_names = self.names
        return other

    def item(self) -> Item:
        """Make the item, with the next revision."""
        content = self.content
        content.queues = {name: tally for name, tally in content.queues.items() if not tally.is_empty}
        pk, sk = self.key
        return {
            "pk": {"S": pk},
            "sk": {"S": sk},
            "rev": {"N": str(self.rev + 1)},
            "b": {"B": msgspec.msgpack.encode(content)},
            "m": {"M": {queue: {"S": mode} for queue, mode in self.modes.items()}},
        }


def read_bucket(item: Item) -> Bucket:
    """Read a bucket from its item."""
    number, broker = item["sk"]["S"].split("#", 1)
    bucket = Bucket(item["pk"]["S"].removeprefix("T#"), int(number), broker)
    bucket.rev = int(item["rev"]["N"])
    bucket.modes = {queue: mode["S"] for queue, mode in item["m"]["M"].items()}
    bucket.content = _contents.decode(item["b"]["B"])
    return bucket


class TenantTallies:
    """Tallies of a tenant: all brokers' buckets, and the modes of queues; what is stored in one partition."""

    def __init__(self, tenant: str, items: Iterable[dict[str, Any]] = ()) -> None:
        self.tenant = tenant
        self.buckets: list[Bucket] = []
        self.stored_modes: dict[str, QueueMode] = {}
        for item in items:
            sk = item["sk"]["S"]
            if sk.startswith("Q#"):
                self.stored_modes[sk[2:]] = QueueMode(item["mode"]["S"])
            else:
                self.buckets.append(read_bucket(item))
        self.queues: dict[str, QueueTally] = {}
        for bucket in self.buckets:
            for name, tally in bucket.content.queues.items():
                self.queues.setdefault(name, QueueTally()).add(tally)

    def bucket(self, number: int, broker: str) -> Bucket | None:
        """Find a broker's bucket."""
        return next((bucket for bucket in self.buckets if (bucket.number, bucket.broker) == (number, broker)), None)

    @property
    def size_bytes(self) -> int:
        """Bytes that the tenant uses."""
        return sum(bucket.content.size_bytes for bucket in self.buckets)

    @property
    def waiting(self) -> int:
        """Waiting jobs of the tenant."""
        return sum(bucket.content.waiting for bucket in self.buckets)

    @property
    def jobs(self) -> int:
        """Jobs of the tenant that are stored."""
        return sum(tally.jobs for tally in self.queues.values())

    def may_be_ready(self, key: QueueKey, broker: str) -> bool:
        """Tell whether a job of a queue and needs may wait: several brokers' counts are of different instants."""
        counting = [bucket for bucket in self.buckets if key.queue in bucket.content.queues]
        if [bucket.broker for bucket in counting] != [broker]:
            return bool(counting)
        (tally,) = (bucket.content.queues[key.queue] for bucket in counting)
        return tally.waiting > tally.delayed

    def names(self) -> set[str]:
        """Return the names of all queues that are stored: they have jobs, or are not open."""
        return {name for name, tally in self.queues.items() if tally.jobs} | self.stored_modes.keys()

    def mode(self, queue: str, own: Bucket | None) -> QueueMode:
        """Return the mode of a queue; that in the broker's own bucket is the one that its transactions are held to."""
        if own is not None:
            return QueueMode(own.modes.get(queue, QueueMode.OPEN))
        return self.stored_modes.get(queue, QueueMode.OPEN)

    def remembers(self, answered_ms: int, now_ms: int) -> bool:
        """Tell whether an idempotency record still counts; DynamoDB removes those that do not, but late."""
        hour = answered_ms // HOUR_MS
        return now_ms < answered_ms + KEPT_MS or any(hour in bucket.content.records for bucket in self.buckets)

    def counts(self, queue: str) -> QueueCounts:
        """Return the counts of a queue."""
        tally = self.queues.get(queue, QueueTally())
        return QueueCounts(tally.waiting, tally.delayed, tally.running)

    def kinds(self) -> dict[tuple[str, bytes], int]:
        """Count living jobs by queue and the key of their needs."""
        return {(name, needs): jobs for name, tally in self.queues.items() for needs, jobs in tally.kinds.items()}
