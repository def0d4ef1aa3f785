"""Tallies of a batch: the counters of queues, kinds of jobs and tenants, and how the batch's commands change them.

A kind is the jobs of a queue with the same needs; jobs without needs are not counted by kind.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from msgspec import Struct

from airunner.broker.store.rows import Changes, JobRow, Loaded, QueueCounts, QueueKey, Usage
from airunner.protocol.job import JobState


class Standing(Struct, frozen=True):
    """Standing of a job: how much it adds to each counter, 0 or 1; `alive`: it has not ended; `gate`: see `JobRow`."""

    waiting: int
    delayed: int
    running: int
    alive: int
    gate: int


ENDED: Final = Standing(0, 0, 0, 0, gate=1)
_RUNNING: Final = Standing(0, 0, 1, 1, gate=1)
_DELAYED: Final = Standing(1, 1, 0, 1, gate=1)
_WAITING: Final = Standing(1, 0, 0, 1, gate=0)


def standing_of(job: JobRow) -> Standing:
    """Compute the standing of a job."""
    if job.state == JobState.RUNNING:
        return _RUNNING
    if job.state == JobState.BLOCKED:
        return _DELAYED
    if job.state != JobState.SCHEDULED:
        return ENDED
    return _WAITING if job.due_ms is None else _DELAYED


class Tallies:
    """Counters as they were loaded, and what the batch adds to each.

    The World adds to `bytes_added` itself, in `account` and for each segment: a call for that would be one of some 30
    for a job.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], dict[str, int]] = {}  # by tenant and queue: jobs alive, by needs
        self._kinds_of: dict[str, int] = {}  # by tenant: its kinds in all queues
        self._usage: dict[str, Usage] = {}  # by tenant, as loaded
        self.bytes_added: defaultdict[str, int] = defaultdict(int)  # by tenant: what its data takes (negative: freed)
        self._kinds_added: defaultdict[QueueKey, int] = defaultdict(int)
        self._counts_added: dict[tuple[str, str], list[int]] = {}  # by tenant and queue: waiting, delayed, running

    def adopt(self, loaded: Loaded) -> None:
        """Set the counters of kinds and usage to what was loaded."""
        self._kinds_of.update(loaded.kinds_of)
        self._usage |= loaded.usage
        for (tenant, queue, needs), count in loaded.kinds.items():
            self._kinds.setdefault((tenant, queue), {})[needs] = count

    def kinds(self, tenant: str, queue: str) -> dict[str, int]:
        """Count the jobs with needs in a queue that have not ended, by needs."""
        return self._kinds.get((tenant, queue), {})

    def kinds_of(self, tenant: str) -> int:
        """Count the kinds of a tenant's jobs in all of its queues."""
        return self._kinds_of.get(tenant, 0)

    def usage(self, tenant: str) -> Usage:
        """Compute the usage of a tenant."""
        before = self._usage.get(tenant) or Usage()
        return Usage(before.size_bytes + self.bytes_added[tenant], before.waiting + self._waiting_added(tenant))

    def update_standing(self, job: JobRow, before: Standing, after: Standing) -> None:
        """Change the counters for a job whose standing has changed."""
        counts = self._counts_added.get((job.tenant, job.queue))
        if counts is None:
            counts = self._counts_added[job.tenant, job.queue] = [0, 0, 0]
        counts[0] += after.waiting - before.waiting
        counts[1] += after.delayed - before.delayed
        counts[2] += after.running - before.running
        if job.needs and after.alive != before.alive:
            self._count_kind(job.key, after.alive - before.alive)

    def save(self, changes: Changes) -> None:
        """Write what the batch adds to each counter into `changes`."""
        changes.counts = {QueueKey(*key): QueueCounts(*added) for key, added in self._counts_added.items()}
        changes.kinds = {key: added for key, added in self._kinds_added.items() if added}
        for tenant in self.bytes_added.keys() | {tenant for tenant, _ in self._counts_added}:
            usage = Usage(self.bytes_added[tenant], self._waiting_added(tenant))
            if usage.size_bytes or usage.waiting:
                changes.usage[tenant] = usage

    def _waiting_added(self, tenant: str) -> int:
        return sum(added[0] for (other, _), added in self._counts_added.items() if other == tenant)

    def _count_kind(self, key: QueueKey, added: int) -> None:
        self._kinds_added[key] += added
        kinds = self._kinds.setdefault((key.tenant, key.queue), {})
        count = kinds.get(key.needs, 0) + added
        if count > 0:
            kinds[key.needs] = count
            if count == added:
                self._kinds_of[key.tenant] = self._kinds_of.get(key.tenant, 0) + 1
        elif kinds.pop(key.needs, None) is not None:
            self._kinds_of[key.tenant] = self._kinds_of.get(key.tenant, 0) - 1
