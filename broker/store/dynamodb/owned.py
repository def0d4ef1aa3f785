"""Due jobs of this broker: which of its leases and delays end when, kept in memory; and how they change owners.

The index `due` is late, so it only shows which jobs a broker owned some seconds ago: this one, when it starts; and a
dead one, whose jobs are adopted. In between, the memory is what the broker's own transactions have made of it. From
time to time the index is searched for jobs that are overdue and not in memory, whatever the reason. What this process
has neither granted nor renewed is renewed as soon as it is met: its deadline is an instant of another process's clock.

A renewal or an adoption changes one item at a time, each under its condition: it may be done in part, and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from airunner.broker.store.contract import StoreAway
from airunner.broker.store.dynamodb.items import JobItem, write_job
from airunner.broker.store.dynamodb.schema import DUE, JOB, SHARDS, due_at, due_partition, job_of_pk
from airunner.broker.store.dynamodb.table import CALLS_MAX, Table
from airunner.broker.store.rows import JobRow

LATE_S: Final = 10.0  # seconds by which an index is behind, at most
SEARCHED_S: Final = 30.0  # seconds between two searches of the index for jobs that are overdue
OVERDUE_MS: Final = 5_000  # by which a job that is not in memory is overdue
OVERDUE_MAX: Final = 1_000  # such entries that are read in a search
CHANGE_TRIES: Final = 8  # of one item, which others may change at the same time
_CHUNK: Final = 100  # jobs that are read together


class Owned:
    """Due jobs of a broker, by the partition keys of their items."""

    def __init__(self) -> None:
        self._instants: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __contains__(self, pk: str) -> bool:
        return pk in self._instants

    def note(self, pk: str, row: JobRow, broker: str) -> None:
        """Note a job's row as it is stored now."""
        at = due_at(row)
        if at is not None and is_owned(row, broker):
            self.note_at(pk, at)
        else:
            self.forget(pk)

    def note_at(self, pk: str, at_ms: int) -> None:
        """Note that a job may be due at an instant."""
        if self._instants.get(pk) != at_ms:
            self._instants[pk] = at_ms
            heappush(self._heap, (at_ms, pk))
            if len(self._heap) > 2 * len(self._instants) + 64:
                self._heap = [(at, own) for own, at in self._instants.items()]
                heapify(self._heap)

    def forget(self, pk: str) -> None:
        """Forget a job that is not due any more, or not this broker's."""
        self._instants.pop(pk, None)

    def due(self, now_ms: int, limit: int, aside: set[str]) -> list[str]:
        """List jobs that are due, the earliest first, without those that are set aside."""
        found: list[tuple[int, str]] = []
        while self._heap and self._heap[0][0] <= now_ms and len(found) < limit:
            at, pk = heappop(self._heap)
            if self._instants.get(pk) == at and (at, pk) not in found[-1:]:
                if job_of_pk(pk)[1] in aside:
                    self.forget(pk)
                else:
                    found.append((at, pk))
        for entry in found:
            heappush(self._heap, entry)
        return [pk for _, pk in found]

    def next_ms(self) -> int | None:
        """Return the first instant at which a job is due; None: none is."""
        while self._heap and self._instants.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def all(self) -> list[str]:
        """List all jobs."""
        return list(self._instants)


def is_owned(row: JobRow, broker: str) -> bool:
    """Check whether a lease or delay of a job is a broker's."""
    return row.broker == broker and due_at(row) is not None


def indexed(table: Table, broker: str) -> dict[str, int]:
    """Read from the index which jobs a broker owns, and when each is due at the earliest."""

    def of_shard(shard: int) -> list[tuple[str, int]]:
        values = {":d": {"S": due_partition(broker, shard)}}
        return [(item["pk"]["S"], int(item["dn"]["N"])) for item in table.query("d = :d", values, index=DUE)]

    found = table.edges.run_all([partial(of_shard, shard) for shard in range(SHARDS)])
    return {pk: at for some in found for pk, at in some}


def owns_any(table: Table, broker: str) -> bool:
    """Tell from the index whether a broker owns a job."""
    for shard in range(SHARDS):
        values = {":d": {"S": due_partition(broker, shard)}}
        if any(True for _ in table.query("d = :d", values, index=DUE, limit=1)):
            return True
    return False


def overdue(table: Table, owned: Owned, broker: str, now_ms: int, ends: dict[int, int]) -> Iterator[str]:
    """Read from the index which of a broker's jobs are overdue and not in its memory.

    A lease that is renewed for hours is among them. So a search goes on where the one before has ended, by shard.
    """
    at_ms = now_ms - OVERDUE_MS
    for shard in range(SHARDS):
        from_ms = min(ends.pop(shard, 0), at_ms)
        values = {":d": {"S": due_partition(broker, shard)}, ":from": {"N": str(from_ms)}, ":at": {"N": str(at_ms)}}
        items = list(table.query("d = :d AND dn BETWEEN :from AND :at", values, index=DUE, limit=OVERDUE_MAX))
        yield from (pk for item in items if (pk := item["pk"]["S"]) not in owned)
        if len(items) >= OVERDUE_MAX:
            ends[shard] = max(from_ms + 1, int(items[-1]["dn"]["N"]))


def renewed(row: JobRow, now_ms: int, broker: str) -> bool:
    """Give a job a full visibility period, and at most a full pause, and an owner; return whether that changes it."""
    before = (row.broker, row.deadline_ms, row.due_ms)
    row.broker = broker
    if row.deadline_ms is not None and row.visibility_ms is not None:
        row.deadline_ms = now_ms + row.visibility_ms
    if row.due_ms is not None and row.pause_ms is not None:
        row.due_ms = min(row.due_ms, now_ms + row.pause_ms)
    return before != (row.broker, row.deadline_ms, row.due_ms)


def take_over(table: Table, owned: Owned, pks: Iterable[str], before: str, broker: str, now_ms: int) -> int:
    """Renew jobs that the broker `before` owns, and make `broker` their owner; return how many there were.

    Raises `StoreAway`: some may be done, and all may be tried again.
    """
    wanted = list(pks)
    taken = 0
    for at in range(0, len(wanted), _CHUNK):
        items = table.read_jobs(table.get((pk, JOB) for pk in wanted[at : at + _CHUNK]))
        there = {job.key[0] for job in items}
        for pk in wanted[at : at + _CHUNK]:
            if pk not in there:
                owned.forget(pk)
        calls = [partial(_take_one, table, job, before, broker, now_ms) for job in items]
        for some in (calls[first : first + CALLS_MAX] for first in range(0, len(calls), CALLS_MAX)):
            for job in table.edges.run_all(some):
                if job is not None:
                    owned.note(job.key[0], job.row, broker)
                    taken += job.row.broker == broker
    return taken


def _take_one(table: Table, job: JobItem, before: str, broker: str, now_ms: int) -> JobItem | None:
    """Take over one job; return it as it is stored then, None: it is gone."""
    for _ in range(CHANGE_TRIES):
        if job.row.broker not in (before, broker) or due_at(job.row) is None:
            return job
        rev = job.rev
        if job.row.broker == broker and before != broker:
            return job
        if not renewed(job.row, now_ms, broker):
            return job
        if table.put(write_job(job), "rev = :rev", {":rev": {"N": str(rev)}}):
            job.rev += 1
            return job
        found = table.read_jobs(table.get([job.key]))
        if not found:
            return None
        (job,) = found
    raise StoreAway(f"{table.shown}: job {job.row.job_id} is changed by others all the time")
