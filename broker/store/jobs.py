"""Jobs in SQL: submitted once, listed, looked at."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from airunner.broker.store.contract import Appended, Ask, Outcome, QueueKey, WatchKeyFound
from airunner.broker.store.log import Log
from airunner.broker.store.rows import Database, fetch_all, fetch_one
from airunner.protocol.errors import BadRequest, Conflict, NotFound
from airunner.protocol.events import JobScheduled
from airunner.protocol.job import Job, JobSpec, JobState, JobSummary, Result, command_summary, decode_spec, encode_spec
from airunner.protocol.messages import (
    EnqueueJob,
    GetJob,
    JobFound,
    JobsEnqueued,
    JobsListed,
    ListJobs,
    WatchJob,
    canonical_hash,
)
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.redaction import without_credentials

_INSERT: Final = (
    "INSERT INTO job (job_id, tenant, queue, state, owner, spec, watch_key, submitted_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING number"
)
_result_decoder = msgspec.msgpack.Decoder(Result)


_COLUMNS: Final = "job_id, state, spec, submitted_ms, attempt, last_sequence, agent, started_ms, finished_ms, result"


class _Row(NamedTuple):
    job_id: JobId
    state: JobState
    spec: bytes
    submitted_ms: int
    attempt: int
    last_sequence: int
    agent: str | None
    started_ms: int | None
    finished_ms: int | None
    result: bytes | None

    @property
    def ended(self) -> Result | None:
        return None if self.result is None else _result_decoder.decode(self.result)


class _Before(NamedTuple):
    body_hash: bytes
    first_number: int
    jobs_count: int


class Jobs:
    """Adds and reads jobs over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, log: Log) -> None:
        self._connection = connection
        self._log = log

    def enqueue(self, ask: Ask, request: EnqueueJob, now_ms: int) -> Outcome:
        """Submit all of the jobs, or say which ones this request id has submitted.

        Raises `Conflict`, `BadRequest`; then nothing is changed.
        """
        body_hash = canonical_hash(request)
        before = fetch_one(
            self._connection,
            _Before,
            "SELECT body_hash, first_number, count FROM request WHERE tenant = ? AND request_id = ?",
            (ask.tenant, ask.request_id),
        )
        if before is not None:
            return self._repeat(body_hash, before)
        try:
            specs = [encode_spec(job) for job in request.jobs]
        except ValueError as error:
            raise BadRequest(str(error)) from error
        assert len(ask.minted) == len(request.jobs), "an id for each job"
        appended: list[Appended] = []
        numbers: list[int] = []
        for job, spec, minted in zip(request.jobs, specs, ask.minted, strict=True):
            values = (
                minted.job_id,
                ask.tenant,
                job.queue,
                JobState.SCHEDULED,
                job.owner,
                spec,
                minted.watch_key,
                now_ms,
            )
            number = self._connection.execute(_INSERT, values).get
            assert isinstance(number, int), "a row has a number"
            numbers.append(number)
            event = JobScheduled(timestamp_ms=now_ms, queue=job.queue)
            appended.append(self._log.append(number, minted.watch_key, 0, 0, [event]))
        self._connection.execute(
            "INSERT INTO request (tenant, request_id, body_hash, first_number, count) VALUES (?, ?, ?, ?, ?)",
            (ask.tenant, ask.request_id, body_hash, numbers[0], len(numbers)),
        )
        return Outcome(
            reply=JobsEnqueued(job_ids=tuple(minted.job_id for minted in ask.minted)),
            appended=tuple(appended),
            ready=frozenset(QueueKey(ask.tenant, job.queue) for job in request.jobs),
        )

    def get(self, tenant: str, request: GetJob) -> JobFound:
        """One job.

        Raises `NotFound`.
        """
        row = fetch_one(
            self._connection,
            _Row,
            f"SELECT {_COLUMNS} FROM job WHERE job_id = ? AND tenant = ?",
            (request.job_id, tenant),
        )
        if row is None:
            raise NotFound
        job = Job(
            id=row.job_id,
            state=row.state,
            spec=_shown(decode_spec(row.spec)),
            submitted_ms=row.submitted_ms,
            attempt=row.attempt,
            last_sequence=row.last_sequence,
            agent=row.agent,
            started_ms=row.started_ms,
            finished_ms=row.finished_ms,
            result=row.ended,
        )
        return JobFound(job=job)

    def list(self, tenant: str, request: ListJobs) -> JobsListed:
        """A page, newest first; one row more than the page is read to know whether another follows.

        Raises `NotFound`: there is no job `before`.
        """
        where = ["tenant = ?"]
        values: list[str | int] = [tenant]
        if request.queue is not None:
            where.append("queue = ?")
            values.append(request.queue)
        if request.state is not None:
            where.append("state = ?")
            values.append(request.state)
        if request.before is not None:
            where.append("number < ?")
            values.append(self._number(tenant, request.before))
        rows = fetch_all(
            self._connection,
            _Row,
            f"SELECT {_COLUMNS} FROM job WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ? OFFSET ?",
            (*values, request.page_size + 1, (request.page - 1) * request.page_size),
        )
        summaries = [_summary(row) for row in rows[: request.page_size]]
        return JobsListed(jobs=tuple(summaries), more=len(rows) > request.page_size)

    def watch(self, tenant: str, request: WatchJob) -> WatchKeyFound:
        """The key to a job's live events.

        Raises `NotFound`.
        """
        key = self._connection.execute(
            "SELECT watch_key FROM job WHERE job_id = ? AND tenant = ?", (request.job_id, tenant)
        ).get
        if key is None:
            raise NotFound
        assert isinstance(key, bytes), "a key is bytes"
        return WatchKeyFound(WatchKey(key))

    def _repeat(self, body_hash: bytes, before: _Before) -> Outcome:
        """What the first was answered. The jobs of one request are numbered without a gap."""
        if body_hash != before.body_hash:
            raise Conflict
        rows = self._connection.execute(
            "SELECT job_id FROM job WHERE number >= ? ORDER BY number LIMIT ?", (before.first_number, before.jobs_count)
        )
        return Outcome(reply=JobsEnqueued(job_ids=tuple(JobId(str(job_id)) for (job_id,) in rows)))

    def _number(self, tenant: str, job_id: str) -> int:
        number = self._connection.execute(
            "SELECT number FROM job WHERE job_id = ? AND tenant = ?", (job_id, tenant)
        ).get
        if number is None:
            raise NotFound
        assert isinstance(number, int), "a row has a number"
        return number


def _shown(spec: JobSpec) -> JobSpec:
    """What a reader may see of it; the agent that runs the job is given all."""
    return msgspec.structs.replace(spec, repository=without_credentials(spec.repository))


def _summary(row: _Row) -> JobSummary:
    spec = decode_spec(row.spec)
    return JobSummary(
        id=row.job_id,
        state=row.state,
        queue=spec.queue,
        command=command_summary(spec),
        submitted_ms=row.submitted_ms,
        attempt=row.attempt,
        owner=spec.owner,
        repository=without_credentials(spec.repository),
        started_ms=row.started_ms,
        finished_ms=row.finished_ms,
        result=row.ended,
    )
