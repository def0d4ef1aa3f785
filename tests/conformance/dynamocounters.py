"""The counters of an engine on DynamoDB: tallies of all brokers, and indexes, and what they were made of, added up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from airunner.broker.lifecycle.world import QUEUE_BYTES, RECORD_BYTES
from airunner.broker.store.dynamodb.items import Item, JobItem, read_job, write_job
from airunner.broker.store.dynamodb.notes import read_note
from airunner.broker.store.dynamodb.schema import GONE, JOB, LOG, SPEC, bucket_of, needs_key, words_key
from airunner.broker.store.dynamodb.tallies import HOUR_MS, TenantTallies
from airunner.broker.store.rows import JobRow
from airunner.protocol.job import JobState


def scan(client: Any, table: str) -> Iterator[Item]:
    """Read all items, as they are now."""
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        yield from page["Items"]


class Stored:
    """All that is in a table, sorted by what it is."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = {(item["pk"]["S"], item["sk"]["S"]): item for item in items}
        self.jobs: list[JobItem] = []
        self.logs: Counter[str] = Counter()  # bytes by partition key of the job, without those inside of its item
        self.specs: dict[str, int] = {}
        self.gone: dict[tuple[str, str], int] = {}  # bytes left
        self.secrets: Counter[str] = Counter()
        self.records: defaultdict[str, Counter[int]] = defaultdict(Counter)  # by the hour in which they were stored
        self.tallies: defaultdict[str, list[Item]] = defaultdict(list)
        for (pk, sk), item in self.items.items():
            self._sort(pk, sk, item)

    def _sort(self, pk: str, sk: str, item: Item) -> None:
        kind, _, rest = pk.partition("#")
        tenant = rest.partition("#")[0]
        if kind == "J" and sk == JOB:
            self.jobs.append(read_job(item))
        elif kind == "J" and sk == SPEC:
            self.specs[pk] = len(item["s"]["B"])
        elif kind == "J" and sk.startswith(LOG):
            self.logs[pk] += len(item["e"]["B"])
        elif kind == GONE:
            self.gone |= {(log.tenant, log.job_id): log.left_bytes for log in read_note(item).logs}
        elif kind == "X" and "box" in item:
            self.secrets[tenant] += len(item["box"]["B"])
        elif kind == "R":
            self.records[tenant][int(item["answered_ms"]["N"]) // HOUR_MS] += 1
        elif kind == "T":
            self.tallies[rest].append(item)

    def rows_of(self, tenant: str) -> list[JobRow]:
        return [job.row for job in self.jobs if job.row.tenant == tenant]


def require_right(items: Iterable[Item]) -> None:
    """Compare each counter with what it counts, over all brokers, and each job's index entries with its row."""
    stored = Stored(items)
    for job in stored.jobs:
        _require_job(stored, job)
    for (tenant, job_id), left in stored.gone.items():
        assert left >= stored.logs[f"J#{tenant}#{job_id}"], job_id
    tenants = {*stored.tallies, *stored.secrets, *stored.records, *(job.row.tenant for job in stored.jobs)}
    for tenant in tenants:
        _require_tallies(stored, tenant, TenantTallies(tenant, stored.tallies[tenant]))


def _require_job(stored: Stored, job: JobItem) -> None:
    """Check that a job's item has its keys in the indexes, and that what belongs to it is there."""
    pk, row = job.key[0], job.row
    job.rev -= 1
    assert write_job(job) == stored.items[job.key], f"the item of {row.job_id} is not as its row says"
    assert ("w" in stored.items[job.key]) == (not row.gate), row
    assert (not row.gate) == (row.state == JobState.SCHEDULED and row.due_ms is None), row
    assert job.spec_inside != (pk in stored.specs), row
    assert job.log_bytes == stored.logs[pk] + sum(len(segment.events) for segment in job.segments), row
    if row.key.needs:
        assert words_key(row.tenant, needs_key(row.key.needs)) in stored.items, row


def _require_tallies(stored: Stored, tenant: str, tallies: TenantTallies) -> None:
    rows = stored.rows_of(tenant)
    specs = sum(len(job.row.spec) or stored.specs[job.key[0]] for job in stored.jobs if job.row.tenant == tenant)
    logs = sum(job.log_bytes for job in stored.jobs if job.row.tenant == tenant)
    gone = sum(left for (other, _), left in stored.gone.items() if other == tenant)
    records: Counter[int] = Counter()  # what of them is counted: the others wait for DynamoDB to remove them
    for bucket in tallies.buckets:
        records.update({hour: tally.records for hour, tally in bucket.content.records.items()})
    assert all(stored.records[tenant][hour] == counted for hour, counted in records.items()), tenant
    fixed = RECORD_BYTES * records.total() + QUEUE_BYTES * len(tallies.stored_modes)
    size_bytes = specs + logs + gone + stored.secrets[tenant] + fixed
    waiting = [row for row in rows if JobState(row.state).waiting]
    assert (tallies.size_bytes, tallies.waiting) == (size_bytes, len(waiting)), tenant
    for queue in {*tallies.queues, *(row.queue for row in rows)}:
        of_queue = [row for row in rows if row.queue == queue]
        counted = tallies.queues[queue]
        assert (counted.jobs, counted.waiting, counted.delayed, counted.running) == (
            len(of_queue),
            sum(JobState(row.state).waiting for row in of_queue),
            sum(JobState(row.state).waiting and bool(row.gate) for row in of_queue),
            sum(row.state == JobState.RUNNING for row in of_queue),
        ), queue
        kinds = Counter(needs_key(row.key.needs) for row in of_queue if row.finished_ms is None and row.key.needs)
        assert counted.kinds == kinds, queue
    for bucket in tallies.buckets:
        modes = {queue: str(mode) for queue, mode in tallies.stored_modes.items() if bucket_of(queue) == bucket.number}
        assert bucket.modes == modes, bucket.key
