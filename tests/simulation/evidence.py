"""A history, sorted for judging: processes' lives, the broker's clocks, and each job with its folded log.

An instant in an event is the broker's clock, and that jumps when a broker starts anew. `Clocks` says when, in
virtual time, a clock can have shown it: a span, as narrow as the evidence allows. A law that compares instants
takes the ends of spans that favour the accused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct

from airunner.protocol.events import Event, Stream
from airunner.protocol.job import Job
from tests.simulation.fold import Folded, fold
from tests.simulation.history import (
    Committed,
    FailedOver,
    FinalEvents,
    FinalJob,
    Granted,
    Healed,
    History,
    Judged,
    Killed,
    LateIndexes,
    ProcessGone,
    ProcessStarted,
    ProcessWrote,
    Slept,
    Started,
    Woken,
)

Lease = TypeVar("Lease", Granted, Judged)
Found = Iterator[tuple[str | None, str]]
"""What a law finds broken: the job, if it is about one, and what is wrong with it."""

CALM_AFTER_MS: Final = 20_000  # in which leases of dead brokers are adopted, and brokers return
ROUNDING_MS: Final = 2  # both clocks are cut to whole milliseconds


class Violation(Struct, frozen=True, kw_only=True):
    """A law was broken."""

    law: str
    what: str
    job_id: str | None = None

    def __str__(self) -> str:
        """On one line, for people."""
        return f"{self.law}: {'' if self.job_id is None else f'job {self.job_id} '}{self.what}"


class Span(NamedTuple):
    """Some instant from the one to the other, in virtual ms."""

    earliest_ms: int
    latest_ms: int

    def later(self, by_ms: int) -> Span:
        """The same so much later."""
        return Span(self.earliest_ms + by_ms, self.latest_ms + by_ms)

    def surely_before(self, other: Span) -> bool:
        """Whether no reading of the clocks puts this at or after `other`."""
        return self.latest_ms + ROUNDING_MS < other.earliest_ms


class _Reign(NamedTuple):
    """One broker process: from when to when, and what its clock is ahead of virtual time."""

    begin_ms: int
    end_ms: int
    offset_ms: int


class Clocks:
    """The clocks of all brokers that there were."""

    def __init__(self, history: History) -> None:
        self._reigns: list[_Reign] = []
        self.one_broker = len({started.machine for started in history.of(Started) if started.broker}) == 1
        begun: dict[str, Started] = {}
        last_ms = 0
        for record in history:
            last_ms = record.at_ms
            if isinstance(record, Started | Killed) and record.machine in begun:
                self._end(begun.pop(record.machine), record.at_ms)
            if isinstance(record, Started) and record.broker:
                begun[record.machine] = record
        for started in begun.values():
            self._end(started, last_ms)

    def _end(self, started: Started, end_ms: int) -> None:
        self._reigns.append(_Reign(started.at_ms, end_ms, started.wall_offset_ms))

    @property
    def starts_ms(self) -> list[int]:
        """When a broker started."""
        return sorted(reign.begin_ms for reign in self._reigns)

    def span(self, shown_ms: int) -> Span | None:
        """When a broker's clock can have shown this; None when none of them ever did."""
        possible = [
            shown_ms - reign.offset_ms
            for reign in self._reigns
            if reign.begin_ms - ROUNDING_MS <= shown_ms - reign.offset_ms <= reign.end_ms + ROUNDING_MS
        ]
        return Span(min(possible), max(possible)) if possible else None

    def jumped(self, since_ms: int, until_ms: int) -> bool:
        """Whether brokers with clocks that disagree have reigned between two instants of virtual time."""
        offsets = {one.offset_ms for one in self._reigns if one.begin_ms <= until_ms and since_ms <= one.end_ms}
        return len(offsets) > 1

    @property
    def last_shown_ms(self) -> int | None:
        """What the last broker's clock shows in the end."""
        last = max(self._reigns, key=lambda reign: reign.begin_ms, default=None)
        return None if last is None else last.end_ms + last.offset_ms

    def latest_shown_ms(self, until_ms: int) -> int | None:
        """The most that any broker's clock has shown up to an instant of virtual time."""
        shown = [min(one.end_ms, until_ms) + one.offset_ms for one in self._reigns if one.begin_ms <= until_ms]
        return max(shown, default=None)


class Life(NamedTuple):
    """A process, from its start to its end."""

    started: ProcessStarted
    gone: ProcessGone | None
    written: dict[Stream, bytes]


class Case(NamedTuple):
    """One job: as it was read in the end, its log, and what the log comes to."""

    job: Job
    tenant: str
    events: tuple[Event, ...]
    folded: Folded

    def of_attempt(self, attempt: int) -> list[Event]:
        """The events of one attempt."""
        return [event for event in self.events if event.attempt == attempt]


class Evidence:
    """What the laws judge."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.clocks = Clocks(history)
        self.unread: list[str] = []
        self.cases = dict(self._read_cases())
        self.lives = _lives(history)
        self._naps = _naps(history)
        self.grants = _by_job(history.of(Granted))
        self.verdicts = _by_job(history.of(Judged))
        self.commits = _commits(history)
        self._shown_ms = {lease[:2]: commit.at_ms for commit in self.commits for lease in commit.leased}

    @property
    def fleet(self) -> bool:
        """Whether brokers share a database: then several may be at work at once."""
        return bool(self.commits)

    @property
    def late_ms(self) -> int:
        """How late the store may show which jobs wait, where it does not show it at once."""
        return max((record.late_ms for record in self.history.of(LateIndexes)), default=0)

    @property
    def calm_from_ms(self) -> int | None:
        """From when on nothing is broken, and what was has been made up for; None: never."""
        healed = self.history.of(Healed)
        return healed[0].at_ms + CALM_AFTER_MS if healed else None

    @property
    def end_ms(self) -> int:
        """When the last thing happened."""
        return max((record.at_ms for record in self.history), default=0)

    @property
    def visibility_ms_min(self) -> int | None:
        """The shortest lease that anybody asked for."""
        leases: list[Granted | Judged] = [*self.history.of(Granted), *self.history.of(Judged)]
        return min((lease.visibility_ms for lease in leases), default=None)

    def span(self, event: Event) -> Span | None:
        """When the broker saw this event of its own."""
        return self.clocks.span(event.timestamp_ms)

    def leased(self, job_id: str, event: Event) -> Span | None:
        """When a lease was given: as its broker stamped the event, or up to when a shared database showed it."""
        stamped, shown_ms = self.span(event), self._shown_ms.get((job_id, event.attempt))
        if stamped is None or shown_ms is None:
            return stamped
        return Span(stamped.earliest_ms, max(stamped.latest_ms, shown_ms))

    def ran_until_ms(self, life: Life) -> int | None:
        """When this process last did anything: one that is ended as its machine wakes up did nothing while it slept."""
        if life.gone is None:
            return None
        for slept_ms, woken_ms in self._naps[life.started.machine]:
            if slept_ms <= life.gone.at_ms <= woken_ms + ROUNDING_MS and life.started.at_ms <= slept_ms:
                return slept_ms
        return life.gone.at_ms

    def _read_cases(self) -> Iterator[tuple[str, Case]]:
        logs = {final.job_id: final.events for final in self.history.of(FinalEvents)}
        for final in self.history.of(FinalJob):
            events = logs.get(final.job.id)
            if events is None:
                self.unread.append(final.job.id)
            else:
                yield final.job.id, Case(final.job, final.tenant, events, fold(events))


def _commits(history: History) -> list[Committed]:
    """The transactions of a shared database, without those that a failover has lost."""
    commits: list[Committed] = []
    for record in history:
        if isinstance(record, Committed):
            commits.append(record)
        elif isinstance(record, FailedOver):
            commits = [commit for commit in commits if commit.place <= record.place]
    return commits


def _naps(history: History) -> dict[str, list[tuple[int, int]]]:
    """From when to when each machine slept; one that was killed asleep never woke."""
    naps: dict[str, list[tuple[int, int]]] = defaultdict(list)
    asleep: dict[str, int] = {}
    for record in history:
        if isinstance(record, Slept):
            asleep[record.machine] = record.at_ms
        elif isinstance(record, Woken | Killed) and record.machine in asleep:
            naps[record.machine].append((asleep.pop(record.machine), record.at_ms))
    return naps


def _lives(history: History) -> dict[str, list[Life]]:
    gone = {record.pid: record for record in history.of(ProcessGone)}
    written: dict[int, dict[Stream, bytes]] = defaultdict(dict)
    for record in history.of(ProcessWrote):
        so_far = written[record.pid]
        so_far[record.stream] = so_far.get(record.stream, b"") + record.data
    lives: dict[str, list[Life]] = defaultdict(list)
    for started in history.of(ProcessStarted):
        lives[started.job_id].append(Life(started, gone.get(started.pid), written[started.pid]))
    return lives


def _by_job(records: Sequence[Lease]) -> dict[str, list[Lease]]:
    sorted_out: dict[str, list[Lease]] = defaultdict(list)
    for record in records:
        sorted_out[record.job_id].append(record)
    return sorted_out
