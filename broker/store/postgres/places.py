"""Places in queues at which the next lease begins to search, so that it does not pass what was leased before.

PostgreSQL keeps the index entries of deleted rows as long as a transaction anywhere may still see them; a search from
the head of `waiting` passes all of these. A place says that no row before it was left when it was last searched from:

- When this broker adds a row before it, `lower` moves it there.
- When another broker says that jobs may be leased, `forget` makes the next search begin at the head.
- A search that finds too few jobs goes on before the place: none is missed while another broker's hint is on its way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from airunner.broker.store.postgres.schema import needs_key
from airunner.broker.store.rows import JobRow, QueueKey

PLACES_MAX: Final = 4_096  # places that are remembered; if there are more, all are forgotten


class Place(NamedTuple):
    """Place of a job among those of its queue and needs: the negative of its priority, and its number."""

    place: int
    number: int


class Remembered(NamedTuple):
    """Place that is remembered of a queue and the key of needs."""

    tenant: str
    queue: str
    needs: bytes
    place: int
    number: int


def place_of(job: JobRow) -> Place:
    """Compute the place of a job."""
    return Place(-job.priority, job.number)


class Places:
    """Places remembered, by queue and the key of needs."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], dict[bytes, Place]] = {}
        self._count = 0

    def of(self, queues: Iterable[tuple[str, str]]) -> list[Remembered]:
        """List the places that are remembered in these queues."""
        found = ((queue, self._places.get(queue, {})) for queue in sorted(queues))
        return [Remembered(*queue, needs, *place) for queue, places in found for needs, place in places.items()]

    def set(self, key: QueueKey, place: Place) -> None:
        """Remember a place of a queue and needs."""
        if self._count >= PLACES_MAX:
            self.forget(None)
        places, needs = self._places.setdefault(key[:2], {}), needs_key(key.needs)
        self._count += needs not in places
        places[needs] = place

    def lower(self, jobs: Iterable[JobRow]) -> None:
        """Move places so that the next search finds these jobs too."""
        for job in jobs:
            before = self._places.get((job.tenant, job.queue), {}).get(needs_key(job.needs))
            if before is not None and place_of(job) < before:
                self.set(job.key, place_of(job))

    def forget(self, keys: Collection[QueueKey] | None) -> None:
        """Forget the places of these queues and needs; None: all."""
        if keys is None:
            self._places, self._count = {}, 0
        for key in keys or ():
            places = self._places.get(key[:2], {})
            self._count -= places.pop(needs_key(key.needs), None) is not None
            if not places:
                self._places.pop(key[:2], None)
