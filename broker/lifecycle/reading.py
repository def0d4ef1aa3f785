"""Read requests: make replies from the engine's pages, outside of a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from airunner.broker.lifecycle.commands import (
    BlobsAsked,
    BrokersFound,
    LeasesCounted,
    LogFound,
    StreamsFound,
    TenantRequest,
    WatchKeyFound,
)
from airunner.broker.lifecycle.replaying import replay, stdin_in
from airunner.broker.lifecycle.searching import searched_part
from airunner.broker.lifecycle.showing import detailed_summary_of, job_of, summary_of
from airunner.broker.lifecycle.submitting import facts_of
from airunner.broker.store.contract import Engine, JobFilter
from airunner.broker.store.needs import meets, tag_facts
from airunner.broker.store.rows import STDIN_SEQUENCE, JobRow, Keys, QueueKey, QueueRow
from airunner.certs.principal import QueueScope
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.cacherequests import ListCaches, RemoveCaches
from airunner.protocol.errors import CorruptLog, Forbidden, NotFound, StaleToken
from airunner.protocol.job import JobState, JobView, decode_spec
from airunner.protocol.logsearch import START
from airunner.protocol.message import LeaseRef
from airunner.protocol.musts import MUST_KNOW
from airunner.protocol.names import token_hash
from airunner.protocol.replies import (
    JobEventsReplayed,
    JobFound,
    JobsListed,
    JobStdinRead,
    ListPlace,
    QueuesListed,
    QueueSummary,
    SecretsListed,
    SecretSummary,
)
from airunner.protocol.requests import (
    PAGE_SIZE_MAX,
    GetBlob,
    GetJob,
    GetJobStdin,
    HaveBlobs,
    ListAgents,
    ListBrokers,
    ListJobs,
    ListQueues,
    ListSecrets,
    PutBlob,
    ReadJobStdin,
    ReplayJobEvents,
    SearchLog,
    WatchJob,
    WatchTenant,
)
from airunner.protocol.treerequest import EnqueueJobWithTree

COUNTED_MAX: Final = 10_000  # jobs up to which a list's total is counted, in about a ms
LOOKED_MAX: Final = 20_000  # jobs searched through for a list that no index has in order, in some 10 ms
DETAILS_BYTES_MAX: Final = 524_288  # of the specs whose details are on a page: 8 or more jobs
STREAMS_MAX: Final = 64  # change streams in one reply
_View = TypeVar("_View", bound=JobView)


def list_agents(engine: Engine, command: TenantRequest, _request: ListAgents) -> LeasesCounted:
    """Count the leases of each agent."""
    return LeasesCounted(engine.leases(command.tenant))


def list_brokers(engine: Engine, command: TenantRequest, _request: ListBrokers) -> BrokersFound:
    """List the brokers of the store, with their leases of the tenant's jobs."""
    return BrokersFound(engine.brokers(command.tenant, command.queues))


def get_job(engine: Engine, command: TenantRequest, request: GetJob) -> JobFound:
    """Get a job. Raises `NotFound`, `CorruptLog`."""
    found = _find(engine, command.tenant, request.job_id, command.queues, spec=True)
    return JobFound(job=_shown(engine, found, job_of))


def watch_job(engine: Engine, command: TenantRequest, request: WatchJob) -> WatchKeyFound:
    """Get a job's watch key. Raises `NotFound`, `CorruptLog`."""
    return WatchKeyFound(_find(engine, command.tenant, request.job_id, command.queues).watch_key)


def watch_tenant(_engine: Engine, command: TenantRequest, request: WatchTenant) -> StreamsFound:
    """Name the change streams that the sender may read. Raises `Forbidden`: they are too many for one reply."""
    if request.queue is not None:
        return StreamsFound((request.queue,))
    if command.queues is None:
        return StreamsFound(("",))
    if len(command.queues) > STREAMS_MAX:
        raise Forbidden(f"this key or token is bound to more than {STREAMS_MAX} queues: name the one to watch")
    return StreamsFound(tuple(sorted(command.queues)))


def replay_job(engine: Engine, command: TenantRequest, request: ReplayJobEvents) -> JobEventsReplayed | WatchKeyFound:
    """Replay a job's events, and get its watch key if the request wants that. Raises `NotFound`, `CorruptLog`."""
    job = _find(engine, command.tenant, request.job_id, command.queues)
    page = replay(engine, job, request)
    return WatchKeyFound(job.watch_key, page) if request.watch and not page.finished else page


def search_log(engine: Engine, command: TenantRequest, request: SearchLog) -> LogFound:
    """Find the part of a job's log that a request searches. Raises `NotFound`, `CorruptLog`."""
    job = _find(engine, command.tenant, request.job_id, command.queues)
    sequence = START.sequence if request.place is None else request.place.sequence
    segments = searched_part(engine.segments(job.number, sequence), request)
    return LogFound(request, job.last_sequence, JobState(job.state).terminal, segments)


def read_stdin(engine: Engine, command: TenantRequest, request: ReadJobStdin) -> JobStdinRead:
    """Read a piece of a leased job's standard input. Raises `NotFound`, `StaleToken`, `CorruptLog`.

    The engine reads all of it for each piece: it has 1 MiB at most, and only slow links ask for many pieces.
    """
    return _stdin_piece(engine, leased(engine, command.tenant, request.lease), request)


def get_stdin(engine: Engine, command: TenantRequest, request: GetJobStdin) -> JobStdinRead:
    """Read a piece of any job's standard input; without one it is empty. Raises `NotFound`, `CorruptLog`."""
    job = _find(engine, command.tenant, request.job_id, command.queues, spec=True)
    if decode_spec(job.spec).stdin_bytes is None:
        return JobStdinRead(data=b"")
    return _stdin_piece(engine, job, request)


def _stdin_piece(engine: Engine, job: JobRow, request: ReadJobStdin | GetJobStdin) -> JobStdinRead:
    stdin = stdin_in(engine.segments(job.number, STDIN_SEQUENCE))
    return JobStdinRead(data=stdin[request.offset : request.offset + request.bytes_max])


def check_claim(engine: Engine, command: TenantRequest, request: HaveBlobs | PutBlob) -> BlobsAsked:
    """Check the lease of a request about blobs, if it names one. Raises `NotFound`, `StaleToken`, `CorruptLog`."""
    if request.lease is not None:
        leased(engine, command.tenant, request.lease)
    return BlobsAsked(request)


def ask_blobs(
    _engine: Engine, _command: TenantRequest, request: GetBlob | EnqueueJobWithTree | ListCaches | RemoveCaches
) -> BlobsAsked:
    """Pass a request about blobs or caches on: they are not in the store."""
    return BlobsAsked(request)


def leased(engine: Engine, tenant: str, lease: LeaseRef, *, spec: bool = False) -> JobRow:
    """Find the job of a lease, in any queue: the task token proves it.

    Raises `NotFound`; `StaleToken`: the lease has ended; `CorruptLog`.
    """
    job = _find(engine, tenant, lease.job_id, None, spec=spec)
    held = job.state == JobState.RUNNING and job.attempt == lease.attempt
    if not held or job.token_hash != token_hash(lease.task_token):
        raise StaleToken
    return job


def _find(engine: Engine, tenant: str, job_id: str, queues: QueueScope, *, spec: bool = False) -> JobRow:
    """Find a job by its id. Raises `NotFound`: not in these queues; `CorruptLog`: its row cannot be read."""
    names = {(tenant, job_id)}
    loaded = engine.load(Keys(jobs=names, specs=names if spec else set()))
    for job in loaded.jobs:
        if job.job_id == job_id and (queues is None or job.queue in queues):
            return job
    raise CorruptLog if job_id in loaded.damaged else NotFound


def states_of(request: ListJobs) -> tuple[str, ...]:
    """Return the states that a list is limited to, each once; empty: any."""
    if isinstance(request.state, JobState):
        return (str(request.state),)
    return tuple(dict.fromkeys(map(str, request.state or ())))


def list_jobs(engine: Engine, command: TenantRequest, request: ListJobs) -> JobsListed:
    """List a page of jobs, newest first; one more row is read, which shows whether another page follows.

    At most `LOOKED_MAX` jobs are searched through; then the reply says where the next request is to go on.

    Raises `NotFound`: there is no job `before`.
    """
    tenant, queues = command.tenant, command.queues
    before = None if request.before is None else _find(engine, tenant, request.before, queues).number
    wanted = JobFilter(
        tenant=tenant,
        prefix=request.prefix,
        queue=request.queue,
        states=states_of(request),
        owner=request.owner,
        facts=facts_of(request.metadata, request.name or ""),
        queues=None if request.queue is not None else queues,
    )
    looked_max = LOOKED_MAX // max(1, len(wanted.facts))  # for each job, each of these filters is looked up
    skip = request.skip + (request.page - 1) * request.page_size
    page = engine.jobs(wanted, before, skip, request.page_size + 1, looked_max)
    rows, show = page.jobs[: request.page_size], summary_of
    if request.details:
        rows, show = _rows_with_room(rows), detailed_summary_of
    summaries = tuple(_shown(engine, job, show) for job in rows)
    more = len(page.jobs) > len(rows)
    total, beyond = engine.count(wanted, COUNTED_MAX, looked_max) if request.count else (None, False)
    if len(rows) < min(len(page.jobs), request.page_size):
        place = ListPlace(before=rows[-1].job_id, skip=0)
        return JobsListed(jobs=summaries, more=True, going_on=place, total=total, beyond=beyond)
    if page.stopped_at is None or more:
        return JobsListed(jobs=summaries, more=more, total=total, beyond=beyond)
    place = ListPlace(before=page.stopped_at, skip=skip - page.skipped)
    return JobsListed(jobs=summaries, more=True, going_on=place, total=total, beyond=beyond)


def _rows_with_room(rows: Sequence[JobRow]) -> list[JobRow]:
    """Take the first rows whose details fit in a reply: at least one."""
    taken: list[JobRow] = []
    room_bytes = DETAILS_BYTES_MAX
    for row in rows:
        room_bytes -= len(row.spec)
        if taken and room_bytes < 0:
            break
        taken.append(row)
    return taken


def list_queues(engine: Engine, command: TenantRequest, request: ListQueues) -> QueuesListed:
    """List a page of queues, or one queue."""
    names = command.queues if request.queue is None else frozenset({request.queue})
    rows = engine.queues(command.tenant, request.after or "", names, PAGE_SIZE_MAX + 1)
    return QueuesListed(
        queues=tuple(
            QueueSummary(
                queue=row.name,
                mode=row.mode,
                waiting=row.waiting,
                running=row.running,
                delayed=row.delayed,
                oldest_ms=row.oldest_ms,
                suitable=_suitable(engine, command.tenant, row, request),
            )
            for row in rows[:PAGE_SIZE_MAX]
        ),
        more=len(rows) > PAGE_SIZE_MAX,
    )


def _suitable(engine: Engine, tenant: str, row: QueueRow, request: ListQueues) -> int | None:
    """Count the jobs of the requested queue, waiting or running, that an agent with the request's tags may run."""
    if request.queue is None or request.tags is None:
        return None
    key = QueueKey(tenant, row.name)
    facts = frozenset(tag_facts(request.tags, stdin=True, knows=MUST_KNOW))
    others = sum(jobs for kind, jobs in engine.load(Keys(kinds={key})).kinds.items() if not meets(facts, kind.needs))
    return max(0, row.waiting + row.running - others)


def list_secrets(engine: Engine, command: TenantRequest, request: ListSecrets) -> SecretsListed:
    """List a page of secrets, without their values."""
    tenant, queues = command.tenant, command.queues
    rows = engine.secrets(tenant, request.queue, request.after or ("", ""), queues, PAGE_SIZE_MAX + 1)
    return SecretsListed(
        secrets=tuple(SecretSummary(queue=row.queue, name=row.name, set_ms=row.set_ms) for row in rows[:PAGE_SIZE_MAX]),
        more=len(rows) > PAGE_SIZE_MAX,
    )


def _shown(engine: Engine, job: JobRow, show: Callable[[JobRow], _View]) -> _View:
    """Show a job. Raises `CorruptLog`: its spec or its result cannot be decoded, so the job is set aside."""
    try:
        return show(job)
    except UNDECODABLE as error:
        engine.set_aside(job.job_id)
        raise CorruptLog from error
