"""Items of jobs and segments: rows as attributes of a DynamoDB item, and back.

A job's item has its row as MessagePack, without what its keys say already; and, as long as that takes no further KB
(each KB of an item is paid for with each write), its spec and the first small segments of its log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from airunner.broker.store.dynamodb.schema import (
    JOB,
    SPEC,
    TTL,
    Key,
    due_at,
    due_partition,
    ended_partition,
    job_of_pk,
    job_pk,
    listed_partition,
    record_key,
    secret_key,
    segment_sk,
    sequence_of_sk,
    shard_of,
    waiting_partition,
    waiting_place,
)
from airunner.broker.store.rows import JobRow, Record, SecretRow, Segment
from airunner.protocol.names import JobId, RequestId

Item = dict[str, Any]

PIECE_BYTES_MAX: Final = 380_000  # of a segment in one item, which may have 400 KB
KB: Final = 1_024
SMALL_EVENTS_BYTES: Final = 300  # of a segment that may be inside a job's item
SEGMENT_FIELDS_BYTES: Final = 32  # of a segment inside, beside its events
INSIDE_SEGMENTS_MAX: Final = 8
_rows = msgspec.msgpack.Decoder(JobRow)


class _Inside(Struct, array_like=True, gc=False):
    """What a job's item has beside its row: bytes of its whole log, facts, and small segments."""

    log_bytes: int = 0
    facts: list[bytes] = []
    segments: list[Segment] = []


_insides = msgspec.msgpack.Decoder(_Inside)
_encode = msgspec.msgpack.Encoder().encode


class JobItem(Struct):
    """Item of a job as it is stored: its row, its revision, and what else is in it."""

    row: JobRow
    rev: int = 0  # 0: it is not stored
    spec_inside: bool = True  # otherwise the spec is an item beside this one
    log_bytes: int = 0  # of all segments
    facts: tuple[bytes, ...] = ()
    segments: tuple[Segment, ...] = ()  # small ones, which are inside
    due_key: tuple[str, int] | None = None  # in the index `due`

    @property
    def key(self) -> Key:
        """Key of the item."""
        return job_pk(self.row.tenant, self.row.job_id), JOB


def read_job(item: Item) -> JobItem:
    """Read a job from its item; the spec is b"" if it is an item beside this one."""
    row = _rows.decode(item["r"]["B"])
    tenant, job_id = job_of_pk(item["pk"]["S"])
    row.tenant, row.job_id = tenant, JobId(job_id)
    inside = _insides.decode(item["x"]["B"])
    return JobItem(
        row=row,
        rev=int(item["rev"]["N"]),
        spec_inside="o" not in item,
        log_bytes=inside.log_bytes,
        facts=tuple(inside.facts),
        segments=tuple(inside.segments),
        due_key=(item["d"]["S"], int(item["dn"]["N"])) if "d" in item else None,
    )


def write_job(job: JobItem) -> Item:
    """Make the item of a job, with the next revision, and its keys in the indexes."""
    row = job.row
    pk, sk = job.key
    kept = copy(row)
    kept.tenant, kept.job_id = "", JobId("")
    if not job.spec_inside:
        kept.spec = b""
    inside = _Inside(job.log_bytes, list(job.facts), list(job.segments))
    shard = shard_of(row.job_id)
    item: Item = {
        "pk": {"S": pk},
        "sk": {"S": sk},
        "rev": {"N": str(job.rev + 1)},
        "r": {"B": _encode(kept)},
        "x": {"B": _encode(inside)},
        "l": {"S": listed_partition(row.tenant, shard)},
        "n": {"N": str(row.number)},
    }
    if not job.spec_inside:
        item["o"] = {"BOOL": True}
    if not row.gate:
        item["w"] = {"S": waiting_partition(row.key, shard)}
        item["wp"] = {"B": waiting_place(row.priority, row.number)}
    if (due_key := due_key_of(job)) is not None:
        item["d"], item["dn"] = {"S": due_key[0]}, {"N": str(due_key[1])}
    return item


def due_key_of(job: JobItem) -> tuple[str, int] | None:
    """Make the key of a job in the index `due`; a later instant leaves it, since each move is paid for."""
    row = job.row
    if (at := due_at(row)) is None:
        return None if row.finished_ms is None else (ended_partition(row.tenant), row.finished_ms)
    partition = due_partition(row.broker, shard_of(row.job_id))
    if job.due_key is not None and job.due_key[0] == partition:
        at = min(at, job.due_key[1])
    return partition, at


def keep_inside(job: JobItem, segment: Segment) -> bool:
    """Add a small segment to a job's item if it takes no further KB there; return whether it was added."""
    if len(segment.events) > SMALL_EVENTS_BYTES or len(job.segments) == INSIDE_SEGMENTS_MAX:
        return False
    size = size_of(write_job(job))
    if -(-(size + len(segment.events) + SEGMENT_FIELDS_BYTES) // KB) > -(-size // KB):
        return False
    job.segments = (*job.segments, segment)
    return True


def write_spec(job: JobItem) -> Item:
    """Make the item of a spec beside its job's."""
    return {"pk": {"S": job.key[0]}, "sk": {"S": SPEC}, "s": {"B": job.row.spec}}


def write_segment(pk: str, segment: Segment) -> list[Item]:
    """Make the items of a segment: one, and one more for each further `PIECE_BYTES_MAX` of its events."""
    events = segment.events
    pieces = [events[at : at + PIECE_BYTES_MAX] for at in range(0, len(events) or 1, PIECE_BYTES_MAX)]
    first: Item = {
        "pk": {"S": pk},
        "sk": {"S": segment_sk(segment.first_sequence)},
        "e": {"B": pieces[0]},
        "z": {"N": str(len(pieces[0]))},
        "h": {"B": _encode((segment.count, segment.attempt, segment.last_timestamp_ms))},
    }
    further = [
        {
            "pk": {"S": pk},
            "sk": {"S": segment_sk(segment.first_sequence, at)},
            "e": {"B": piece},
            "z": {"N": str(len(piece))},
        }
        for at, piece in enumerate(pieces[1:], start=1)
    ]
    return [first, *further]


def read_segments(number: int, items: Iterable[Item]) -> Iterator[Segment]:
    """Read segments from their items, which are in order, each followed by its further pieces."""
    begun: Segment | None = None
    for item in items:
        events = item["e"]["B"]
        if "h" in item:
            if begun is not None:
                yield begun
            count, attempt, timestamp_ms = msgspec.msgpack.decode(item["h"]["B"])
            begun = Segment(
                number=number,
                first_sequence=sequence_of_sk(item["sk"]["S"]),
                count=count,
                attempt=attempt,
                last_timestamp_ms=timestamp_ms,
                events=events,
            )
        elif begun is not None:
            begun = replace(begun, events=begun.events + events)
    if begun is not None:
        yield begun


def read_record(item: Item) -> Record:
    """Read an idempotency record from its item."""
    _, tenant, request = item["pk"]["S"].split("#")
    return Record(
        tenant=tenant,
        request_id=RequestId(bytes.fromhex(request)),
        body_hash=item["body_hash"]["B"],
        answered_ms=int(item["answered_ms"]["N"]),
        job_ids=item["job_ids"]["S"],
    )


def write_record(record: Record, ttl_s: int) -> Item:
    """Make the item of an idempotency record, which DynamoDB removes after an instant."""
    pk, sk = record_key(record.tenant, record.request_id)
    return {
        "pk": {"S": pk},
        "sk": {"S": sk},
        "body_hash": {"B": record.body_hash},
        "answered_ms": {"N": str(record.answered_ms)},
        "job_ids": {"S": record.job_ids},
        TTL: {"N": str(ttl_s)},
    }


def read_secret(item: Item) -> SecretRow | None:
    """Read a sealed secret from its item; None: the item is the revision of a queue's secrets."""
    queue, name = item["sk"]["S"].split("#", 1)
    if not name:
        return None
    tenant = item["pk"]["S"].removeprefix("X#")
    return SecretRow(tenant=tenant, queue=queue, name=name, box=item["box"]["B"], set_ms=int(item["set_ms"]["N"]))


def write_secret(row: SecretRow) -> Item:
    """Make the item of a sealed secret."""
    pk, sk = secret_key(row)
    return {"pk": {"S": pk}, "sk": {"S": sk}, "box": {"B": row.box}, "set_ms": {"N": str(row.set_ms)}}


def size_of(item: Item) -> int:
    """Compute the bytes of an item as DynamoDB counts them."""
    return sum(len(name) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "N":
        return len(content) // 2 + 2
    if kind == "S":
        return len(content.encode())
    if kind == "B":
        return len(content)
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + _value_bytes(each) for name, each in content.items())
    return 1
