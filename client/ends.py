"""Ends of jobs: waits for many at once by following their logs, and hands them on as they come or in order.

```
 jobs ──► submit, at most `buffersize` ahead ──► one follower each ──► ends as they come ──► results in order
```

Followers run in the client's task group, so that iterators hold no task group open between two of their items.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from airunner.client.batches import BatchIterator
from airunner.client.follower import Connection, Failure
from airunner.client.specs import NewJob, batches, spec_from
from airunner.protocol.errors import AirunnerError, OperatorError, PeerError
from airunner.protocol.job import TIMEOUT_EXIT, Job, JobState, Reason, Result

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
    """Ends of jobs that are followed at the same time, as they come; `run` is a task that lives until `close`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scope = anyio.CancelScope()
        self._group: TaskGroup | None = None
        self._requests = anyio.Semaphore(REQUESTS_MAX)
        # As many as jobs are followed.
        self._to_ended, self._ended = anyio.create_memory_object_stream[Job | Failure](math.inf)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Follow jobs until `close` is called."""
        with self._scope, self._to_ended, self._ended:
            async with anyio.create_task_group() as self._group:
                task_status.started()
                await anyio.sleep_forever()

    def follow(self, job_id: str) -> None:
        """Begin to follow a job."""
        assert self._group is not None, "the task runs"
        self._group.start_soon(self._follow, job_id)

    async def next(self) -> Job:
        """Wait for the next job that ends. Raises the errors of `Client.follow`."""
        ended = await self._ended.receive()
        if isinstance(ended, (PeerError, OperatorError)):
            raise ended
        return ended

    def close(self) -> None:
        """Stop following."""
        self._scope.cancel()

    async def _follow(self, job_id: str) -> None:
        ended: Job | Failure
        try:
            ended = await self._get(job_id)
            if not ended.state.terminal:
                last = max(1, ended.last_sequence)
                async with self._client.follow(job_id, last, kinds=("JOB_FINISHED",)) as events:
                    while await events.next_batch():
                        pass
                ended = await self._get(job_id)
        except (PeerError, OperatorError) as error:
            ended = error
        self._to_ended.send_nowait(ended)

    async def _get(self, job_id: str) -> Job:
        async with self._requests:
            return await self._client.get(job_id)


async def as_completed(client: Client, connection: Connection, job_ids: Sequence[str]) -> AsyncGenerator[Sequence[Job]]:
    """Yield each job as it ends."""
    ends = Ends(client)
    await connection.group.start(ends.run)
    try:
        for job_id in job_ids:
            ends.follow(job_id)
        for _ in job_ids:
            yield [await ends.next()]
    finally:
        ends.close()


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
    if check:
        for job in jobs:
            _require_completed(job)
    return jobs


async def gather(
    client: Client,
    connection: Connection,
    jobs: Iterable[NewJob],
    buffersize: int,
    *,
    check: bool,
    cancel_on_exit: bool,
) -> AsyncGenerator[Sequence[Job]]:
    """Submit jobs, and yield them as they have ended, in their order."""
    rest = iter(jobs)
    submitted: deque[str] = deque()
    ended: dict[str, Job] = {}
    ends = Ends(client)

    async def cancel_rest() -> None:
        waiting = [job_id for job_id in submitted if job_id not in ended]
        submitted.clear()
        await _each(client.cancel, waiting)

    await connection.group.start(ends.run)
    if cancel_on_exit:
        connection.closing.add(cancel_rest)
    try:
        while True:
            if len(submitted) <= buffersize * 3 // 4:  # some more at once
                specs = [spec_from(job) for job in islice(rest, buffersize - len(submitted))]
                for batch in tuple(batches(specs)):  # all of them are checked first
                    with anyio.CancelScope(shield=cancel_on_exit):  # the ids are needed to cancel them
                        for new in await client.submit_many(batch):
                            submitted.append(new.id)
                            ends.follow(new.id)
            if not submitted:
                return
            while submitted[0] not in ended:
                job = await ends.next()
                ended[job.id] = job
            while submitted and submitted[0] in ended:
                job = ended.pop(submitted.popleft())
                if check:
                    _require_completed(job)
                yield [job]
    finally:
        ends.close()
        connection.closing.discard(cancel_rest)
        if cancel_on_exit and submitted:
            await cancel_rest()


def _require_completed(job: Job) -> None:
    if job.state is not JobState.COMPLETED:
        raise JobFailed(job)


async def _each(change: Callable[[str], Awaitable[object]], job_ids: Sequence[str]) -> None:
    """Change jobs at the same time, even if this task is cancelled; errors are left out, the jobs then continue."""
    requests = anyio.Semaphore(REQUESTS_MAX)

    async def change_one(job_id: str) -> None:
        with suppress(AirunnerError):
            async with requests:
                await change(job_id)

    with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S):
        async with anyio.create_task_group() as group:
            for job_id in job_ids:
                group.start_soon(change_one, job_id)
