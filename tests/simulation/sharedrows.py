"""Rows of the simulated PostgreSQL, and what transactions do to them: to a copy as they decide, then as they commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import Final

from msgspec.structs import replace

from airunner.broker.store.contract import Identity, Moved
from airunner.broker.store.rows import BrokerRow, Changes, JobRow
from tests.conformance.memory import MemoryEngine, Tables

SERVER_VERSION: Final = "simulated"


class SharedTables(Tables):
    """With the table of brokers."""

    def __init__(self) -> None:
        super().__init__()
        self.brokers: dict[str, BrokerRow] = {}


class Rows(MemoryEngine):
    """What a transaction does to tables: to a copy as it is decided, and to the committed ones as it ends."""

    _now: SharedTables

    def __init__(self, tables: SharedTables) -> None:
        super().__init__(tables)

    def require_unmoved(self, changes: Changes) -> None:
        """Numbers are of a sequence: they are committed in any order."""
        t = self._now
        if any(job.number in t.jobs for job in changes.added):
            raise Moved
        t.last_number = 0
        super().require_unmoved(changes)

    def beat(self, broker: str) -> None:
        row = self._now.brokers[broker]
        self._now.brokers[broker] = replace(row, beat=row.beat + 1)

    def register(self, identity: Identity) -> bool:
        row = self._now.brokers.get(identity.broker)
        self._now.brokers[identity.broker] = BrokerRow(
            broker=identity.broker,
            epoch=1 if row is None else row.epoch + 1,
            beat=1 if row is None else row.beat + 1,
            ready_seq=0 if row is None else row.ready_seq,
            requests=identity.requests,
            events=identity.events,
            version=SERVER_VERSION,
            dead=False,
        )
        return True

    def write(self, changes: Changes, broker: str) -> bool:
        self.save(changes)
        if changes.ready:
            row = self._now.brokers[broker]
            self._now.brokers[broker] = replace(row, ready_seq=row.ready_seq + 1)
        return changes != Changes()

    def renew(self, broker: str, now_ms: int) -> bool:
        jobs = list(self.of_broker(broker))
        for job in jobs:
            other = self._now.jobs[job.number] = copy(job)
            if job.deadline_ms is not None and job.visibility_ms is not None:
                other.deadline_ms = now_ms + job.visibility_ms
            if job.due_ms is not None and job.pause_ms is not None:
                other.due_ms = min(job.due_ms, now_ms + job.pause_ms)
        return bool(jobs)

    def adopt(self, dead: str, broker: str, now_ms: int) -> bool:
        """Own what is due of a broker that is dead: its instants were those of another clock."""
        self._now.brokers[dead] = replace(self._now.brokers[dead], dead=True)
        for job in list(self.of_broker(dead)):
            other = self._now.jobs[job.number] = copy(job)
            other.broker = broker
            if job.deadline_ms is not None and job.visibility_ms is not None:
                other.deadline_ms = now_ms + job.visibility_ms
            if job.due_ms is not None and job.pause_ms is not None:
                other.due_ms = now_ms + job.pause_ms
        return True

    def mark_dead(self, broker: str) -> bool:
        self._now.brokers[broker] = replace(self._now.brokers[broker], dead=True)
        return True

    @property
    def tables(self) -> SharedTables:
        """Those that are changed."""
        return self._now

    def list_brokers(self) -> list[BrokerRow]:
        """All of them; a dead one that still owns a job has a lease."""
        rows = [row for _, row in sorted(self._now.brokers.items())]
        return [replace(row, leases=int(row.dead and any(self.of_broker(row.broker)))) for row in rows]

    def of_broker(self, broker: str) -> Iterable[JobRow]:
        """Jobs of which something is due, and that this broker owns."""
        alive = (job for job in self._now.jobs.values() if job.deadline_ms is not None or job.due_ms is not None)
        return (job for job in alive if job.broker == broker)

    def ends(self, broker: str, job: JobRow) -> bool:
        """Whether this broker ends what is due of a job."""
        return job.broker == broker

    def due_of(self, broker: str, now_ms: int, limit: int) -> list[int]:
        """Numbers of a broker's jobs of which something is due now."""
        jobs = [job for job in self._others() if self.ends(broker, job)]
        leases = sorted((job.deadline_ms, job.number) for job in jobs if job.deadline_ms is not None)
        delays = sorted((job.due_ms, job.number) for job in jobs if job.due_ms is not None)
        return [number for due in (leases, delays) for due_ms, number in due[:limit] if due_ms <= now_ms]

    def next_due_of(self, broker: str) -> int | None:
        instants = [(job.deadline_ms, job.due_ms) for job in self._others() if self.ends(broker, job)]
        return min((at for pair in instants for at in pair if at is not None), default=None)


Deed = Callable[[Rows], object]
"""Something that a transaction does to tables: whether it changes anything, besides a beat, or what it came to.

It has to come to the same on a copy and on what is committed in the end.
"""
