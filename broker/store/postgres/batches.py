"""Batch of a PostgreSQL engine: the rows that were loaded for it, and what the engine remembers between batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from airunner.broker.store.contract import Waiting
from airunner.broker.store.postgres.pipeline import Rows
from airunner.broker.store.postgres.places import Place, Places, place_of
from airunner.broker.store.rows import JobRow, Keys, QueueKey
from airunner.protocol.names import RequestId

T = TypeVar("T")


class Memory(Struct):
    """Memory of an engine between batches; all of it may be forgotten at any time, except which jobs are set aside."""

    aside: set[str] = set()  # ids of jobs that are set aside
    places: Places = msgspec.field(default_factory=Places)
    due_from_ms: int = 0  # no job of this broker is due before this instant
    tries: int = 0  # of the batch that is not committed yet


class Log(Struct):
    """Log of a removed job, as far as a step of retention may delete it."""

    number: int
    tenant: str
    sizes: list[tuple[int, int]]  # of segments: the first sequence, and the bytes
    whole: bool  # whether that is all of it


class Batch(Struct):
    """Rows that were loaded for a batch, and what was locked for it."""

    keys: Keys = msgspec.field(default_factory=Keys)
    rows: dict[str, Rows] = {}  # of each statement; none: no batch is loaded
    claimed: set[tuple[str, RequestId]] = set()
    opened: set[QueueKey] = set()  # queues that got a row in this transaction
    sought: dict[QueueKey, list[Place]] = {}  # places of waiting jobs that were found, by queue and needs
    emptied: set[tuple[str, str]] = set()  # queues that are locked, and may have lost their last job
    logs: list[Log] = []

    def read(self, name: str, kind: type[list[T]]) -> list[T]:
        """Convert the rows of a statement."""
        return msgspec.convert(self.rows.get(name, []), kind)

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        """Find the waiting jobs; those of a queue whose mode was not there to be locked are for the next batch."""
        queues = {(tenant, name) for tenant, name, _ in self.rows.get("queues", ())}
        jobs: dict[QueueKey, list[JobRow]] = {}
        for job in self.read("waiting", list[JobRow]):
            jobs.setdefault(job.key, []).append(job)
        for tenant, queue, words, *found in self.rows.get("seen", ()):
            self.sought[QueueKey(tenant, queue, words)] = list(map(Place, *found))
        waiting: list[JobRow] = []
        more: set[QueueKey] = set()
        locked: set[QueueKey] = set()
        for key, count in wanted.items():
            own, seen = sorted(jobs.get(key, []), key=place_of), self.sought.get(key, [])
            if key[:2] not in queues:
                more |= {key} if own or seen else set()
                continue
            waiting += own[:count]
            if len(own) < count and {place.number for place in seen}.difference(job.number for job in own):
                locked.add(key)
            self.sought[key] = sorted({*seen, *map(place_of, own)})
        return Waiting(waiting, frozenset(more), frozenset(locked))

    def remember(self, places: Places, gone: set[int]) -> None:
        """Remember where the next search may begin, now that the waiting jobs with these numbers are gone."""
        for key, found in self.sought.items():
            left = [place for place in found if place.number not in gone]
            if found:
                places.set(key, left[0] if left else Place(found[-1].place, found[-1].number + 1))
