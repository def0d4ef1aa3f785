"""Python SDK: `Client` submits, monitors and controls jobs on a broker.

```python
async with Client() as client:
    job = await client.submit(command="make", args=["test"], repository="https://example.org/x.git")
    async for event in client.follow(job.id):
        print(event.sequence, event.kind)
```

The client runs on asyncio and on trio. It has one connection for requests and one for live events, however many
requests and followed jobs it has at once; any number of tasks may share it. A request is sent again until it is
answered; a submission keeps its request id, so nothing is submitted twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack
from uuid import UUID

import anyio
import msgspec
from msgspec import Struct

from airunner.client.filters import JobFilters
from airunner.client.follower import PAGES_MAX, Connection, Events
from airunner.client.live import LiveEvents
from airunner.client.reach import Reach, reach
from airunner.client.specs import invalid_specs, spec_of
from airunner.protocol import requests
from airunner.protocol.errors import BadRequest, NotFound
from airunner.protocol.events import EVENT_KINDS, Event
from airunner.protocol.fields import STDIN_BYTES_MAX, JobSpec
from airunner.protocol.follow import Follow
from airunner.protocol.frames import BODY_BYTES_MAX
from airunner.protocol.job import Job, JobState, JobSummary, encode_spec
from airunner.protocol.jobfields import JobFields
from airunner.protocol.misfits import with_field_named
from airunner.protocol.names import REQUEST_ID_BYTES, JobId, RequestId
from airunner.protocol.replies import (
    AgentSummary,
    BrokerSummary,
    JobsListed,
    Message,
    Page,
    QueueMode,
    QueueSummary,
    SecretSummary,
)
from airunner.transport.channel import Channel
from airunner.transport.patience import Patience

FIRST_PATIENCE_S: Final = 10.0
PATIENCE: Final = Patience(first_s=FIRST_PATIENCE_S)
"""Default patience: gives up if no broker answers at first, but waits for ever for a broker that answered before."""

_Reply = TypeVar("_Reply", bound=Message)
_Page = TypeVar("_Page", bound=Page)
_T = TypeVar("_T")


class SubmittedJob(Struct, frozen=True):
    """Submitted job, which is on the broker's disk; `Client.get` returns its state."""

    id: JobId


class Client:
    """Client of the first broker that answers; an async context manager.

    `broker` names endpoints (default: `AIRUNNER_BROKER`, then tcp://127.0.0.1:7070), `token` is a JWT (default:
    `AIRUNNER_TOKEN`, then one signed with the home's key), `home` is the folder with the keys (default:
    `AIRUNNER_HOME`, then ~/.airunner). `token_file` is a file (0600) with the token instead, for a client that outlives
    it: it is read again when it changes. `patience` says how long to wait for a broker that does not answer. `reach`
    replaces `broker`, `token` and `home`, for simulations and in-process brokers.

    Every method raises `PeerError` when the broker refuses the request, and `OperatorError` when the broker cannot be
    reached or rejects this key.
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        home: str | Path | None = None,
        patience: Patience = PATIENCE,
        reach: Reach | None = None,
        token_file: str | Path | None = None,
    ) -> None:
        self._broker = broker
        self._token = token
        self._home = home
        self._token_file = token_file
        self._patience = patience
        self._reach = reach
        self._open: Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the client; it connects with the first request. Raises the errors of `reach`."""
        assert self._open is None, "this client is already open"
        access = self._reach or reach(self._broker, self._token, self._home, token_file=self._token_file)
        group = anyio.create_task_group()
        channel = Channel(access.network, access.endpoints, access.token, access.edges, self._patience)
        await group.__aenter__()
        self._open = Connection(access, group, channel, LiveEvents(access.network, group), anyio.Semaphore(PAGES_MAX))
        await group.start(channel.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the client; every follower ends."""
        connection, self._open = self._entered, None
        connection.group.cancel_scope.cancel()
        try:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                return await connection.group.__aexit__(kind, error, trace)
            # The caller's own error propagates as it is, not wrapped in an exception group.
            await connection.group.__aexit__(None, None, None)
            return None
        finally:
            connection.reach.close()

    async def submit(
        self,
        spec: JobSpec | None = None,
        *,
        stdin: bytes = b"",
        request_id: str | RequestId | None = None,
        **fields: Unpack[JobFields],
    ) -> SubmittedJob:
        """Submit a job, given as a `JobSpec` or by its fields; return once it is on the broker's disk.

        `stdin` is the standard input of the command, up to `STDIN_BYTES_MAX` (1 MiB); it is stored with the job, and
        each attempt and each retry gets it from its beginning.

        Calls with the same `request_id` (a UUID, or any text) within a day submit the job only once. Raises
        `BadRequest` for an invalid job; `Conflict` for a request id that submitted another job.
        """
        assert spec is None or not fields, "both a spec and fields are given"
        spec = spec or spec_of(fields)
        stdin = bytes(memoryview(stdin))  # of a text this raises a TypeError, which names what is wanted
        if not stdin:
            return (await self.submit_many([spec], request_id=request_id))[0]
        if len(stdin) > STDIN_BYTES_MAX:
            raise BadRequest(f"stdin has {len(stdin):,} bytes, at most {STDIN_BYTES_MAX:,} are allowed")
        try:
            job = msgspec.structs.replace(spec, stdin_bytes=len(stdin))
            encode_spec(job)
            request = requests.EnqueueJobWithStdin(job=job, stdin=stdin)
        except ValueError as error:
            raise invalid_specs(error, [spec]) from error
        try:
            reply = await self._ask(request, request_id_of(request_id))
        except BadRequest as error:
            if type(request).__name__ not in error.message:
                raise
            raise BadRequest("this broker is too old to give a job a standard input: upgrade it") from error
        return SubmittedJob(reply.job_ids[0])

    async def submit_many(
        self, specs: Sequence[JobSpec], *, request_id: str | RequestId | None = None
    ) -> list[SubmittedJob]:
        """Submit 1 to `ENQUEUE_MAX` (64) jobs, all or none, in this order. Raises the errors of `submit`."""
        if not 1 <= len(specs) <= requests.ENQUEUE_MAX:
            raise BadRequest(f"1 to {requests.ENQUEUE_MAX} jobs are submitted at once, not {len(specs)}")
        try:
            specs_bytes = sum(len(encode_spec(spec)) for spec in specs)
            request = requests.EnqueueJob(jobs=tuple(specs))
        except ValueError as error:
            raise invalid_specs(error, specs) from error
        if specs_bytes > BODY_BYTES_MAX // 2:
            raise BadRequest(f"these jobs take {specs_bytes} bytes together: submit fewer at once")
        reply = await self._ask(request, request_id_of(request_id))
        return [SubmittedJob(job_id) for job_id in reply.job_ids]

    async def cancel(self, job_id: str) -> JobState:
        """Cancel a job; return its state: CANCELLED; RUNNING until its agent has ended it; or its earlier final state.

        Once this returns, no agent starts the job again. Raises `NotFound`.
        """
        return (await self._ask(requests.CancelJob(job_id=job_id))).state

    async def retry(self, job_id: str, *, request_id: str | RequestId | None = None) -> SubmittedJob:
        """Submit a finished job again, as a new job. Raises `NotFound`, `NotFinished`, `Conflict`."""
        reply = await self._ask(requests.RetryJob(job_id=job_id), request_id_of(request_id))
        return SubmittedJob(reply.job_ids[0])

    async def update_queue(self, queue: str, mode: QueueMode) -> None:
        """Open, pause or drain a queue."""
        await self._ask(requests.UpdateQueue(queue=queue, mode=mode))

    async def set_secret(self, queue: str, name: str, box: bytes) -> None:
        """Set a secret for the jobs of a queue, sealed with `certs.queuekeys.seal_secret`."""
        await self._ask(requests.SetSecret(queue=queue, name=name, box=box))

    async def remove_secret(self, queue: str, name: str) -> None:
        """Remove a secret. Raises `NotFound`."""
        await self._ask(requests.RemoveSecret(queue=queue, name=name))

    def secrets(self, queue: str | None = None) -> AsyncIterator[SecretSummary]:
        """List the names of sealed secrets, of all queues or of one, by queue and name."""
        first = requests.ListSecrets(queue=queue)
        return self._paged(first, lambda page: page.secrets, lambda secret: (secret.queue, secret.name))

    def queues(self) -> AsyncIterator[QueueSummary]:
        """List every queue that has jobs, finished jobs included, or is not open; by name."""
        return self._paged(requests.ListQueues(), lambda page: page.queues, lambda queue: queue.queue)

    async def queue(self, name: str, *, tags: Mapping[str, str] | None = None) -> QueueSummary | None:
        """Get one of the `queues`; None: it has no jobs. With `tags`, `suitable` counts the jobs for such agents."""
        request = requests.ListQueues(queue=name, tags=None if tags is None else dict(tags))
        listed: AsyncGenerator[QueueSummary] = self._paged(request, lambda page: page.queues, lambda row: row.queue)
        async with aclosing(listed):
            async for queue in listed:
                if queue.queue == name:  # an older broker lists all queues
                    return queue
        return None

    def agents(self, after: str | None = None) -> AsyncGenerator[AgentSummary]:
        """List every agent that was active in the last minutes or that runs a job, by name, from after a name on."""
        return self._paged(requests.ListAgents(after=after), lambda page: page.agents, lambda agent: agent.name)

    async def brokers(self) -> tuple[BrokerSummary, ...]:
        """List the brokers of the store; none: the broker that was asked has a store of its own."""
        return (await self._ask(requests.ListBrokers())).brokers

    async def get(self, job_id: str) -> Job:
        """Get a job as it is now. Raises `NotFound`."""
        return (await self._ask(requests.GetJob(job_id=job_id))).job

    async def list_jobs(
        self,
        *,
        before: str | None = None,
        page: int = 1,
        page_size: int = 20,
        count: bool = False,
        **filters: Unpack[JobFilters],
    ) -> JobsListed:
        """List a page of jobs that match all filters, newest first; `more` says whether another page follows.

        With `count`, `total` is the number of all matching jobs; if `beyond` is set, there are more than `total`.

        Pages count from 1. While new jobs are submitted, pass the last id of a page as `before` to get the next page.
        """
        wanted: dict[str, Any] = {**filters, "metadata": dict(filters.get("metadata") or {})}
        if (state := filters.get("state")) is not None and not isinstance(state, JobState):
            wanted["state"] = tuple(state)
        request = requests.ListJobs(before=before, page=page, page_size=page_size, count=count, **wanted)
        first = reply = await self._ask(request)
        jobs = reply.jobs
        while reply.going_on is not None and len(jobs) < page_size:
            place = reply.going_on
            request = msgspec.structs.replace(
                request, before=place.before, skip=place.skip, page=1, page_size=page_size - len(jobs), count=False
            )
            reply = await self._ask(request)
            jobs += reply.jobs
        return JobsListed(jobs=jobs, more=reply.more, total=first.total, beyond=first.beyond)

    async def jobs(
        self, *, before: str | None = None, page_size: int = requests.PAGE_SIZE_MAX, **filters: Unpack[JobFilters]
    ) -> AsyncIterator[JobSummary]:
        """List all jobs that match all filters, newest first, older than the job `before`, if given.

        Each job comes once, while other jobs are submitted or removed: a page begins after the last job of the page
        before it. Raises `NotFound`: there is no job `before`, or all jobs of a page were removed before the next.
        """
        known: list[str] = []  # ids of the last page: retention may remove some of them meanwhile
        while True:
            try:
                page = await self.list_jobs(before=known[-1] if known else before, page_size=page_size, **filters)
            except NotFound:
                if len(known) <= 1:
                    raise
                known.pop()
                continue
            for job in page.jobs:
                yield job
            if not page.more or not page.jobs:
                return
            known = [job.id for job in page.jobs]

    def follow(
        self, job_id: str, from_sequence: int = 1, from_timestamp_ms: int | None = None, kinds: Sequence[str] = ()
    ) -> Events:
        """Follow a job's events live, from a sequence on, or from the first event not older than an instant.

        Each event comes once and in order, whatever the network does; JOB_FINISHED is the last. With `kinds`, such as
        `["PROCESS_END"]`, only events of these kinds come, and the broker does not send most of the others.
        """
        return Events(self._entered, _follow(job_id, from_sequence, from_timestamp_ms, kinds))

    async def replay(
        self, job_id: str, from_sequence: int = 1, from_timestamp_ms: int | None = None, kinds: Sequence[str] = ()
    ) -> AsyncIterator[Event]:
        """Replay the events stored so far, without waiting for more. The arguments are those of `follow`."""
        follow = _follow(job_id, from_sequence, from_timestamp_ms, kinds)
        size = self._entered.channel.request_size
        while (request := follow.request(size.bytes_max)) is not None:
            page = await self._ask(request, smaller=lambda: follow.smaller(size.bytes_max))
            for event in follow.replayed(page, 0):
                yield event

    @property
    def _entered(self) -> Connection:
        assert self._open is not None, "the client is not open: use `async with`"
        return self._open

    async def _paged(
        self, request: requests.Asking[_Page], rows: Callable[[_Page], Sequence[_T]], key: Callable[[_T], object]
    ) -> AsyncGenerator[_T]:
        """List the rows of all pages; the next page begins after the `key` of a page's last row."""
        while True:
            page = await self._ask(request)
            for row in rows(page):
                yield row
            if not page.more:
                return
            request = msgspec.structs.replace(request, after=key(rows(page)[-1]))

    async def _ask(
        self,
        request: requests.Asking[_Reply],
        request_id: RequestId | None = None,
        smaller: Callable[[], requests.Asking[_Reply]] | None = None,
    ) -> _Reply:
        try:
            return await self._entered.channel.ask(request, request_id=request_id, smaller=smaller)
        except BadRequest as error:
            raise with_field_named(error, request) from error


def request_id_of(given: str | RequestId | None) -> RequestId | None:
    """Make a request id: 16 bytes as they are, those of a UUID in any spelling, or a BLAKE2b hash of any other text.

    Raises `BadRequest` for an empty text, for bytes of another length, and for zeros, which are reserved for Pings.
    """
    if given is None:
        return None
    if not given:
        raise BadRequest("the request id is empty; give a UUID or any text of your own")
    name: bytes
    if isinstance(given, bytes):
        name = given
    else:
        try:
            name = UUID(given).bytes
        except ValueError:
            name = blake2b(given.encode(errors="surrogateescape"), digest_size=REQUEST_ID_BYTES).digest()
    if len(name) != REQUEST_ID_BYTES:
        raise BadRequest(f"a request id has {REQUEST_ID_BYTES} bytes, not {len(name)}")
    if not any(name):
        raise BadRequest("a request id of zeros is reserved by the protocol; give a random UUID")
    return RequestId(name)


def _follow(job_id: str, from_sequence: int, from_timestamp_ms: int | None, kinds: Sequence[str]) -> Follow:
    """Make a `Follow`. Raises `BadRequest` for an invalid sequence or instant, and for an unknown kind of event."""
    if wrong := [kind for kind in kinds if kind not in EVENT_KINDS]:
        raise BadRequest(f"{wrong[0]!r} is not a kind of event; the kinds are {', '.join(EVENT_KINDS)}")
    if from_sequence < 1:
        raise BadRequest(f"sequences count from 1, not from {from_sequence}")
    if from_timestamp_ms is not None and from_timestamp_ms < 0:
        raise BadRequest("an instant is in milliseconds since the epoch, never negative")
    return Follow(
        JobId(job_id),
        int(anyio.current_time() * 1_000),
        from_sequence=from_sequence,
        from_timestamp_ms=from_timestamp_ms,
        kinds=tuple(kinds),
    )
