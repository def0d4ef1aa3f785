"""An engine of dicts whose transactions are bounded as a DynamoDB's are: it counts what each batch would write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from airunner.broker.lifecycle.extents import BROKERS_MAX, COUNTERS_MAX, SEGMENT_BYTES_MAX
from airunner.broker.store.rows import Changes, JobRow, Keys, Loaded, QueueKey, Segment
from tests.conformance.memory import MemoryEngine, Tables

ROWS_MAX: Final = 100
BYTES_MAX: Final = 2_500_000
INLINE_BYTES: Final = 1_024  # of a spec that is kept in its job's row: a larger one is stored apart, before


def pieces(segment: Segment) -> int:
    return -(-len(segment.events) // SEGMENT_BYTES_MAX)


def counters(changes: Changes) -> Mapping[str, set[int]]:
    """The rows of counters that change, by tenant."""
    queues = {*changes.counts, *(key._replace(needs="") for key in changes.kinds)}
    queues |= {QueueKey(after.tenant, after.queue) for _, after in changes.changed}
    found: defaultdict[str, set[int]] = defaultdict(set)
    for key in queues:
        found[key.tenant].add(crc32(key.queue.encode()) % COUNTERS_MAX)
    for tenant in changes.usage:
        found[tenant] |= set()
    return found


def rows_of(changes: Changes) -> int:
    """Count the rows of a transaction."""
    new = {job.number for job in changes.added}
    jobs = new | {after.number for _, after in changes.changed}
    grants = {(after.tenant, after.lease_request) for before, after in changes.changed if granted(before, after)}
    logs = sum(pieces(one) for one in changes.segments if one.number not in new or one.first_sequence != 1)
    by_tenant = counters(changes)
    tallies = sum(1 + len(rows) for rows in by_tenant.values())
    secrets = [(row.tenant, row.queue) for row in changes.secrets]
    secrets += [(tenant, queue) for tenant, queue, _ in changes.secrets_removed]
    settings = len(secrets) + len({*secrets}) + (1 + BROKERS_MAX) * len(changes.modes)
    return 1 + len(jobs) + len(grants) + logs + tallies + settings + len(changes.records)


def granted(before: JobRow, after: JobRow) -> bool:
    return before.lease_request != after.lease_request


def bytes_of(changes: Changes) -> int:
    """Count the bytes of a transaction's contents, with the small specs in the rows of its jobs."""
    specs = sum(min(len(job.spec), INLINE_BYTES) for job in (*changes.added, *(after for _, after in changes.changed)))
    contents = sum(len(one.events) for one in changes.segments if one.first_sequence != 1)
    return specs + contents + sum(len(row.box) for row in changes.secrets)


class Stepping(MemoryEngine):
    """Ends and removes only so many jobs in a step."""

    step = 9

    def __init__(self, tables: Tables | None = None) -> None:
        super().__init__(tables)
        self._sweeps = False

    def load(self, keys: Keys) -> Loaded:
        self._sweeps = keys.sweep is not None
        return super().load(keys)

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        return super().due(now_ms, limit)[: self.step]

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        return super().finished(before_ms, min(limit, self.step) if self._sweeps else limit)


class Bounded(Stepping):
    """Fails on each transaction that is too large; `sizes`: the rows of each that was saved."""

    rows_max = ROWS_MAX
    bytes_max = BYTES_MAX
    step = (ROWS_MAX - 1) // 4  # a job, its end, and the counters of its tenant

    def __init__(self, tables: Tables | None = None) -> None:
        super().__init__(tables)
        self.sizes: list[int] = []

    def save(self, changes: Changes) -> None:
        self.sizes.append(rows_of(changes))
        assert self.sizes[-1] <= self.rows_max
        assert bytes_of(changes) <= self.bytes_max
        super().save(changes)


class Small(Bounded):
    """So small that most batches are divided: the largest requests of the model just fit."""

    rows_max = 40
    step = Stepping.step
