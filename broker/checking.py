"""Check of a store: whether each job's log is complete and, of a file, whether SQLite can read all of it.

It only reads, but locks a file: check a broker's store while the broker is stopped, or check a backup of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from airunner.broker.store.awsurl import AwsUrl, is_aws
from airunner.broker.store.open import inspect_postgres, require_psycopg
from airunner.broker.store.rows import STDIN_SEQUENCE, JobRow, Segment
from airunner.broker.store.sqlite.opening import open_alone
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import CorruptLog, PeerError
from airunner.protocol.events import decode_bodies
from airunner.protocol.job import JobState, decode_spec

FAULTS_MAX: Final = 100  # faults in a report: more would not help to repair the store
_FINISHED: Final = "JOB_FINISHED"


class Fault(NamedTuple):
    """Fault in the log of `job_id`; None: a fault of the store as a whole."""

    job_id: str | None
    words: str


class StoreReport(NamedTuple):
    """Report of a check: number of jobs read, number of events in sound logs, and the first `FAULTS_MAX` faults."""

    jobs: int
    events: int
    faults: tuple[Fault, ...]


class ReadableLogs(Protocol):
    """Store whose jobs and logs can be read, in pages."""

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        """Load the first jobs with higher numbers, with their specs. Raises `CorruptLog`."""
        ...

    def segments(self, number: int, sequence: int) -> Iterator[Segment]:
        """Read the log of a job that was loaded last, from the segment with event `sequence` on."""
        ...


class _LogFault(Exception):
    """Fault of a job's log: an event is missing, a segment's count is wrong, or the last event is the wrong one."""


def check_store(path: Path) -> StoreReport:
    """Check the store file at `path` completely.

    Raises `OperatorError`: no such file, not a store of this version, or a broker uses it.
    """
    with closing(open_alone(path)) as engine:
        faults = [Fault(None, f"SQLite: {line}") for line in engine.faults(FAULTS_MAX)]
        report = check_logs(engine)
    return report._replace(faults=(*faults, *report.faults)[:FAULTS_MAX])


def check_database(url: str) -> tuple[StoreReport, str, int]:
    """Check a store on PostgreSQL, as it is at one instant; return also its name and the bytes of its tenants.

    Raises `OperatorError`: no store of this version can be read there.
    """
    require_psycopg()
    from airunner.broker.store.postgres.connecting import shown
    from airunner.broker.store.postgres.copying import open_content

    with open_content(url, unused=False) as engine, engine.reading():
        size_bytes = sum(usage.size_bytes for usage in engine.usages().values())
        return check_logs(engine), shown(url), size_bytes


def check_table(url: str) -> tuple[StoreReport, str, int]:
    """Check a store on DynamoDB, job by job, while brokers use it; return also its name and the bytes of its tenants.

    Raises `OperatorError`: no store of this version can be read there.
    """
    from airunner.broker.store.dynamodb.inspecting import open_logs

    parsed = AwsUrl.parse(url)
    with open_logs(parsed) as reader:
        return check_logs(reader, reader.read_again), f"aws:{parsed.table}", reader.size_bytes()


def inspect_store(url: str, now_ms: Callable[[], int]) -> list[str]:
    """Check a store of several brokers without changing anything, and return warnings. Raises `OperatorError`."""
    if not is_aws(url):
        return inspect_postgres(url, now_ms)
    import anyio

    from airunner.broker.aws.opening import open_lines
    from airunner.broker.store.dynamodb.inspecting import inspect

    parsed = AwsUrl.parse(url)
    warnings = inspect(parsed)

    async def look_lines_up() -> None:
        with open_lines(parsed, warnings.append):
            pass

    anyio.run(look_lines_up)
    return warnings


def check_logs(engine: ReadableLogs, read_again: Callable[[JobRow], JobRow | None] | None = None) -> StoreReport:
    """Check the log of each job of a store.

    read_again: reads a job whose log has a fault again, because brokers use the store; None: it was removed. Without
        it no broker may change the store meanwhile
    """
    faults: list[Fault] = []
    jobs = events = number = 0
    try:
        while found := engine.jobs_after(number, 1):  # one by one, to check all jobs before a damaged row
            (job,) = found
            jobs, number = jobs + 1, job.number
            checked = _check_log(engine, job)
            if isinstance(checked, Fault) and read_again is not None:
                later = read_again(job)
                checked = 0 if later is None else _check_log(engine, later)
            if isinstance(checked, Fault):
                faults.append(checked)
            else:
                events += checked
    except CorruptLog as error:
        faults.append(Fault(None, f"the check had to end at the job after number {number}: {error.__cause__}"))
    return StoreReport(jobs, events, tuple(faults[:FAULTS_MAX]))


def _check_log(engine: ReadableLogs, job: JobRow) -> int | Fault:
    """Count the events of a log, or return its fault."""
    try:
        return _read(engine, job)
    except (PeerError, *UNDECODABLE) as error:
        return Fault(job.job_id, f"its log cannot be read: {error.__cause__ or error}")
    except _LogFault as fault:
        return Fault(job.job_id, str(fault))


def _read(engine: ReadableLogs, job: JobRow) -> int:
    """Read a job's log and count its events. Raises `_LogFault`, `PeerError`, and the errors `UNDECODABLE`."""
    sequence = 0
    kind = ""
    stdin_bytes: int | None = None
    for segment in engine.segments(job.number, STDIN_SEQUENCE):
        if segment.first_sequence == STDIN_SEQUENCE:
            stdin_bytes = len(segment.events)
            continue
        if segment.first_sequence != sequence + 1:
            raise _LogFault(f"its log has a hole: event {sequence + 1} is missing")
        bodies = decode_bodies(segment.events)
        if len(bodies) != segment.count:
            raise _LogFault(f"a segment of its log has {len(bodies)} events and should have {segment.count}")
        sequence += segment.count
        kind = str(bodies[-1].__struct_config__.tag)
    if stdin_bytes != (expected := decode_spec(job.spec).stdin_bytes):
        raise _LogFault(f"its standard input has {stdin_bytes or 0} bytes and should have {expected or 0}")
    if sequence != job.last_sequence:
        raise _LogFault(f"its log ends with event {sequence} instead of {job.last_sequence}")
    if JobState(job.state).terminal and kind != _FINISHED:
        raise _LogFault(f"its log ends with {kind} instead of {_FINISHED}")
    return sequence
