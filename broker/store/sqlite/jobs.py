"""Jobs in SQL: submitted once, listed, looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from airunner.broker.store.contract import (
    Appended,
    Ask,
    MintedJob,
    Outcome,
    QueueKey,
    WatchKeyFound,
    looks_through_many,
)
from airunner.broker.store.needs import needs_of
from airunner.broker.store.room import Room
from airunner.broker.store.sqlite.idempotency import answered, note_answer
from airunner.broker.store.sqlite.log import Log
from airunner.broker.store.sqlite.queues import Queues
from airunner.broker.store.sqlite.rows import Database, fetch_all, fetch_one, within
from airunner.broker.store.sqlite.schema import fact_of, note_metadata
from airunner.broker.store.sqlite.usage import Usage
from airunner.certs.principal import QueueScope
from airunner.protocol.errors import BadRequest, Draining, NoSpace, NotFinished, NotFound
from airunner.protocol.events import JobScheduled
from airunner.protocol.gitaddress import shown_address
from airunner.protocol.job import (
    Job,
    JobSpec,
    JobState,
    JobSummary,
    Result,
    check_new,
    command_summary,
    decode_spec,
    encode_spec,
)
from airunner.protocol.messages import (
    CancelJob,
    EnqueueJob,
    GetJob,
    JobFound,
    JobsEnqueued,
    JobsListed,
    ListJobs,
    ListPlace,
    ReplayJobEvents,
    RetryJob,
    WatchJob,
)
from airunner.protocol.names import JobId, WatchKey
from airunner.protocol.queues import QueueMode
from airunner.protocol.redaction import without_credentials, without_secrets

_INSERT: Final = (
    "INSERT INTO job (job_id, tenant, queue, state, priority, max_attempts, owner, spec, watch_key, submitted_ms,"
    " due_ms, origin, needs, last_sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1) RETURNING number"
)
_ABOVE_ALL: Final = 2**62  # more than any number
_COLUMNS: Final = (
    "job_id, state, spec, submitted_ms, attempt, last_sequence, agent, started_ms, finished_ms, result,"
    " due_ms, retries, cancel_requested_ms, origin"
)
COUNTED_MAX: Final = 10_000  # jobs on all pages together, in one request: about a ms
LOOKED_MAX: Final = 20_000  # of a tenant's jobs, for one list that no index has in order: some 10 ms
OF_A_JOB: Final = (GetJob, WatchJob, ReplayJobEvents, CancelJob, RetryJob)
_result_decoder = msgspec.msgpack.Decoder(Result)


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
    due_ms: int | None
    retries: int
    cancel_requested_ms: int | None
    origin: JobId | None

    @property
    def ended(self) -> Result | None:
        return None if self.result is None else _result_decoder.decode(self.result)


class _Lowest(NamedTuple):
    number: int
    job_id: JobId


class _Ended(NamedTuple):
    state: JobState
    spec: bytes


class Jobs:
    """Adds and reads jobs over `connection`, within the caller's transaction."""

    def __init__(self, connection: Database, log: Log, queues: Queues, usage: Usage) -> None:
        self._connection = connection
        self._usage = usage
        self._log = log
        self._queues = queues

    def enqueue(self, ask: Ask, request: EnqueueJob, now_ms: int) -> Outcome:
        """Submit all of the jobs, or say which ones this request id has submitted.

        Raises `Conflict`, `BadRequest`, `Draining`, `NoSpace`, `Quota`; then nothing is changed.
        """
        if (before := answered(self._connection, ask, request)) is not None:
            return Outcome(reply=JobsEnqueued(job_ids=before))
        return self._submit(ask, request, request.jobs, None, now_ms)

    def retry(self, ask: Ask, request: RetryJob, now_ms: int) -> Outcome:
        """Submit a job that has ended anew.

        A repeat is answered as the first, though the job may have been removed since.

        Raises `NotFound`, `NotFinished`, `BadRequest`, `Conflict`, `Draining`, `NoSpace`, `Quota`; then nothing is
        changed.
        """
        if (before := answered(self._connection, ask, request)) is not None:
            return Outcome(reply=JobsEnqueued(job_ids=before))
        ended = fetch_one(
            self._connection,
            _Ended,
            "SELECT state, spec FROM job WHERE job_id = ? AND tenant = ?",
            (request.job_id, ask.tenant),
        )
        if ended is None:
            raise NotFound
        if not ended.state.terminal:
            raise NotFinished
        spec = decode_spec(ended.spec)
        try:
            check_new(spec)
        except ValueError as error:
            raise BadRequest(f"the job cannot be submitted again as it is: {error}") from error
        return self._submit(ask, request, [spec], JobId(request.job_id), now_ms)

    def _submit(
        self, ask: Ask, request: EnqueueJob | RetryJob, jobs: Sequence[JobSpec], origin: JobId | None, now_ms: int
    ) -> Outcome:
        if ask.room < Room.AMPLE:
            raise NoSpace
        self._usage.require(ask.tenant, len(jobs), ask.quotas)
        for queue in dict.fromkeys(job.queue for job in jobs):
            if self._queues.mode(ask.tenant, queue) is QueueMode.DRAINING:
                raise Draining(f"queue {queue} is being drained and takes no new jobs; `airunner resume` opens it")
        self._queues.take_needs(
            ask.tenant, [QueueKey(ask.tenant, job.queue, needs_of(job.require)) for job in jobs if job.require]
        )
        try:
            specs = [encode_spec(job) for job in jobs]
        except ValueError as error:
            raise BadRequest(str(error)) from error
        assert len(ask.minted) == len(jobs), "an id for each job"
        appended = tuple(
            self._insert(ask.tenant, minted, job, spec, origin, now_ms)
            for job, spec, minted in zip(jobs, specs, ask.minted, strict=True)
        )
        job_ids = tuple(minted.job_id for minted in ask.minted)
        note_answer(self._connection, self._usage, ask, request, job_ids, now_ms)
        return Outcome(
            reply=JobsEnqueued(job_ids=job_ids),
            appended=appended,
            ready=frozenset(QueueKey(ask.tenant, job.queue, needs_of(job.require)) for job in jobs),
        )

    def _insert(
        self, tenant: str, minted: MintedJob, job: JobSpec, spec: bytes, origin: JobId | None, now_ms: int
    ) -> Appended:
        due_ms = job.not_before_ms if job.not_before_ms is not None and job.not_before_ms > now_ms else None
        number = self._connection.execute(
            _INSERT,
            (
                minted.job_id,
                tenant,
                job.queue,
                JobState.SCHEDULED,
                job.priority,
                job.max_attempts,
                job.owner,
                spec,
                minted.watch_key,
                now_ms,
                due_ms,
                origin,
                needs_of(job.require),
            ),
        ).get
        assert isinstance(number, int), "a row has a number"
        note_metadata(self._connection, tenant, number, job.metadata)
        event = JobScheduled(timestamp_ms=now_ms, queue=job.queue, not_before_ms=due_ms, origin=origin)
        self._usage.add(tenant, len(spec))
        return self._log.append(tenant, number, minted.watch_key, 0, 0, [event])

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
        spec = decode_spec(row.spec)
        job = Job(
            id=row.job_id,
            state=row.state,
            spec=_shown(spec),
            submitted_ms=row.submitted_ms,
            attempt=row.attempt,
            last_sequence=row.last_sequence,
            agent=row.agent,
            started_ms=row.started_ms,
            finished_ms=row.finished_ms,
            result=row.ended,
            due_ms=row.due_ms,
            retries=row.retries,
            cancel_requested_ms=row.cancel_requested_ms,
            origin=row.origin,
            waited_ms=_waited_ms(row, spec),
        )
        return JobFound(job=job)

    def require_in(self, ask: Ask) -> None:
        """Raises `NotFound` where it names a job outside of its queues; what names an attempt proves its right."""
        if ask.queues is None or not isinstance(ask.request, OF_A_JOB):
            return
        queue = self._connection.execute(
            "SELECT queue FROM job WHERE job_id = ? AND tenant = ?", (ask.request.job_id, ask.tenant)
        ).get
        if queue not in ask.queues:
            raise NotFound

    def list(self, tenant: str, request: ListJobs, queues: QueueScope = None) -> JobsListed:
        """A page of jobs in `queues`, newest first; one row more than it is read to know whether another follows.

        No more than `LOOKED_MAX` jobs are looked through; then the reply says where to go on.

        Raises `NotFound`: there is no job `before`.
        """
        source, where, values = _filtered(tenant, request)
        scattered = queues is not None and request.queue is None  # no index has jobs of several queues in order
        if scattered:
            condition, names = within("job.queue", queues)
            where.append(condition)
            values += names
        number = "found.number" if request.metadata else "job.number"  # of the index that is read in order
        before = None if request.before is None else self._number(tenant, request.before)
        if before is not None:
            where.append(f"{number} < ?")
            values.append(before)
        skip = request.skip + (request.page - 1) * request.page_size
        looked = LOOKED_MAX // max(1, len(request.metadata))  # each further piece is looked up for each job
        direct = not scattered and not looks_through_many(request) and skip + request.page_size < looked
        lowest = None if direct else self._lowest(tenant, before, looked)
        if lowest is not None:
            where.append(f"{number} >= ?")
            values.append(lowest.number)
        found = f"FROM {source} WHERE {' AND '.join(where)}"
        rows = fetch_all(
            self._connection,
            _Row,
            f"SELECT {_COLUMNS} {found} ORDER BY {number} DESC LIMIT ? OFFSET ?",
            (*values, request.page_size + 1, skip),
        )
        summaries = tuple(_summary(row) for row in rows[: request.page_size])
        total, beyond = self._count(tenant, request, queues) if request.count else (None, False)
        if lowest is None or len(rows) > request.page_size:
            return JobsListed(jobs=summaries, more=len(rows) > request.page_size, total=total, beyond=beyond)
        if skip and not rows:
            passed = self._connection.execute(f"SELECT count(*) {found}", tuple(values)).get
            assert isinstance(passed, int), "a count"
            skip -= passed
        else:
            skip = 0
        place = ListPlace(before=lowest.job_id, skip=skip)
        return JobsListed(jobs=summaries, more=True, going_on=place, total=total, beyond=beyond)

    def _count(self, tenant: str, request: ListJobs, queues: QueueScope) -> tuple[int, bool]:
        """How many jobs are listed on all pages, and whether there may be more than were counted."""
        source, where, values = _filtered(tenant, request)
        scattered = queues is not None and request.queue is None
        if scattered:
            condition, names = within("job.queue", queues)
            where.append(condition)
            values += names
        lowest = None
        if scattered or looks_through_many(request):
            lowest = self._lowest(tenant, None, LOOKED_MAX // max(1, len(request.metadata)))
        if lowest is not None:
            where.append(f"{'found.number' if request.metadata else 'job.number'} >= ?")
            values.append(lowest.number)
        counted = self._connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {' AND '.join(where)} LIMIT ?)",
            (*values, COUNTED_MAX + 1),
        ).get
        assert isinstance(counted, int), "a count"
        return min(counted, COUNTED_MAX), lowest is not None or counted > COUNTED_MAX

    def _lowest(self, tenant: str, before: int | None, looked: int) -> _Lowest | None:
        """The last of the `looked` jobs before `before`; None where there are not so many."""
        return fetch_one(
            self._connection,
            _Lowest,
            "SELECT number, job_id FROM job WHERE number = (SELECT number FROM job INDEXED BY job_listed"
            " WHERE tenant = ? AND number < ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (tenant, _ABOVE_ALL if before is None else before, looked - 1),
        )

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

    def _number(self, tenant: str, job_id: str) -> int:
        number = self._connection.execute(
            "SELECT number FROM job WHERE job_id = ? AND tenant = ?", (job_id, tenant)
        ).get
        if number is None:
            raise NotFound
        assert isinstance(number, int), "a row has a number"
        return number


def _filtered(tenant: str, request: ListJobs) -> tuple[str, list[str], list[str | int | bytes]]:
    """Where to read the jobs that `request` asks for, the conditions and their values.

    Each source is in the order of numbers, so that a page ends long before what it is taken from does: jobs
    with a piece of metadata are read from its index, the other pieces are then looked up for each.
    """
    where = ["job.tenant = ?"]
    values: list[str | int | bytes] = [tenant]
    if request.queue is not None:
        where.append("job.queue = ?")
        values.append(request.queue)
    if request.state is not None:
        where.append("job.state = ?")
        values.append(request.state)
    if request.owner is not None:
        where.append("job.owner = ? AND job.owner != ''")  # else the index of those that have one is not used
        values.append(request.owner)
    facts = [fact_of(name, value) for name, value in request.metadata.items()]
    for fact in facts[1:]:
        where.append("EXISTS (SELECT 1 FROM metadata WHERE tenant = ? AND fact = ? AND number = job.number)")
        values += [tenant, fact]
    if not facts:
        return "job", where, values
    where.append("found.tenant = ? AND found.fact = ?")
    values += [tenant, facts[0]]
    return "metadata AS found CROSS JOIN job ON job.number = found.number", where, values


def _shown(spec: JobSpec) -> JobSpec:
    """What a reader may see of it; the agent that runs the job is given all."""
    return msgspec.structs.replace(
        spec,
        command=without_credentials(spec.command),
        args=tuple(map(without_credentials, spec.args)),
        repository=shown_address(spec.repository),
        environment=without_secrets(spec.environment, spec.secret_names),
    )


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
        repository=shown_address(spec.repository),
        started_ms=row.started_ms,
        finished_ms=row.finished_ms,
        result=row.ended,
        priority=spec.priority,
        due_ms=row.due_ms,
        cancel_requested_ms=row.cancel_requested_ms,
        origin=row.origin,
        waited_ms=_waited_ms(row, spec),
    )


def _waited_ms(row: _Row, spec: JobSpec) -> int | None:
    """How long the job could have been leased before it first was; None where it was not yet."""
    return None if row.started_ms is None else max(0, row.started_ms - max(row.submitted_ms, spec.not_before_ms or 0))
