"""Check of a store file: whether SQLite can read all of it, and whether each job's log is whole.

It reads only, and needs the file for itself: a broker's store is checked when that is stopped, or by a backup of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import apsw
import msgspec

from airunner.broker.store.sqlite.rows import Database
from airunner.broker.store.sqlite.schema import MIGRATIONS
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError, PeerError
from airunner.protocol.events import decode_bodies
from airunner.protocol.job import JobState

FAULTS_MAX: Final = 100  # as many as help somebody who has to mend them
# One by one: a page that cannot be read is then one job's.
_JOB: Final = "SELECT number, job_id, state, last_sequence FROM job WHERE number > ? ORDER BY number LIMIT 1"
_SEGMENTS: Final = "SELECT first_sequence, count, events FROM event WHERE number = ? ORDER BY first_sequence"
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


class _Job(NamedTuple):
    number: int
    job_id: str
    state: JobState
    last_sequence: int


class _Segment(NamedTuple):
    first_sequence: int
    events_count: int
    events: bytes


class _LogGap(Exception):
    """The log of a job is not whole."""


def check_store(path: Path) -> StoreReport:
    """Read all of the store at `path`.

    Raises `OperatorError`: it is not there, not a store of this version's, or a broker has it.
    """
    connection = open_alone(path)
    try:
        faults: list[Fault] = []
        try:
            _check_version(connection, path)
            words = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({FAULTS_MAX})")]
        except apsw.Error as error:
            words = [str(error)]
        faults += [Fault(None, f"SQLite: {line}") for line in words if line != "ok"]
        jobs, events = _check_logs(connection, faults)
    finally:
        connection.close()
    return StoreReport(jobs, events, tuple(faults[:FAULTS_MAX]))


def open_alone(path: Path) -> Database:
    """The database at `path`, locked against brokers for as long as it is open.

    Raises `OperatorError`.
    """
    if not path.is_file():
        raise OperatorError(f"there is no store at {path}; name another with --store")
    try:
        connection: Database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise OperatorError(f"cannot open {path}: {error}") from error
    try:
        _lock(connection)
    except apsw.BusyError as error:
        connection.close()
        raise OperatorError(
            f"a broker uses {path}: stop it first, or check a backup (`airunner backup`)", exit_code=EXIT_UNAVAILABLE
        ) from error
    except apsw.NotADBError as error:
        connection.close()
        raise OperatorError(f"{path} is not a store of airunner's") from error
    except apsw.Error:
        pass  # it is damaged: the checks say where
    return connection


def _lock(connection: Database) -> None:
    connection.execute("PRAGMA locking_mode = exclusive")
    connection.execute("BEGIN IMMEDIATE; ROLLBACK")


def _check_version(connection: Database, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").get
    assert isinstance(version, int), "user_version is a number"
    if version > len(MIGRATIONS):
        raise OperatorError(f"{path} was written by a newer airunner; use that one")
    if not version:
        raise OperatorError(f"{path} is not a store of airunner's")
    if version < len(MIGRATIONS):
        raise OperatorError(f"{path} was written by an older airunner; start its broker once, and it is up to date")


def _check_logs(connection: Database, faults: list[Fault]) -> tuple[int, int]:
    """How many jobs and events were read; what is wrong with them joins `faults`."""
    jobs = events = number = 0
    while True:
        try:
            row = connection.execute(_JOB, (number,)).fetchone()
        except apsw.Error as error:
            faults.append(Fault(None, f"the jobs after number {number} cannot be read: {error}"))
            return jobs, events
        if row is None:
            return jobs, events
        job = msgspec.convert(row, _Job)
        jobs, number = jobs + 1, job.number
        try:
            events += _check_log(connection, job)
        except (apsw.Error, PeerError, *UNDECODABLE) as error:
            faults.append(Fault(job.job_id, f"its log cannot be read: {error}"))
        except _LogGap as gap:
            faults.append(Fault(job.job_id, str(gap)))


def _check_log(connection: Database, job: _Job) -> int:
    """How many events it has. Raises `_LogGap`, and what reading and decoding raise."""
    sequence = 0
    kind = ""
    for row in connection.execute(_SEGMENTS, (job.number,)):
        segment = msgspec.convert(row, _Segment)
        if segment.first_sequence != sequence + 1:
            raise _LogGap(f"its log has a hole: event {sequence + 1} is missing")
        bodies = decode_bodies(segment.events)
        if len(bodies) != segment.events_count:
            raise _LogGap(f"a segment of its log has {len(bodies)} events and should have {segment.events_count}")
        sequence += segment.events_count
        kind = str(bodies[-1].__struct_config__.tag)
    if sequence != job.last_sequence:
        raise _LogGap(f"its log ends with event {sequence} instead of {job.last_sequence}")
    if job.state.terminal and kind != _FINISHED:
        raise _LogGap(f"its log ends with {kind} instead of {_FINISHED}")
    return sequence
