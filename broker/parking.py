"""Parked long-polls: DequeueJobs that found no job and wait for one. Pure.

When jobs become ready, the Ledger calls `take` for the requests to try again. Within one queue, of the requests whose
agents' tags meet the job's needs, the one that was parked first comes first, also if it was tried in vain since then.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from airunner.broker.inbox import Pending
from airunner.broker.store.needs import facts_of, needed
from airunner.broker.store.rows import QueueKey
from airunner.protocol.names import RequestId
from airunner.protocol.requests import DequeueJob

PLACES_MAX: Final = 65_536  # queues that a tenant's parked requests wait on, in all: some 200 bytes each, then `busy`
EARLY_SHARE: Final = 50  # a wait may end a fiftieth of it early: agents wait for 15 s, so 0.3 s
TAG_SETS_MAX: Final = 256  # different sets of tags among a tenant's parked agents: each is compared with jobs' needs

Key = tuple[str, RequestId]
Facts = frozenset[str]


class Parked(Struct, frozen=True):
    """Parked request, which waits until `until_ms`; the lower its `turn`, the earlier it was parked."""

    pending: Pending
    until_ms: int
    turn: int
    facts: Facts

    @property
    def key(self) -> Key:
        """Identity of the request; a repeat replaces the earlier copy, whose connection may be gone."""
        return self.pending.command.tenant, self.pending.command.request_id


def queues_of(pending: Pending) -> list[QueueKey]:
    """List the queues that a DequeueJob waits on."""
    request = _request(pending)
    return [QueueKey(pending.command.tenant, queue) for queue in dict.fromkeys(request.queues)]


class Parking:
    """Parking of requests, indexed by queue, agents' tags and turn, and by the end of the wait."""

    def __init__(self) -> None:
        self._parked: dict[Key, Parked] = {}
        self._by_queue: dict[QueueKey, dict[Facts, list[tuple[int, Key]]]] = {}  # by turn
        self._ends: list[tuple[int, Key]] = []
        self._turns = 0
        self._places: Counter[str] = Counter()  # by tenant: the queues that its requests wait on, in all
        self._facts: defaultdict[str, Counter[Facts]] = defaultdict(Counter)  # by tenant: requests by set of tags

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, pending: Pending, until_ms: int, turn: int | None = None) -> bool:
        """Park a request, or park it again in its `turn`; False: its tenant has reached a bound."""
        facts = facts_of(_request(pending))
        key = pending.command.tenant, pending.command.request_id
        before = self._parked.get(key)
        queues = queues_of(pending)
        if before is None and self._places[pending.command.tenant] + len(queues) > PLACES_MAX:
            return False
        kinds = self._facts[pending.command.tenant]
        if facts not in kinds and len(kinds) >= TAG_SETS_MAX:
            return False
        if before is not None and (before.facts, queues_of(before.pending)) != (facts, queues):
            self._remove(key)
            before = None
        if before is None:
            self._turns += 1
            turn = self._turns if turn is None else turn
            self._places[pending.command.tenant] += len(queues)
            kinds[facts] += 1
            for queue in queues:
                insort(self._by_queue.setdefault(queue, {}).setdefault(facts, []), (turn, key))
        else:
            turn = before.turn
        self._parked[key] = Parked(pending, until_ms, turn, facts)
        heapq.heappush(self._ends, (until_ms, key))
        return True

    def take(self, wanted: Mapping[QueueKey, int], units_max: int) -> list[Parked]:
        """Unpark requests with slots enough for the jobs that are `wanted`, by queue and needs.

        Their prices sum up to about `units_max`: each tenant gets an equal share of it, and at least one request.
        Further requests stay parked until the next call.
        """
        taken: list[Parked] = []
        share = units_max // max(1, len({queue.tenant for queue in wanted if self._places[queue.tenant]}))
        units: Counter[str] = Counter()
        for queue, jobs in wanted.items():
            left = jobs
            while left > 0 and units[queue.tenant] < max(1, share) and (key := self._first(queue)) is not None:
                parked = self._remove(key)
                request = _request(parked.pending)
                units[queue.tenant] += parked.pending.price
                left -= request.slots
                taken.append(parked)
        return taken

    def discard(self, pending: Pending) -> None:
        """Unpark a request that has been repeated: the repeat is tried like a new request."""
        key = (pending.command.tenant, pending.command.request_id)
        if key in self._parked:
            self._remove(key)

    def queues(self) -> set[QueueKey]:
        """List every queue on which requests wait, with the most needs that each set of agents' tags meets."""
        return {
            queue._replace(needs="\n".join(sorted(facts)))
            for queue, groups in self._by_queue.items()
            for facts in groups
        }

    def waits_on(self, queues: Iterable[QueueKey]) -> set[QueueKey]:
        """Return those of `queues` on which a request waits whose agent may run a job with these needs."""
        return {queue for queue in queues if self._first(queue) is not None}

    def expired(self, now_ms: int) -> list[Parked]:
        """Unpark the requests whose wait is over; when one's is, also those that end within `EARLY_SHARE` of theirs.

        So the broker wakes a few times a second for thousands of idle agents, and what they then ask is one batch.
        """
        over: list[Parked] = []
        while self._ends:
            until_ms, key = self._ends[0]
            parked = self._parked.get(key)
            if parked is not None and parked.until_ms == until_ms:
                early_ms = _request(parked.pending).wait_ms // EARLY_SHARE if over else 0
                if until_ms > now_ms + early_ms:
                    break
                over.append(self._remove(key))
            elif until_ms > now_ms:
                break
            heapq.heappop(self._ends)
        return over

    def next_end_ms(self) -> int | None:
        """Return when the next wait ends (ms), or the end of an earlier one, no longer parked; None: no wait ends."""
        return self._ends[0][0] if self._ends else None

    def _first(self, queue: QueueKey) -> Key | None:
        """Find the request that was parked first of those whose agent may run a job of this queue with its needs."""
        groups = self._by_queue.get(QueueKey(queue.tenant, queue.queue), {})
        wanted = needed(queue.needs)
        return min((turns[0] for facts, turns in groups.items() if wanted <= facts), default=(0, None))[1]

    def _remove(self, key: Key) -> Parked:
        parked = self._parked.pop(key)
        tenant = parked.pending.command.tenant
        self._places[tenant] -= len(queues_of(parked.pending))
        kinds = self._facts[tenant]
        kinds[parked.facts] -= 1
        if not kinds[parked.facts]:
            del kinds[parked.facts]
        for queue in queues_of(parked.pending):
            groups = self._by_queue[queue]
            turns = groups[parked.facts]
            del turns[bisect_left(turns, (parked.turn, key))]
            if not turns:
                del groups[parked.facts]
            if not groups:
                del self._by_queue[queue]
        return parked


def _request(pending: Pending) -> DequeueJob:
    request = pending.command.request
    assert isinstance(request, DequeueJob), "not a DequeueJob"
    return request
