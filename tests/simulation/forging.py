"""Forging of recorded histories: records changed, dropped, added or told twice; see `forgeries`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from msgspec.structs import replace

from airunner.protocol.events import Event
from airunner.protocol.names import JobId
from tests.simulation.evidence import Case, Evidence
from tests.simulation.history import (
    FinalEvents,
    FinalJob,
    History,
    Record,
)

Forgery = Callable[[Evidence], Iterator[History]]
Fits = Callable[[Any], object]
FORGED_MAX: Final = 6  # of one kind in one history
NEVER_MS: Final = 2**52
CANCEL: Final = "JOB_CANCEL_REQUESTED"


def anything(_: object) -> bool:
    return True


def forged(good: Evidence, old: Iterable[Record] = (), new: Iterable[Record] = ()) -> History:
    """The history without `old` and with `new`, which happens when it says; at -1, at the very end."""
    gone = {id(record) for record in old}
    kept = [record for record in good.history if id(record) not in gone]
    added = [replace(record, at_ms=good.end_ms) if record.at_ms < 0 else record for record in new]
    return History(sorted([*kept, *added], key=lambda record: record.at_ms))


def other(what: Any, fields: Mapping[str, object]) -> Any:
    """The same but for these fields; each is a value, or is made of what there was."""
    return replace(what, **{name: new(what) if callable(new) else new for name, new in fields.items()})


def found(good: Evidence, kind: type[Record], fits: Fits) -> Iterator[Any]:
    return islice((record for record in good.history.of(kind) if fits(record)), FORGED_MAX)


def changed(kind: type[Record], fits: Fits = anything, **fields: object) -> Forgery:
    """A record of this kind says something else."""
    return lambda good: (forged(good, [record], [other(record, fields)]) for record in found(good, kind, fits))


def again(kind: type[Record], fits: Fits = anything, **fields: object) -> Forgery:
    """A copy of a record, which says something else, comes at the end."""
    fields["at_ms"] = -1
    return lambda good: (forged(good, new=[other(record, fields)]) for record in found(good, kind, fits))


def dropped(kind: type[Record], fits: Fits = anything) -> Forgery:
    """A record is missing."""
    return lambda good: (forged(good, [record]) for record in found(good, kind, fits))


def told(record: Record) -> Forgery:
    """This happens too."""
    return lambda good: iter([forged(good, new=[record])])


def ends(good: Evidence, fits: Fits) -> Iterator[tuple[Case, FinalJob, FinalEvents]]:
    """What is left of the jobs that fit."""
    logs = {log.job_id: log for log in good.history.of(FinalEvents)}
    jobs = [job for job in good.history.of(FinalJob) if fits(good.cases[job.job.id])]
    return ((good.cases[job.job.id], job, logs[job.job.id]) for job in jobs[:FORGED_MAX])


def shown(fits: Fits, **fields: object) -> Forgery:
    """A job is not what it was."""
    return lambda good: (
        forged(good, [job], [replace(job, job=other(job.job, fields))]) for _, job, _ in ends(good, fits)
    )


def asked(fits: Fits, **fields: object) -> Forgery:
    """A job was to be something else; a field may be made of its `Case`."""
    return lambda good: (
        forged(good, [job], [replace(job, job=replace(job.job, spec=replace(job.job.spec, **made)))])
        for case, job, _ in ends(good, fits)
        for made in [{name: new(case) if callable(new) else new for name, new in fields.items()}]
    )


def logged(fits: Fits, change: Callable[[list[Event]], Iterable[Event]]) -> Forgery:
    """A job's log is another, and counted as if it were not."""

    def forge(good: Evidence) -> Iterator[History]:
        for case, job, log in ends(good, fits):
            events = tuple(replace(event, sequence=n) for n, event in enumerate(change([*case.events]), start=1))
            counted = replace(job, job=replace(case.job, last_sequence=len(events)))
            yield forged(good, [job, log], [counted, replace(log, events=events)])

    return forge


def twice(fits: Fits) -> Forgery:
    """A job is there a second time, under another id."""
    return lambda good: (
        forged(good, new=[replace(job, job=replace(job.job, id=JobId("copy"))), replace(log, job_id="copy")])
        for _, job, log in ends(good, fits)
    )
