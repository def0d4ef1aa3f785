"""Schema of a DynamoDB store: keys of all items of its one table, and its indexes.

| item | `pk` | `sk` |
|---|---|---|
| store: version, fleet | `STORE` | `0` |
| broker | `BROKERS` | its id |
| tenant: `rev` rises when one of its tally buckets is made and when a mode is changed | `TENANTS` | tenant |
| tally bucket of a broker, see `tallies` | `T#tenant` | `NN#broker` |
| mode of a queue, unless it is open | `T#tenant` | `Q#queue` |
| needs, as text | `K#tenant` | their hash |
| sealed secrets: a revision of each queue's, and each secret | `X#tenant` | `queue#`, `queue#name` |
| job; spec, if it is not inside; segment, and pieces | `J#tenant#job` | `0`; `S`; `E#sequence`, `E#sequence#piece` |
| idempotency record | `R#tenant#request` | `0` |
| grant of a lease request | `G#tenant#request` | `0` |
| removed jobs whose logs are not deleted yet | `GONE` | `tenant#job` of the first |
| parcel of a broker's outbox, see `outbox` | `O#broker` | `tenant#instant#token` |

No name contains `#`. The indexes are sparse, have keys only, and are late; whatever is found in one is read again from
the table:

- `waiting`: jobs that may be leased, by queue, needs and shard, in the order of leases.
- `due`: jobs whose lease or delay ends, by broker and shard; `dn` is a lower bound of the instant. Jobs that have
  ended, by tenant, with the instant when they did.
- `listed`: jobs by tenant and shard, in the order of submission.

Records and grants are removed by DynamoDB, at the instant in `ttl`.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any, Final
from zlib import crc32

from airunner.broker.store.rows import JobRow, QueueKey, SecretRow

VERSION: Final = 2
SHARDS: Final = 4  # partitions of an index for each queue, broker or tenant: each takes some 1,000 writes a second
BUCKETS: Final = 16  # tally buckets of a tenant for each broker; a transaction with 64 queues writes no more
WAITING: Final = "waiting"
DUE: Final = "due"
LISTED: Final = "listed"
INDEXES: Final = {WAITING: (("w", "S"), ("wp", "B")), DUE: (("d", "S"), ("dn", "N")), LISTED: (("l", "S"), ("n", "N"))}
TTL: Final = "ttl"
STORE: Final = ("STORE", "0")
BROKERS: Final = "BROKERS"
TENANTS: Final = "TENANTS"
GONE: Final = "GONE"
JOB: Final = "0"
SPEC: Final = "S"
LOG: Final = "E#"
MODE: Final = "Q#"
NEEDS_KEY_BYTES: Final = 16  # enough that no two needs of a tenant's jobs have the same key
_PLACE: Final = struct.Struct(">BQ")  # sorts as its numbers do
_PLACES: Final = 128  # added to a place, which is minus a priority, so that it is never negative
_SLOT_BITS: Final = 10
_COUNT_BITS: Final = 11
SLOTS: Final = 1 << _SLOT_BITS  # brokers of a store that are told apart in the numbers of jobs
_COUNTS: Final = 1 << _COUNT_BITS

Key = tuple[str, str]


def table_definition(name: str) -> dict[str, Any]:
    """Define the table, as CreateTable takes it."""
    keys = [("pk", "S"), ("sk", "S"), *(key for index in INDEXES.values() for key in index)]
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind in keys],
        "KeySchema": _schema("pk", "sk"),
        "GlobalSecondaryIndexes": [
            {
                "IndexName": index,
                "KeySchema": _schema(*(key for key, _ in pair)),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
            for index, pair in INDEXES.items()
        ],
    }


def _schema(hashed: str, sorted_by: str) -> list[dict[str, str]]:
    return [{"AttributeName": hashed, "KeyType": "HASH"}, {"AttributeName": sorted_by, "KeyType": "RANGE"}]


def job_pk(tenant: str, job_id: str) -> str:
    """Make the partition key of a job."""
    return f"J#{tenant}#{job_id}"


def job_of_pk(pk: str) -> tuple[str, str]:
    """Return the tenant and id of the job with a partition key."""
    _, tenant, job_id = pk.split("#")
    return tenant, job_id


def record_key(tenant: str, request_id: bytes) -> Key:
    """Make the key of a request's idempotency record."""
    return f"R#{tenant}#{request_id.hex()}", "0"


def grant_key(tenant: str, request_id: bytes) -> Key:
    """Make the key of a lease request's grant."""
    return f"G#{tenant}#{request_id.hex()}", "0"


def tallies_pk(tenant: str) -> str:
    """Make the partition key of a tenant's tally buckets and modes."""
    return f"T#{tenant}"


def bucket_of(queue: str) -> int:
    """Return the number of the tally bucket that counts a queue."""
    return crc32(queue.encode()) % BUCKETS


def bucket_sk(bucket: int, broker: str) -> str:
    """Make the sort key of a broker's tally bucket."""
    return f"{bucket:02d}#{broker}"


def words_key(tenant: str, needs: bytes) -> Key:
    """Make the key of the text of needs."""
    return f"K#{tenant}", needs.hex()


def secret_key(row: SecretRow | tuple[str, str, str]) -> Key:
    """Make the key of a secret, from its row or its tenant, queue and name."""
    tenant, queue, name = (row.tenant, row.queue, row.name) if isinstance(row, SecretRow) else row
    return f"X#{tenant}", f"{queue}#{name}"


def segment_sk(sequence: int, piece: int = 0) -> str:
    """Make the sort key of a segment, or of a further piece of it."""
    return f"{LOG}{sequence:016d}" + (f"#{piece}" if piece else "")


def sequence_of_sk(sk: str) -> int:
    """Return the first sequence of the segment with a sort key."""
    return int(sk[2:18])


def gone_sk(tenant: str, job_id: str) -> str:
    """Make the sort key of a removed job."""
    return f"{tenant}#{job_id}"


def parcels_pk(broker: str) -> str:
    """Make the partition key of the parcels of a broker's outbox."""
    return f"O#{broker}"


def shard_of(job_id: str) -> int:
    """Return the number of the partition of each index that has a job."""
    return crc32(job_id.encode()) % SHARDS


def needs_key(needs: str) -> bytes:
    """Hash needs to the key by which they are counted and found; b"" for none."""
    return blake2b(needs.encode(), digest_size=NEEDS_KEY_BYTES).digest() if needs else b""


def waiting_partition(key: QueueKey, shard: int) -> str:
    """Make the partition key in the index `waiting`."""
    return f"{key.tenant}#{key.queue}#{needs_key(key.needs).hex()}#{shard}"


def waiting_place(priority: int, number: int) -> bytes:
    """Make the sort key in the index `waiting`: the highest priority first, then the order of submission."""
    return _PLACE.pack(_PLACES - priority, number)


def place_of(raw: bytes) -> tuple[int, int]:
    """Return the place (minus the priority) and the number of a job from its sort key in the index `waiting`."""
    place, number = _PLACE.unpack(raw)
    return place - _PLACES, number


def due_partition(broker: str, shard: int) -> str:
    """Make the partition key in the index `due` for jobs of a broker."""
    return f"{broker}#{shard}"


def ended_partition(tenant: str) -> str:
    """Make the partition key in the index `due` for jobs that have ended."""
    return f"F#{tenant}"


def listed_partition(tenant: str, shard: int) -> str:
    """Make the partition key in the index `listed`."""
    return f"{tenant}#{shard}"


def due_at(job: JobRow) -> int | None:
    """Return the first instant at which something of a job is due; None: never."""
    instants = [at for at in (job.deadline_ms, job.due_ms) if at is not None]
    return min(instants, default=None)


class Numbers:
    """Numbers of new jobs, in bits: the instant in ms (42), the broker's slot (10), a count (11). They rise."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._ms, self._count = 0, 0

    def draw(self, now_ms: int, count: int) -> list[int]:
        """Draw numbers, each larger than those before."""
        numbers: list[int] = []
        if now_ms > self._ms:
            self._ms, self._count = now_ms, 0
        for _ in range(count):
            if self._count == _COUNTS:
                self._ms, self._count = self._ms + 1, 0
            numbers.append((((self._ms << _SLOT_BITS) | self._slot) << _COUNT_BITS) | self._count)
            self._count += 1
        return numbers
