"""The parked long-polls: DequeueJobs that found nothing and wait for the first job.

Pure: the Ledger owns one and asks it whom to try again. In one queue the longest waiting comes first, of those whose
agents have what the job needs.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from airunner.broker.inbox import Asked
from airunner.broker.requests import price_of
from airunner.broker.store.contract import QueueKey
from airunner.broker.store.needs import facts_of, needed
from airunner.protocol.names import RequestId
from airunner.protocol.requests import DequeueJob

PLACES_MAX: Final = 65_536  # in queues, of one tenant; each is some 200 bytes, and one more is told that we are busy
TAG_SETS_MAX: Final = 256  # different ones of a tenant's parked agents: each is held against each job's needs

Key = tuple[str, RequestId]
Facts = frozenset[str]


class Parked(Struct, frozen=True):
    """One that waits, until `until_ms`; the `turn` says who came first."""

    asked: Asked
    until_ms: int
    turn: int
    facts: Facts

    @property
    def key(self) -> Key:
        """A repeat of the request takes the place of the first: it comes from where the asker is now."""
        return self.asked.ask.tenant, self.asked.ask.request_id


def queues_of(asked: Asked) -> list[QueueKey]:
    """The queues that a DequeueJob waits on."""
    request = _request(asked)
    return [QueueKey(asked.ask.tenant, queue) for queue in dict.fromkeys(request.queues)]


class Parking:
    """Who is parked: by queue, there by what their agents have, and there in turn; and by the end of the wait."""

    def __init__(self) -> None:
        self._parked: dict[Key, Parked] = {}
        self._by_queue: dict[QueueKey, dict[Facts, dict[Key, int]]] = {}
        self._ends: list[tuple[int, Key]] = []
        self._turns = 0
        self._places: Counter[str] = Counter()  # each tenant's
        self._facts: defaultdict[str, Counter[Facts]] = defaultdict(Counter)  # of each tenant's, and how many have them

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, asked: Asked, until_ms: int) -> bool:
        """Let it wait; False when there is no room."""
        facts = facts_of(_request(asked).tags)
        key = asked.ask.tenant, asked.ask.request_id
        before = self._parked.get(key)
        queues = queues_of(asked)
        if before is None and self._places[asked.ask.tenant] + len(queues) > PLACES_MAX:
            return False
        kinds = self._facts[asked.ask.tenant]
        if facts not in kinds and len(kinds) >= TAG_SETS_MAX:
            return False
        if before is not None and (before.facts, queues_of(before.asked)) != (facts, queues):
            self._remove(key)
            before = None
        if before is None:
            self._turns += 1
            self._places[asked.ask.tenant] += len(queues)
            kinds[facts] += 1
        turn = self._turns if before is None else before.turn
        self._parked[key] = Parked(asked, until_ms, turn, facts)
        for queue in queues:
            self._by_queue.setdefault(queue, {}).setdefault(facts, {})[key] = turn  # a repeat keeps its place
        heapq.heappush(self._ends, (until_ms, key))
        return True

    def take(self, wanted: Mapping[QueueKey, int], units_max: int) -> list[Parked]:
        """Unpark enough for `wanted` jobs of each queue and need, by the slots they ask for.

        Those that are taken have prices of up to `units_max` together: each tenant has an equal share of them, and one
        request at least. The others wait on, for the next time.
        """
        taken: list[Parked] = []
        share = units_max // max(1, len({queue.tenant for queue in wanted if self._places[queue.tenant]}))
        units: Counter[str] = Counter()
        for queue, jobs in wanted.items():
            left = jobs
            while left > 0 and units[queue.tenant] < max(1, share) and (key := self._first(queue)) is not None:
                parked = self._remove(key)
                request = _request(parked.asked)
                units[queue.tenant] += price_of(request)
                left -= request.slots
                taken.append(parked)
        return taken

    def discard(self, asked: Asked) -> None:
        """A repeat of a parked request has come; it is judged anew."""
        key = (asked.ask.tenant, asked.ask.request_id)
        if key in self._parked:
            self._remove(key)

    def waits_on(self, queues: Iterable[QueueKey]) -> set[QueueKey]:
        """Those of `queues` that somebody waits on who has what is needed."""
        return {queue for queue in queues if self._first(queue) is not None}

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

    def _first(self, queue: QueueKey) -> Key | None:
        """Who has waited longest of those that may run a job of this queue with its needs."""
        groups = self._by_queue.get(QueueKey(queue.tenant, queue.queue), {})
        wanted = needed(queue.needs)
        heads = [next(iter(keys.items())) for facts, keys in groups.items() if wanted <= facts]
        return min(heads, key=lambda head: head[1])[0] if heads else None

    def _remove(self, key: Key) -> Parked:
        parked = self._parked.pop(key)
        tenant = parked.asked.ask.tenant
        self._places[tenant] -= len(queues_of(parked.asked))
        kinds = self._facts[tenant]
        kinds[parked.facts] -= 1
        if not kinds[parked.facts]:
            del kinds[parked.facts]
        for queue in queues_of(parked.asked):
            groups = self._by_queue[queue]
            keys = groups[parked.facts]
            del keys[key]
            if not keys:
                del groups[parked.facts]
            if not groups:
                del self._by_queue[queue]
        return parked


def _request(asked: Asked) -> DequeueJob:
    request = asked.ask.request
    assert isinstance(request, DequeueJob), "only a DequeueJob parks"
    return request
