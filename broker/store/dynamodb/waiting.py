"""Waiting jobs: found in an index that is late, and among what this broker has made ready itself a moment ago.

What is found is read again from the table before it is decided on; its revision is a condition of the lease. So a lease
is never wrong, but the order is that of the jobs that the index shows. When another broker says that jobs are ready and
the index does not show them yet, it is searched again, after pauses that grow, until it must have them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

from msgspec import Struct

from airunner.broker.store.contract import Waiting
from airunner.broker.store.dynamodb.items import Item, JobItem
from airunner.broker.store.dynamodb.owned import LATE_S
from airunner.broker.store.dynamodb.schema import JOB, SHARDS, WAITING, Key, job_pk, place_of, waiting_partition
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.needs import meets
from airunner.broker.store.rows import JobRow, Keys, QueueKey, Wanted

SPARE: Final = 4  # entries that are read beyond those that are wanted: some are of jobs that were leased just now
ROUNDS_MAX: Final = 8  # searches for one queue and needs in a batch; each goes on behind the one before
RECENT_MAX: Final = 20_000  # jobs remembered
HINT_FIRST_S: Final = 0.02  # pause between two searches for what another broker has hinted at, doubled each time,
HINT_LAST_S: Final = 1.0  # up to this
_Entry = tuple[int, int, str]  # place, number, partition key


class Hint(Struct):
    """Hint of another broker that jobs are ready: until when they may be missing in the index."""

    until_s: float
    next_s: float  # when to search again
    pause_s: float = HINT_FIRST_S

    def was_in_vain(self, now_s: float) -> None:
        """Put the next search off."""
        self.next_s = now_s + self.pause_s
        self.pause_s = min(2 * self.pause_s, HINT_LAST_S)


class Recent:
    """Jobs that this broker has made ready, or leased, so lately that the index may not show it."""

    def __init__(self) -> None:
        self._ready: dict[QueueKey, dict[str, tuple[float, _Entry]]] = {}
        self._gone: dict[str, float] = {}
        self._hints: dict[QueueKey, Hint] = {}
        self._hinted_all: Hint | None = None
        self._count = 0

    def add(self, row: JobRow, now_s: float) -> None:
        """Remember a job that may be leased since now."""
        pk = job_pk(row.tenant, row.job_id)
        self._gone.pop(pk, None)
        self._bound(now_s)
        self._ready.setdefault(row.key, {})[pk] = (now_s + LATE_S, (-row.priority, row.number, pk))
        self._count += 1

    def remove(self, row: JobRow, now_s: float) -> None:
        """Remember a job that may not be leased any more."""
        pk = job_pk(row.tenant, row.job_id)
        if own := self._ready.get(row.key):
            own.pop(pk, None)
        self._gone[pk] = now_s + LATE_S
        self._bound(now_s)

    def _bound(self, now_s: float) -> None:
        if len(self._gone) > RECENT_MAX:
            self._gone = {pk: until_s for pk, until_s in self._gone.items() if until_s > now_s}
            if len(self._gone) > RECENT_MAX:
                self._gone.clear()
        if self._count > RECENT_MAX:
            self._ready = {
                key: left
                for key, own in self._ready.items()
                if (left := {pk: entry for pk, entry in own.items() if entry[0] > now_s})
            }
            self._count = sum(map(len, self._ready.values()))
            if self._count > RECENT_MAX:
                self._ready.clear()
                self._count = 0

    def ready(self, key: QueueKey, now_s: float) -> list[_Entry]:
        """List jobs of a queue and needs that this broker has made ready lately."""
        own = self._ready.get(key)
        if not own:
            return []
        for pk in [pk for pk, (until_s, _) in own.items() if until_s <= now_s]:
            del own[pk]
            self._count -= 1
        if not own:
            del self._ready[key]
        return [entry for _, entry in own.values()]

    def is_gone(self, key: QueueKey, pk: str, now_s: float) -> bool:
        """Tell whether this broker has leased or ended a job lately, and heard of none of its kind since then."""
        until_s, hint = self._gone.get(pk, now_s), self.hinted(key, now_s)
        return until_s > now_s and (hint is None or hint.until_s < until_s)

    def hint(self, keys: Collection[QueueKey] | None, now_s: float) -> None:
        """Remember a hint of another broker; None: jobs of any queue may be ready."""
        if keys is None:
            self._hinted_all = Hint(now_s + LATE_S, now_s)
            return
        if len(self._hints) > RECENT_MAX:
            self._hints = {key: one for key, one in self._hints.items() if one.until_s > now_s}
        for key in keys:
            self._hints[key] = Hint(now_s + LATE_S, now_s)

    def search_again(self, queues: Collection[QueueKey]) -> None:
        """Search again at once in queues whose modes this broker has changed, whatever their needs."""
        changed = {(key.tenant, key.queue) for key in queues}
        for key, hint in self._hints.items():
            if (key.tenant, key.queue) in changed:
                hint.next_s = 0.0

    def hinted(self, key: QueueKey, now_s: float) -> Hint | None:
        """Return the hint for a queue and needs, if the index may not have it yet."""
        hint, every = self._hints.get(key), self._hinted_all
        if every is not None and (hint is None or hint.until_s < every.until_s):
            hint = self._hints[key] = Hint(every.until_s, now_s)
        if hint is not None and hint.until_s <= now_s:
            del self._hints[key]
            hint = None
        return hint


class Search(Struct):
    """Search for waiting jobs: of each queue and needs the jobs, in order, and which ones may have more."""

    jobs: dict[str, JobItem] = {}  # by partition key
    waiting: Waiting = Waiting([])
    again_s: float = 0.0  # until what is locked may be found


def find_waiting(
    table: Table,
    recent: Recent,
    wanted: Mapping[QueueKey, int],
    aside: Collection[str],
    empty: Collection[QueueKey],
    keys: Keys,
) -> Search:
    """Find waiting jobs, of each queue and needs as many as are wanted, without those that are known to be `empty`.

    The queues of each request in the batch's `keys` are searched in their order, until there are as many jobs as all
    requests may lease, without those that have expired; what was not searched then may have more.
    """
    now_s = table.edges.steady_s()
    search = Search()
    lines: dict[QueueKey, _Line] = {}
    hints = {key: recent.hinted(key, now_s) for key in wanted}
    waits: set[QueueKey] = set()
    for key, count in wanted.items():
        hint = hints[key]
        if hint is not None and hint.next_s > now_s and not recent.ready(key, now_s):
            waits.add(key)
        elif key not in empty:
            lines[key] = _Line(table, recent, key, count, aside, now_s, keys.now_ms)
    searched = _search_in_order(table, lines, _orders(keys.wanted, lines))
    rows: list[JobRow] = []
    locked = waits
    more = lines.keys() - searched
    for key in searched:
        line, jobs = lines[key], lines[key].in_order()
        search.jobs |= {job.key[0]: job for job in jobs}
        rows += [job.row for job in jobs]
        if len(jobs) < line.count and not line.is_whole:
            more.add(key)
        elif len(jobs) < line.count and (hint := hints[key]) is not None:
            locked.add(key)
            if not jobs:  # what was found may still be there next time
                hint.was_in_vain(now_s)
    search.waiting = Waiting(rows, frozenset(more), frozenset(locked))
    search.again_s = min((hint.next_s - now_s for key in locked if (hint := hints[key]) is not None), default=0.0)
    return search


class _Order(Struct):
    """Order in which a request leases from queues; of each queue the keys of those needs that it meets."""

    queues: list[list[QueueKey]]
    jobs: int
    at: int = 0  # how many queues are searched

    def next_keys(self, queues: int) -> list[QueueKey]:
        """Go on to the next queues."""
        some = self.queues[self.at : self.at + queues]
        self.at += queues
        return [key for keys in some for key in keys]

    def lacks(self, lines: Mapping[QueueKey, _Line], jobs: int) -> bool:
        """Check whether a further queue is to be searched, if so many jobs are enough."""
        if self.at >= len(self.queues):
            return False
        return sum(lines[key].found for keys in self.queues[: self.at] for key in keys) < jobs


def _orders(requests: Sequence[Wanted], keys: Collection[QueueKey]) -> list[_Order]:
    """Make the orders of requests; the queues of one request follow each other, with the same facts."""
    of_queue: dict[tuple[str, str], list[QueueKey]] = {}
    for key in keys:
        of_queue.setdefault(key[:2], []).append(key)
    orders: list[_Order] = []
    before: Wanted | None = None
    for asked in requests:
        kinds = of_queue.get((asked.tenant, asked.queue), [])
        meeting = [key for key in kinds if not key.needs or asked.facts is None or meets(asked.facts, key.needs)]
        if before is None or before.facts is not asked.facts or before.tenant != asked.tenant:
            orders.append(_Order([], asked.jobs))
        orders[-1].queues.append(meeting)
        before = asked
    return orders


def _search_in_order(table: Table, lines: Mapping[QueueKey, _Line], orders: Sequence[_Order]) -> list[QueueKey]:
    """Search queues until no request lacks jobs, in each round twice as many; return what was searched."""
    enough = sum(order.jobs for order in orders)
    searched: dict[QueueKey, None] = {}
    queues = 1
    while lacking := [order for order in orders if order.lacks(lines, enough)]:
        keys = dict.fromkeys(key for order in lacking for key in order.next_keys(queues) if key not in searched)
        _search(table, [lines[key] for key in keys])
        searched |= keys
        queues *= 2
    return list(searched)


def _search(table: Table, lines: Sequence[_Line]) -> None:
    """Search all queues and needs together: in each round one trip to the index, and one to the table."""
    for _ in range(ROUNDS_MAX):
        parts = [(line, shard) for line in lines if not line.is_done for shard in line.open_shards()]
        entries = table.edges.run_all([partial(line.read, shard) for line, shard in parts])
        for (line, shard), found in zip(parts, entries, strict=True):
            line.add(shard, found)
        while pks := [pk for line in lines for pk in line.next_jobs()]:
            items = table.get((pk, JOB) for pk in pks)
            for line in lines:
                line.keep_waiting(items)
        if all(line.is_done for line in lines):
            return


class _Line:
    """Line of waiting jobs of one queue and needs, in all shards of the index, as far as it is searched."""

    def __init__(
        self,
        table: Table,
        recent: Recent,
        key: QueueKey,
        count: int,
        aside: Collection[str],
        now_s: float,
        now_ms: int,
    ) -> None:
        self.key = key
        self.count = count
        self._table = table
        self._recent = recent
        self._aside = aside
        self._now_s = now_s
        self._now_ms = now_ms
        self._found: dict[str, JobItem] = {}
        self._looked: set[str] = set()
        self._asked: list[str] = []
        self._places = {pk: (place, number) for place, number, pk in recent.ready(key, now_s)}
        self._ends: dict[int, bytes | None] = dict.fromkeys(range(SHARDS))  # of open shards: the last place read

    @property
    def found(self) -> int:
        """How many jobs were found, of those that are wanted, and that have not expired."""
        deadlines = [job.row.deadline_ms for job in self.in_order()]
        return sum(deadline_ms is None or deadline_ms > self._now_ms for deadline_ms in deadlines)

    @property
    def is_whole(self) -> bool:
        """Whether all of the index was searched."""
        return not self._ends

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be searched."""
        return self.is_whole or len(self._found) >= self.count

    def open_shards(self) -> list[int]:
        """List shards that are not searched to their ends."""
        return list(self._ends)

    def read(self, shard: int) -> list[tuple[bytes, str]]:
        """Read the next entries of a shard."""
        return _entries(self._table, self.key, shard, self._ends[shard], self.count + SPARE)

    def add(self, shard: int, entries: Sequence[tuple[bytes, str]]) -> None:
        """Add entries that were read."""
        self._places |= {pk: place_of(raw) for raw, pk in entries}
        if len(entries) < self.count + SPARE:
            del self._ends[shard]
        else:
            self._ends[shard] = entries[-1][0]

    def next_jobs(self) -> list[str]:
        """List the next jobs to read; behind the end of an open shard, another one may be earlier."""
        if len(self._found) >= self.count:
            return []
        bound = min((place_of(end) for end in self._ends.values() if end is not None), default=None)
        left = sorted(
            (place, pk)
            for pk, place in self._places.items()
            if pk not in self._looked and (bound is None or place <= bound)
        )
        fresh = (pk for _, pk in left if not self._recent.is_gone(self.key, pk, self._now_s))
        self._asked = list(islice(fresh, self.count + SPARE))
        self._looked.update(self._asked)
        return self._asked

    def keep_waiting(self, items: Mapping[Key, Item]) -> None:
        """Keep the jobs that wait, of those that were read."""
        for job in self._table.read_jobs({(pk, JOB): items[pk, JOB] for pk in self._asked if (pk, JOB) in items}):
            if not job.row.gate and job.row.key == self.key and job.row.job_id not in self._aside:
                self._found[job.key[0]] = job
        self._asked = []

    def in_order(self) -> list[JobItem]:
        """List the jobs that were found, as many as are wanted."""
        found = sorted(self._found.values(), key=lambda job: (-job.row.priority, job.row.number))
        return found[: self.count]


def _entries(table: Table, key: QueueKey, shard: int, behind: bytes | None, limit: int) -> list[tuple[bytes, str]]:
    values: dict[str, dict[str, object]] = {":w": {"S": waiting_partition(key, shard)}}
    condition = "w = :w"
    if behind is not None:
        values[":p"] = {"B": behind}
        condition += " AND wp > :p"
    items = table.query(condition, values, index=WAITING, limit=limit)
    return [(bytes(item["wp"]["B"]), item["pk"]["S"]) for item in items]
