"""The client: submit, look, follow. The command line is its first user.

```python
async with Client() as client:
    job = await client.submit(JobSpec(command="make", args=("test",), repository="https://…"))
    async for event in client.follow(job.id):
        ...
```

Everything goes over one encrypted connection for requests and one for live events, however many jobs are
followed. It runs on asyncio and on trio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from airunner.certs.channel import Channel, Patience
from airunner.client.connection import Connection, connect
from airunner.client.follower import DELIVERIES_MAX, Delivery, Follower
from airunner.client.listener import Listener
from airunner.protocol.errors import OperatorError, PeerError
from airunner.protocol.events import Event
from airunner.protocol.follow import Follow
from airunner.protocol.job import Job, JobSpec, JobState
from airunner.protocol.messages import (
    ENQUEUE_MAX,
    EnqueueJob,
    GetJob,
    JobFound,
    JobsEnqueued,
    JobsListed,
    ListJobs,
)
from airunner.protocol.names import REQUEST_ID_BYTES, JobId, RequestId

DEFAULT_PATIENCE: Final = Patience(first_s=10, later_s=300)


class Submitted(Struct, frozen=True):
    """A job that the broker has on disk."""

    id: JobId


class Client:
    """A connection to a broker, for as long as the context lasts.

    `broker` is one endpoint or several to try in turn (default: AIRUNNER_BROKER, else the local one), `token`
    the token to present (default: AIRUNNER_TOKEN, else one minted with the home's key), `home` the folder
    with the keys (default: AIRUNNER_HOME, else ~/.airunner). `patience` bounds the wait for a broker.

    Raises `OperatorError` for keys that are missing; each call raises `PeerError` as the broker refuses it,
    and `OperatorError` when no broker answers within the patience or this key is not let in.
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        home: str | Path | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        connection: Connection | None = None,
    ) -> None:
        self._connection = connection or connect(broker, token, Path(home) if home is not None else None)
        self._channel = Channel(
            self._connection.network,
            self._connection.endpoints,
            self._connection.token,
            self._connection.edges,
            patience,
        )
        self._stack = AsyncExitStack()
        self._group: TaskGroup
        self._listener: Listener

    async def __aenter__(self) -> Self:
        self._stack.callback(self._connection.close)
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        self._listener = Listener(self._connection.network, self._group)
        await self._group.start(self._channel.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        return await self._stack.__aexit__(kind, error, trace)

    async def submit(self, spec: JobSpec, *, request_id: str | bytes | None = None) -> Submitted:
        """Submit one job; it is on disk when this returns.

        With a `request_id` of yours the same submission can be made again, and is one job all the same.
        """
        return (await self.submit_all([spec], request_id=request_id))[0]

    async def submit_all(
        self, specs: Iterable[JobSpec], *, request_id: str | bytes | None = None
    ) -> list[Submitted]:
        """Submit up to 64 jobs, all or none."""
        jobs = tuple(specs)
        if not 1 <= len(jobs) <= ENQUEUE_MAX:
            raise ValueError(f"one submission takes 1 to {ENQUEUE_MAX} jobs, not {len(jobs)}")
        key = None if request_id is None else request_key(request_id)
        reply = await self._channel.ask(EnqueueJob(jobs=jobs), request_id=key)
        assert isinstance(reply, JobsEnqueued), "the answer to EnqueueJob"
        return [Submitted(job_id) for job_id in reply.job_ids]

    async def get(self, job_id: str) -> Job:
        """One job as it stands."""
        reply = await self._channel.ask(GetJob(job_id=job_id))
        assert isinstance(reply, JobFound), "the answer to GetJob"
        return reply.job

    async def list_jobs(
        self,
        *,
        queue: str | None = None,
        state: JobState | None = None,
        before: str | None = None,
        page: int = 1,
        page_size: int = 20,
    ) -> JobsListed:
        """A page of jobs, newest first. `before` is the last id of the page before, for a walk that new jobs do not shift."""
        reply = await self._channel.ask(
            ListJobs(queue=queue, state=state, before=before, page=page, page_size=page_size)
        )
        assert isinstance(reply, JobsListed), "the answer to ListJobs"
        return reply

    async def follow(
        self, job_id: str, *, from_sequence: int = 1, from_timestamp_ms: int | None = None
    ) -> AsyncGenerator[Event]:
        """Every event from `from_sequence` on, once and in order, live; ends after JOB_FINISHED.

        Leave the loop whenever you like; to be sure that following ends at that moment, and not when the
        generator is collected, hold it in `contextlib.aclosing`.
        """
        if from_sequence < 1:
            raise ValueError("sequences count from 1")
        now_ms = int(anyio.current_time() * 1_000)
        follow = Follow(
            JobId(job_id), now_ms, from_sequence=from_sequence, from_timestamp_ms=from_timestamp_ms
        )
        out, deliveries = anyio.create_memory_object_stream[Delivery](DELIVERIES_MAX)
        scope = anyio.CancelScope()
        self._group.start_soon(Follower(follow, self._channel, self._listener, out).run, scope)
        try:
            async for delivery in deliveries:
                if isinstance(delivery, PeerError | OperatorError):
                    raise delivery
                for event in delivery:
                    yield event
        finally:
            scope.cancel()
            deliveries.close()


def request_key(text: str | bytes) -> RequestId:
    """The 16 bytes for a request id of yours: bytes and UUIDs as they are, any other text by its hash."""
    if isinstance(text, bytes):
        if len(text) != REQUEST_ID_BYTES:
            raise OperatorError(f"a request id has {REQUEST_ID_BYTES} bytes, not {len(text)}")
        return RequestId(text)
    try:
        return RequestId(UUID(text).bytes)
    except ValueError:
        return RequestId(blake2b(text.encode(), digest_size=REQUEST_ID_BYTES, person=b"airunner request").digest())
