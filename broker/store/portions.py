"""Portions of a batch: divide it for an engine whose transactions are bounded, and merge what comes of them. Pure.

A batch does what its commands do one by one, so it may be divided between any two. A request that is larger than a
transaction by itself is divided too: a heartbeat between leases, a publication between jobs, so that a job's batches
and its completion stay together. All other requests fit, as `extents` counts them.

```
 commands ─ divide ─► portions ─► a transaction each ─► Applied, Applied, … ─ merge ─► Applied, as of the whole batch
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import (
    Adopt,
    Applied,
    Attach,
    Command,
    Done,
    Expire,
    FollowEnd,
    News,
    RenewAll,
    Retain,
    StoreReply,
    TenantRequest,
    Timings,
)
from airunner.broker.lifecycle.extents import COUNTERS_MAX, Extent, extent_of_events, extent_of_leases
from airunner.broker.requests import kind_of
from airunner.broker.store.rows import Changes, JobRow
from airunner.protocol.replies import BatchStored, JobCompleted, JobEventsPublished, JobsUpdated, LeaseVerdict, Refused
from airunner.protocol.requests import PublishJobEvents, UpdateJob

ALONE: Final = (RenewAll, Expire, Retain, Adopt, FollowEnd, Attach)
"""Commands whose changes are bounded by the engine or by themselves, each in a portion."""
_LISTS: Final = ("removed", "segments", "facts", "records", "secrets", "secrets_removed", "lifecycle")
T = TypeVar("T")


class Part(NamedTuple):
    """Part of a batch: the command at this place in it, or a part of it.

    Of a part of a request: the indices in the request of its leases or batches, and of its completions.
    """

    place: int
    command: Command
    items: Sequence[int] = ()
    completions: Sequence[int] = ()


class _Bounds(NamedTuple):
    rows: int
    size_bytes: int


class _Portion:
    """Portion that is being filled."""

    def __init__(self, bounds: _Bounds) -> None:
        self.parts: list[Part] = []
        self._bounds = bounds
        self._rows = 1  # the broker's
        self._size_bytes = 0
        self._queues: Counter[str] = Counter()  # by tenant

    def has_room(self, tenant: str, extent: Extent) -> bool:
        """Check whether so much more of a tenant fits."""
        queues = self._queues.copy()
        queues[tenant] += extent.queues
        counters = sum([1 + min(count, COUNTERS_MAX) for count in queues.values()])
        rows = self._rows + extent.rows + counters
        return rows <= self._bounds.rows and self._size_bytes + extent.size_bytes <= self._bounds.size_bytes

    def add(self, part: Part, tenant: str, extent: Extent) -> None:
        """Add a part that has room."""
        self.parts.append(part)
        self._rows += extent.rows
        self._size_bytes += extent.size_bytes
        self._queues[tenant] += extent.queues


def rows_of(command: TenantRequest) -> int:
    """Bound the rows that a request may write in a transaction of its own; see `extents`."""
    extent = kind_of(command.request).extent(command.request)
    return extent.rows + min(extent.queues, COUNTERS_MAX) + 2


def divide(commands: Sequence[Command], rows_max: int, bytes_max: int) -> list[list[Part]]:
    """Divide a batch into portions that fit, in the order of the commands; a RenewAll comes first, as in a batch."""
    bounds = _Bounds(rows_max, bytes_max)
    portions = [[Part(index, command)] for index, command in enumerate(commands) if isinstance(command, RenewAll)]
    filling: _Portion | None = None
    for index, command in enumerate(commands):
        if isinstance(command, ALONE):
            if not isinstance(command, RenewAll):
                portions.append([Part(index, command)])
                filling = None
            continue
        tenant = command.tenant if isinstance(command, TenantRequest) else ""
        for part, extent in _parts(Part(index, command), bounds):
            if filling is None or not filling.has_room(tenant, extent):
                filling = _Portion(bounds)
                portions.append(filling.parts)
            filling.add(part, tenant, extent)
    return portions or [[]]


def _parts(whole: Part, bounds: _Bounds) -> Iterator[tuple[Part, Extent]]:
    """Divide a command that does not fit, if it can be divided."""
    command = whole.command
    if not isinstance(command, TenantRequest):
        yield whole, Extent(0, 0, 0)  # a beat, which changes the row of the broker
        return
    tenant, request = command.tenant, command.request
    extent = kind_of(request).extent(request)
    if _Portion(bounds).has_room(tenant, extent):
        yield whole, extent
    elif isinstance(request, UpdateJob):
        leases: list[_Piece] = [(extent_of_leases(1), [index], []) for index in range(len(request.leases))]
        for joined, items, _ in _fitting(leases, tenant, bounds):
            some = replace(request, leases=tuple([request.leases[index] for index in items]))
            yield Part(whole.place, replace(command, request=some), items), joined
    elif isinstance(request, PublishJobEvents):
        for joined, items, completions in _fitting(_by_job(request), tenant, bounds):
            batches = tuple([request.batches[index] for index in items])
            ends = tuple([request.completions[index] for index in completions])
            part = replace(request, batches=batches, completions=ends)
            yield Part(whole.place, replace(command, request=part), items, completions), joined
    else:
        yield whole, extent  # the engine refuses what does not fit


_Piece = tuple[Extent, list[int], list[int]]  # the least that is not divided: its extent, its items, its completions


def _by_job(request: PublishJobEvents) -> list[_Piece]:
    """Divide a publication by job."""
    places: dict[str, tuple[list[int], list[int]]] = {}
    for index, batch in enumerate(request.batches):
        places.setdefault(batch.lease.job_id, ([], []))[0].append(index)
    for index, completion in enumerate(request.completions):
        places.setdefault(completion.lease.job_id, ([], []))[1].append(index)
    pieces: list[_Piece] = []
    for batches, completions in places.values():
        sent = [request.batches[index] for index in batches]
        ended = [request.completions[index] for index in completions]
        pieces.append((extent_of_events(sent, ended), batches, completions))
    return pieces


def _fitting(pieces: Sequence[_Piece], tenant: str, bounds: _Bounds) -> Iterator[_Piece]:
    """Join pieces of a request, in their order, as far as they fit."""
    joined, items, completions = pieces[0]
    for extent, more, ended in pieces[1:]:
        both = Extent(*map(sum, zip(joined, extent, strict=True)))
        if _Portion(bounds).has_room(tenant, both):
            joined, items, completions = both, items + more, completions + ended
        else:
            yield joined, items, completions
            joined, items, completions = extent, more, ended
    yield joined, items, completions


def merge(commands: Sequence[Command], portions: Sequence[Sequence[Part]], applied: Sequence[Applied]) -> Applied:
    """Merge the outcomes of all portions to those of the batch.

    If a part of a request was refused, the whole request is, though its other parts are stored: its sender repeats it.
    """
    parts: list[list[tuple[Part, Done]]] = [[] for _ in commands]
    for portion, outcome in zip(portions, applied, strict=True):
        for part, done in zip(portion, outcome.done, strict=True):
            parts[part.place].append((part, done))
    timings = Timings()
    for outcome in applied:
        timings.waited_ms += outcome.timings.waited_ms
        timings.ended += outcome.timings.ended
    return replace(
        applied[-1],
        done=[_joined(some) for some in parts],
        wrote=any(outcome.wrote for outcome in applied),
        timings=timings,
        changes=merged_changes([outcome.changes for outcome in applied if outcome.changes is not None]),
    )


def _joined(parts: Sequence[tuple[Part, Done]]) -> Done:
    """Join the outcomes of a command's parts. What may be divided has no other news than these."""
    if len(parts) == 1:
        return parts[0][1]
    news = News()
    for _, done in parts:
        news.appended += done.news.appended
        news.ready |= done.news.ready
        news.follow_ups += done.news.follow_ups
    return Done(_reply_of(parts), news, sum([done.cost for _, done in parts]))


def _reply_of(parts: Sequence[tuple[Part, Done]]) -> StoreReply:
    """Join replies: each element of a reply comes to the index of what it answers."""
    verdicts: dict[int, LeaseVerdict] = {}
    batches: dict[int, BatchStored] = {}
    completions: dict[int, JobCompleted | Refused] = {}
    for part, done in parts:
        match done.reply:
            case Refused() as refused:
                return refused
            case JobsUpdated(leases=some):
                verdicts.update(zip(part.items, some, strict=True))
            case JobEventsPublished(batches=stored, completions=ended):
                batches.update(zip(part.items, stored, strict=True))
                completions.update(zip(part.completions, ended, strict=True))
            case reply:
                raise AssertionError(f"a part of a request was answered with {reply}")
    if verdicts:
        return JobsUpdated(leases=_in_order(verdicts))
    return JobEventsPublished(batches=_in_order(batches), completions=_in_order(completions))


def _in_order(found: Mapping[int, T]) -> tuple[T, ...]:
    return tuple([found[index] for index in sorted(found)])


def merged_changes(portions: Iterable[Changes]) -> Changes:
    """Merge what portions have saved, each changed job once; without counters, which only the engine reads."""
    whole = Changes()
    added: dict[int, JobRow] = {}
    changed: dict[int, tuple[JobRow, JobRow]] = {}
    for changes in portions:
        added.update([(job.number, job) for job in changes.added])
        for before, after in changes.changed:
            number = after.number
            if number in added:
                added[number] = _with_spec(after, added[number])
            else:
                first, last = changed.get(number, (before, before))
                changed[number] = (first, _with_spec(after, last))
        for job in changes.removed:
            changed.pop(job.number, None)
        for name in _LISTS:
            getattr(whole, name).extend(getattr(changes, name))
        whole.modes |= changes.modes
        whole.ready |= changes.ready
    whole.added, whole.changed = list(added.values()), list(changed.values())
    return whole


def _with_spec(after: JobRow, earlier: JobRow) -> JobRow:
    """Return a row with its spec, if an earlier portion has loaded it."""
    return after if after.spec or not earlier.spec else replace(after, spec=earlier.spec)
