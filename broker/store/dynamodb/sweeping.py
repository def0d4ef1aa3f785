"""Retention in a DynamoDB store: finished jobs by tenant, logs of removed jobs, and idempotency records by hour.

- A removed job's item is deleted in a transaction that stores a note of it; its log is deleted afterwards, item by
  item, and the tenant's usage is freed in the transaction that removes the note.
- Idempotency records are deleted by DynamoDB; here only what they count is taken back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from airunner.broker.store.dynamodb.batches import Dropped
from airunner.broker.store.dynamodb.notes import Note, read_note, write_note
from airunner.broker.store.dynamodb.schema import DUE, GONE, bucket_of, ended_partition, job_of_pk, job_pk
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.dynamodb.tallies import TenantTallies
from airunner.broker.store.rows import JobRow, Sweep

REMOVED_ROWS_MAX: Final = 80  # rows that removed jobs write in a step: their own, and those of tallies
LOGS_MAX: Final = 32  # logs that are deleted in a step
BUCKETS_MAX: Final = 16  # tally buckets from which old records are taken in a step


def find_finished(
    table: Table, tenants: Iterable[str], before_ms: int, limit: int, aside: Collection[str]
) -> list[str]:
    """Find jobs that ended before an instant, the earliest first."""
    calls = [partial(finished_of, table, tenant, limit, before_ms, aside) for tenant in tenants]
    found = sorted(entry for some in table.edges.run_all(calls) for entry in some)
    return [pk for _, pk in found[:limit]]


def finished_of(
    table: Table, tenant: str, limit: int, before_ms: int | None, aside: Collection[str]
) -> list[tuple[int, str]]:
    """Find the first jobs of a tenant that ended, before an instant if one is given."""
    values: dict[str, dict[str, Any]] = {":d": {"S": ended_partition(tenant)}}
    condition = "d = :d"
    if before_ms is not None:
        values[":at"] = {"N": str(before_ms)}
        condition += " AND dn < :at"
    items = table.query(condition, values, index=DUE, limit=limit + len(aside))
    found = [(int(item["dn"]["N"]), item["pk"]["S"]) for item in items]
    return [entry for entry in found if job_of_pk(entry[1])[1] not in aside][:limit]


def fitting(rows: Iterable[JobRow]) -> list[JobRow]:
    """Take as many of these jobs as may be removed in one transaction, from the first on."""
    taken: list[JobRow] = []
    buckets: set[tuple[str, int]] = set()
    for row in rows:
        buckets.add((row.tenant, bucket_of(row.queue)))
        if len(taken) + 2 * len(buckets) > REMOVED_ROWS_MAX:  # a tenant's revision may be written too
            break
        taken.append(row)
    return taken


def find_notes(table: Table, sweep: Sweep) -> list[Note]:
    """Find removed jobs whose logs are not deleted yet, and the first items of these."""
    left, logs = sweep.segments_max, 0
    notes: list[Note] = []
    for item in table.query("pk = :pk", {":pk": {"S": GONE}}, limit=LOGS_MAX):
        note = read_note(item)
        notes.append(note)
        for log in note.logs[: LOGS_MAX - logs]:
            values = {":pk": {"S": job_pk(log.tenant, log.job_id)}}
            parts = table.query("pk = :pk", values, limit=left + 1, projection="sk, z")
            found = [(part["sk"]["S"], int(part["z"]["N"]) if "z" in part else 0) for part in parts]
            log.items, log.is_whole = found[:left], len(found) <= left
            left -= len(log.items)
            logs += 1
            if left <= 0 or logs == LOGS_MAX:
                return notes
    return notes


def remove_logs(table: Table, notes: list[Note], items_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
    """Delete a part of the first of these logs; return the bytes that are freed by it."""
    log = next((log for note in notes for log in note.logs if not log.is_done), None)
    if log is None or not (log.items or log.is_whole):
        return {}, False
    freed = 0
    some: list[str] = []
    while log.items and len(some) < items_max and freed < bytes_max:
        sk, size_bytes = log.items.pop(0)
        some.append(sk)
        freed += size_bytes
    pk = job_pk(log.tenant, log.job_id)
    table.edges.run_all([partial(table.delete, (pk, sk)) for sk in some])
    log.was_touched |= bool(some)
    log.is_done = not log.items
    log.ends = log.is_done and log.is_whole
    freed = log.left_bytes if log.ends else min(freed, log.left_bytes)  # all, if a step before was cut off
    log.left_bytes -= freed
    return {log.tenant: freed}, True


def actions_for(table: Table, notes: Iterable[Note]) -> list[dict[str, Any]]:
    """Make the writes that keep of notes only the logs of which something is left."""
    actions: list[dict[str, Any]] = []
    for note in notes:
        rev = {":rev": {"N": str(note.rev)}}
        left = [log for log in note.logs if not log.ends]
        if not left:
            actions.append(table.delete_action(note.key, "rev = :rev", rev))
        elif len(left) < len(note.logs) or any(log.was_touched for log in left):
            actions.append(table.put_action(write_note(replace(note, logs=left)), "rev = :rev", rev))
    return actions


def old_records(tallies: Iterable[TenantTallies], before_ms: int, limit: int) -> tuple[dict[str, int], Dropped]:
    """Find old records, up to a limit; return how many these are by tenant, and where they are counted."""
    removed: Counter[str] = Counter()
    dropped: Dropped = {}
    for tenant in tallies:
        for bucket in tenant.buckets:
            for hour, tally in sorted(bucket.content.records.items()):
                some = min(tally.records, limit)
                if tally.last_ms < before_ms and some and len(dropped) < BUCKETS_MAX:
                    dropped.setdefault((tenant.tenant, bucket.number, bucket.broker), {})[hour] = some
                    removed[tenant.tenant] += some
                    limit -= some
    return dict(removed), dropped
