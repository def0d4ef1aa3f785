"""The parked long-polls: DequeueJobs that found nothing and wait for the first job.

Pure: the Ledger owns one and asks it whom to try again. In one queue the longest waiting comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from airunner.broker.inbox import Asked
from airunner.broker.store.contract import QueueKey
from airunner.protocol.messages import DequeueJob
from airunner.protocol.names import RequestId

PARKED_MAX: Final = 16_384  # each is a few hundred bytes; one more is told that we are busy

Key = tuple[str, RequestId]


class Parked(Struct, frozen=True):
    """One that waits, until `until_ms`."""

    asked: Asked
    until_ms: int

    @property
    def key(self) -> Key:
        """A repeat of the request takes the place of the first: it comes from where the asker is now."""
        return self.asked.ask.tenant, self.asked.ask.request_id


def queues_of(asked: Asked) -> list[QueueKey]:
    """The queues that a DequeueJob waits on."""
    request = asked.ask.request
    assert isinstance(request, DequeueJob), "only a DequeueJob parks"
    return [QueueKey(asked.ask.tenant, queue) for queue in request.queues]


class Parking:
    """Who is parked, by queue and by the end of the wait."""

    def __init__(self) -> None:
        self._parked: dict[Key, Parked] = {}
        self._by_queue: dict[QueueKey, dict[Key, None]] = {}
        self._ends: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, asked: Asked, until_ms: int) -> bool:
        """Let it wait; False when there is no room."""
        parked = Parked(asked, until_ms)
        before = self._parked.get(parked.key)
        if before is None and len(self._parked) >= PARKED_MAX:
            return False
        self._parked[parked.key] = parked
        for queue in queues_of(asked):
            self._by_queue.setdefault(queue, {}).setdefault(parked.key)
        heapq.heappush(self._ends, (until_ms, parked.key))
        return True

    def take(self, wanted: Mapping[QueueKey, int]) -> list[Parked]:
        """Unpark enough for `wanted` jobs of each queue, by the slots they ask for."""
        taken: list[Parked] = []
        for queue, jobs in wanted.items():
            left = jobs
            while left > 0 and (keys := self._by_queue.get(queue)):
                parked = self._remove(next(iter(keys)))
                request = parked.asked.ask.request
                assert isinstance(request, DequeueJob), "only a DequeueJob parks"
                left -= request.slots
                taken.append(parked)
        return taken

    def discard(self, asked: Asked) -> None:
        """A repeat of a parked request has come; it is judged anew."""
        key = (asked.ask.tenant, asked.ask.request_id)
        if key in self._parked:
            self._remove(key)

    def waits_on(self, queues: Iterable[QueueKey]) -> set[QueueKey]:
        """Those of `queues` that somebody waits on."""
        return {queue for queue in queues if queue in self._by_queue}

    def expired(self, now_ms: int) -> list[Parked]:
        """Unpark those whose wait is over."""
        over: list[Parked] = []
        while self._ends and self._ends[0][0] <= now_ms:
            until_ms, key = heapq.heappop(self._ends)
            if (parked := self._parked.get(key)) is not None and parked.until_ms == until_ms:
                over.append(self._remove(key))
        return over

    def next_end_ms(self) -> int | None:
        """When the next wait is over; one that was ended otherwise may still be named."""
        return self._ends[0][0] if self._ends else None

    def _remove(self, key: Key) -> Parked:
        parked = self._parked.pop(key)
        for queue in queues_of(parked.asked):
            keys = self._by_queue[queue]
            keys.pop(key, None)
            if not keys:
                del self._by_queue[queue]
        return parked
