"""Ends of jobs: waits for many at once by following their logs, and hands them on as they come or in order.

```
 jobs ──► submit, at most `buffersize` ahead ──► one follower each ──► ends as they come ──► results in order
```

Followers run in the client's task group, so that iterators hold no task group open between two of their items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio

from airunner.client.batches import BatchIterator
from airunner.client.follower import Connection, Failure
from airunner.client.specs import NewJob, batches, spec_from
from airunner.protocol.errors import AirunnerError, ClientNotOpen, OperatorError, PeerError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import TIMEOUT_EXIT, Job, JobState, Reason, Result
from airunner.protocol.names import REQUEST_ID_BYTES, RequestId
from airunner.transport.bell import Bell

if TYPE_CHECKING:
    from airunner.client.client import Client

REQUESTS_MAX: Final = 64  # requests at once, for as many jobs
CANCEL_S: Final = 10.0  # for the broker to confirm that jobs are cancelled


class JobFailed(AirunnerError):
    """A job ended FAILED or CANCELLED, and the caller asked for an error then; `job` is that job."""

    code = "job-failed"

    def __init__(self, job: Job) -> None:
        match job.result:
            case Result(reason=None | Reason.EXIT_CODE, exit_code=int(code)):
                how = f" with exit code {code}"
            case Result(reason=Reason.SIGNAL, signal=int(number)):
                how = f" by signal {number}"
            case Result(reason=Reason() as reason):
                how = f": {reason}"
            case _:
                how = ""
        name = f" ({job.spec.name})" if job.spec.name else ""
        super().__init__(f"job {job.id}{name} is {job.state}{how}")
        self.job = job
        self.exit_code = job.exit_status or self.exit_code

    def __reduce__(self) -> tuple[type[JobFailed], tuple[Job]]:
        return JobFailed, (self.job,)  # it may cross to another process


class StillRunning(AirunnerError, TimeoutError):
    """Jobs had not ended when the time to wait was over; `ended` has the others, `waiting` the ids of these."""

    code = "timeout"
    exit_code = TIMEOUT_EXIT

    def __init__(self, ended: Sequence[Job], waiting: Sequence[str], timeout_s: float) -> None:
        jobs = f"job {waiting[0]} has" if len(waiting) == 1 else f"{len(waiting)} jobs, {waiting[0]} among them, have"
        super().__init__(f"{jobs} not ended after {timeout_s:g} s")
        self.ended = tuple(ended)
        self.waiting = tuple(waiting)
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[type[StillRunning], tuple[Sequence[Job], Sequence[str], float]]:
        return StillRunning, (self.ended, self.waiting, self.timeout_s)


class Ends:
    """Ends of jobs that are followed at the same time, each in a task of the client's group, as they come."""

    def __init__(self, client: Client, connection: Connection) -> None:
        self.closed = False
        self._client = client
        self._group = connection.group
        self._scopes: set[anyio.CancelScope] = set()  # of the tasks
        self._requests = anyio.Semaphore(REQUESTS_MAX)
        self._ends: deque[Job | Failure] = deque()  # not taken yet
        self._bell = Bell()

    def follow(self, job_id: str) -> None:
        """Begin to follow a job."""
        self._group.start_soon(self._follow, job_id)

    async def next(self) -> Job:
        """Wait for the next job that ends; a cancelled call takes none. Raises the errors of `Client.follow`."""
        while not self._ends:
            await self._bell.wait()
        ended = self._ends.popleft()
        if isinstance(ended, (PeerError, OperatorError)):
            self.close()
            raise ended
        return ended

    def close(self) -> None:
        """Stop following."""
        self.closed = True
        for scope in tuple(self._scopes):
            scope.cancel()

    async def _follow(self, job_id: str) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            ended: Job | Failure | None = None
            try:
                ended = None if self.closed else await self._end_of(job_id)
            except ClientNotOpen:
                pass  # it was closed while an answer came
            except (PeerError, OperatorError) as error:
                ended = error
            finally:
                self._scopes.discard(scope)
            if ended is not None:
                self._ends.append(ended)
                self._bell.ring()

    async def _end_of(self, job_id: str) -> Job:
        job = await self._get(job_id)
        if job.state.terminal:
            return job
        async with self._client.follow(job_id, max(1, job.last_sequence), kinds=("JOB_FINISHED",)) as events:
            while await events.next_batch():
                pass
        return await self._get(job_id)

    async def _get(self, job_id: str) -> Job:
        async with self._requests:
            return await self._client.get(job_id)


class EndedJobs(BatchIterator[Job]):
    """Iterator of jobs that have ended; a call that is cancelled loses none of them, and the next one goes on."""

    def __init__(self, client: Client, connection: Connection) -> None:
        super().__init__()
        self._ends = Ends(client, connection)

    async def aclose(self) -> None:
        """Stop the iteration."""
        self._ready = []
        self._ends.close()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and the tasks with it
            self._ends.close()


class AsCompleted(EndedJobs):
    """Iterator of jobs as they end."""

    def __init__(self, client: Client, connection: Connection, job_ids: Sequence[str]) -> None:
        super().__init__(client, connection)
        self._begin = list(job_ids)  # not followed yet
        self._left = len(job_ids)

    async def _receive(self) -> list[Job]:
        for job_id in self._begin:
            self._ends.follow(job_id)
        self._begin = []
        if self._ends.closed or not self._left:
            return []
        ended = await self._ends.next()
        self._left -= 1
        return [ended]


class Gathered(EndedJobs):
    """Iterator of jobs in their order, each once it has ended; it submits `buffersize` of them ahead.

    The jobs of a request stay in `_unsure` until the broker has answered: after a call that was cancelled, the next one
    sends the same request again, which submits nothing twice.
    """

    def __init__(
        self,
        client: Client,
        connection: Connection,
        jobs: Iterable[NewJob],
        buffersize: int,
        *,
        check: bool,
        cancel_on_exit: bool,
    ) -> None:
        super().__init__(client, connection)
        self._client = client
        self._rest = iter(jobs)
        self._buffersize = buffersize
        self._check = check
        self._unsure: deque[tuple[RequestId, list[JobSpec]]] = deque()
        self._submitted: deque[str] = deque()
        self._ended: dict[str, Job] = {}
        self._random_bytes = connection.reach.edges.random_bytes
        self._closing = connection.closing if cancel_on_exit else None
        if self._closing is not None:
            self._closing.add(self.aclose)

    async def _receive(self) -> list[Job]:
        if self._ends.closed:
            return []
        await self._submit_ahead()
        if not self._submitted:
            await self.aclose()
            return []
        while self._submitted[0] not in self._ended:
            job = await self._ends.next()
            self._ended[job.id] = job
        job = self._ended.pop(self._submitted.popleft())
        if self._check and job.state is not JobState.COMPLETED:
            await self.aclose()
            raise JobFailed(job)
        return [job]

    async def _submit_ahead(self) -> None:
        if not self._unsure and len(self._submitted) <= self._buffersize * 3 // 4:  # some more at once
            specs = [spec_from(job) for job in islice(self._rest, self._buffersize - len(self._submitted))]
            self._unsure.extend((RequestId(self._random_bytes(REQUEST_ID_BYTES)), batch) for batch in batches(specs))
        while self._unsure:
            request_id, batch = self._unsure[0]
            new = await self._client.submit_many(batch, request_id=request_id)
            self._unsure.popleft()
            for job in new:
                self._submitted.append(job.id)
                self._ends.follow(job.id)

    async def aclose(self) -> None:
        """Stop the iteration; cancel the jobs that have not ended, if that is wanted."""
        await super().aclose()
        if self._closing is None:
            return
        self._closing.discard(self.aclose)
        with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S), suppress(AirunnerError):
            if self._unsure:
                await self._submit_ahead()  # only the answer has their ids
            waiting = [job_id for job_id in self._submitted if job_id not in self._ended]
            self._submitted.clear()
            await _each(self._client.cancel, waiting)


async def wait_all(
    ends: BatchIterator[Job], job_ids: Sequence[str], *, first: bool, timeout_s: float | None, check: bool
) -> list[Job]:
    """Wait for the ends of jobs, or for the first; return those that have ended, in their order."""
    ended: dict[str, Job] = {}
    with anyio.move_on_after(timeout_s) as limit:
        async with ends:
            async for job in ends:
                ended[job.id] = job
                if first:
                    break
    jobs = [ended[job_id] for job_id in job_ids if job_id in ended]
    if limit.cancelled_caught and timeout_s is not None:
        raise StillRunning(jobs, [job_id for job_id in job_ids if job_id not in ended], timeout_s)
    failed = [job for job in jobs if check and job.state is not JobState.COMPLETED]
    if failed:
        raise JobFailed(failed[0])
    return jobs


async def _each(change: Callable[[str], Awaitable[object]], job_ids: Sequence[str]) -> None:
    """Change jobs at the same time; errors are left out, the jobs then continue."""
    requests = anyio.Semaphore(REQUESTS_MAX)

    async def change_one(job_id: str) -> None:
        with suppress(AirunnerError):
            async with requests:
                await change(job_id)

    async with anyio.create_task_group() as group:
        for job_id in job_ids:
            group.start_soon(change_one, job_id)
