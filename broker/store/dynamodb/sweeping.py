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

from airunner.broker.store.dynamodb.batches import Dropped, Gone
from airunner.broker.store.dynamodb.schema import DUE, GONE, ended_partition, job_of_pk, job_pk
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.dynamodb.tallies import HOUR_MS, TenantTallies
from airunner.broker.store.rows import Sweep

REMOVED_MAX: Final = 24  # finished jobs that are removed in a step: each writes two items
LOGS_MAX: Final = 16  # logs that are deleted in a step
ITEMS_MAX: Final = 256  # items of a log that are deleted in a step
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


def find_gone(table: Table, sweep: Sweep) -> list[Gone]:
    """Find removed jobs whose logs are not deleted yet, and the first items of these."""
    left = min(sweep.segments_max, ITEMS_MAX)
    found: list[Gone] = []
    for item in table.query("pk = :pk", {":pk": {"S": GONE}}, limit=LOGS_MAX):
        if left <= 0:
            break
        tenant, job_id = item["sk"]["S"].split("#")
        pk = job_pk(tenant, job_id)
        keys = [one["sk"]["S"] for one in table.query("pk = :pk", {":pk": {"S": pk}}, limit=left + 1, projection="sk")]
        found.append(
            Gone(
                key=(GONE, item["sk"]["S"]),
                tenant=tenant,
                pk=pk,
                left_bytes=int(item["left"]["N"]),
                items=keys[:left],
                is_whole=len(keys) <= left,
            )
        )
        left -= len(keys)
    return found


def remove_logs(table: Table, gone: list[Gone], items_max: int) -> tuple[dict[str, int], bool]:
    """Delete a part of the first of these logs; what it took is freed with the last part."""
    log = next((one for one in gone if not one.is_done), None)
    if log is None:
        return {}, False
    some, log.items = log.items[:items_max], log.items[items_max:]
    table.edges.run_all([partial(table.delete, (log.pk, sk)) for sk in some])
    log.is_done = not log.items
    log.ends = log.is_done and log.is_whole
    return {log.tenant: log.left_bytes if log.ends else 0}, True


def actions_for(table: Table, gone: Iterable[Gone]) -> list[dict[str, Any]]:
    """Make the writes that forget removed jobs whose logs are deleted."""
    return [table.delete_action(log.key, "attribute_exists(pk)") for log in gone if log.ends]


def old_records(tallies: Iterable[TenantTallies], before_ms: int) -> tuple[dict[str, int], Dropped]:
    """Find the hours whose records are old; return how many these are by tenant, and where they are counted."""
    removed: Counter[str] = Counter()
    dropped: Dropped = {}
    for one in tallies:
        for bucket in one.buckets:
            records = bucket.content.records
            hours = [hour for hour in records if (hour + 1) * HOUR_MS <= before_ms]
            if hours and len(dropped) < BUCKETS_MAX:
                dropped[one.tenant, bucket.number, bucket.broker] = hours
                removed[one.tenant] += sum(records[hour] for hour in hours)
    return dict(removed), dropped
