"""Check of a store file: whether the database can read all of it, and whether each job's log is whole.

It reads only, and needs the file for itself: a broker's store is checked when that is stopped, or by a backup of it.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from airunner.broker.store.contract import JobRow
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_alone
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import CorruptLog, PeerError
from airunner.protocol.events import decode_bodies
from airunner.protocol.job import JobState

FAULTS_MAX: Final = 100  # as many as help somebody who has to mend them
_FINISHED: Final = "JOB_FINISHED"


class Fault(NamedTuple):
    """One thing that is wrong: with the log of `job_id`, or with the store as a whole."""

    job_id: str | None
    words: str


class StoreReport(NamedTuple):
    """Result of a check: what was read, and the first `FAULTS_MAX` things that are wrong."""

    jobs: int
    events: int
    faults: tuple[Fault, ...]


class _LogGap(Exception):
    """The log of a job is not whole."""


def check_store(path: Path) -> StoreReport:
    """Read all of the store at `path`.

    Raises `OperatorError`: it is not there, not a store of this version's, or a broker has it.
    """
    with closing(open_alone(path)) as engine:
        faults = [Fault(None, f"SQLite: {line}") for line in engine.faults(FAULTS_MAX)]
        jobs = events = number = 0
        try:
            while (job := engine.job_after(number)) is not None:  # one by one: what cannot be read is then one job's
                jobs, number = jobs + 1, job.number
                events += _check_log(engine, job, faults)
        except CorruptLog as error:
            faults.append(Fault(None, f"the jobs after number {number} cannot be read: {error.__cause__}"))
    return StoreReport(jobs, events, tuple(faults[:FAULTS_MAX]))


def _check_log(engine: SqliteEngine, job: JobRow, faults: list[Fault]) -> int:
    """How many events a log has; what is wrong with it joins `faults`."""
    try:
        return _read(engine, job)
    except (PeerError, *UNDECODABLE) as error:
        faults.append(Fault(job.job_id, f"its log cannot be read: {error.__cause__ or error}"))
    except _LogGap as gap:
        faults.append(Fault(job.job_id, str(gap)))
    return 0


def _read(engine: SqliteEngine, job: JobRow) -> int:
    """How many events it has. Raises `_LogGap`, and what reading and decoding raise."""
    sequence = 0
    kind = ""
    for segment in engine.segments(job.number, 0):
        if segment.first_sequence != sequence + 1:
            raise _LogGap(f"its log has a hole: event {sequence + 1} is missing")
        bodies = decode_bodies(segment.events)
        if len(bodies) != segment.count:
            raise _LogGap(f"a segment of its log has {len(bodies)} events and should have {segment.count}")
        sequence += segment.count
        kind = str(bodies[-1].__struct_config__.tag)
    if sequence != job.last_sequence:
        raise _LogGap(f"its log ends with event {sequence} instead of {job.last_sequence}")
    if JobState(job.state).terminal and kind != _FINISHED:
        raise _LogGap(f"its log ends with {kind} instead of {_FINISHED}")
    return sequence
