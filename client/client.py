"""Python SDK: `Client` submits, waits for, monitors and controls jobs on a broker.

```python
async with Client() as client:
    job = await client.submit(command="make", args=["test"], repository="https://example.org/x.git")
    async for event in client.follow(job):
        print(event.sequence, event.kind)
```

The client runs on asyncio and on trio. It has one connection for requests and one for live events, however many
requests and followed jobs it has at once; any number of tasks may share it. A request is sent again until it is
answered; a submission keeps its request id, so nothing is submitted twice.

The examples in the docstrings are run by the tests, and are those of `airunner.sync.Client` too, without `await` and
`async`.
"""

from __future__ import annotations

import builtins  # the client has a method `list`
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

import msgspec

from airunner.client.administration import Administration
from airunner.client.artifacts import Artifacts
from airunner.client.batches import Batches, BatchIterator
from airunner.client.filters import JobFilters
from airunner.client.jobref import FOLLOWED_MAX, JobRef, SubmittedJob, id_of, ids_of
from airunner.client.requestids import batch_id, request_id_of
from airunner.client.searching import Searching
from airunner.client.specs import NewJob, batches, invalid_specs, spec_from, spec_of
from airunner.client.uploading import Uploading
from airunner.protocol import requests
from airunner.protocol.errors import BadRequest, NotFound
from airunner.protocol.events import STREAMS, Stream
from airunner.protocol.fields import STDIN_BYTES_MAX, JobSpec, TerminalSize
from airunner.protocol.job import Job, JobState, JobSummary, encode_spec
from airunner.protocol.jobfields import JobFields
from airunner.protocol.names import RequestId
from airunner.protocol.replies import JobsListed

if TYPE_CHECKING:
    from airunner.client.loglines import Line

BUFFERSIZE: Final = 256  # jobs of `map` that are submitted and not returned yet


class Client(Administration, Searching, Artifacts, Uploading):
    """Client of the first broker that answers; an async context manager.

    `broker` names endpoints (default: `AIRUNNER_BROKER`, then tcp://127.0.0.1:7070), `token` is a JWT (default:
    `AIRUNNER_TOKEN`, then one signed with the home's key), `home` is the folder with the keys (default:
    `AIRUNNER_HOME`, then ~/.airunner). `token_file` is a file (0600) with the token instead, for a client that outlives
    it: it is read again when it changes. `patience` says how long to wait for a broker that does not answer. `reach`
    replaces `broker`, `token` and `home`, for simulations and in-process brokers.

    A job is given to methods by its id, or as what another method has returned for it.

    Every method raises `PeerError` when the broker refuses the request, and `OperatorError` when the broker cannot be
    reached or rejects this key; both are `AirunnerError`, and have a `code`.
    """

    async def submit(
        self,
        job: NewJob | None = None,
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

        >>> job = await client.submit(command="echo", args=["hello"])
        >>> job = await client.submit(command="make", repository="https://example.org/x.git", queue="nightly")
        >>> job = await client.submit(JobSpec(command="wc", args=("-w",)), stdin=b"one two", request_id="count-7")
        """
        if job is not None and fields:
            raise BadRequest(f"the job is given, and fields too ({', '.join(fields)}): give one of these")
        spec = spec_of(fields) if job is None else spec_from(job)
        stdin = bytes(memoryview(stdin))  # of a text this raises a TypeError, which names what is wanted
        if not stdin:
            return (await self._enqueue([spec], request_id_of(request_id)))[0]
        if len(stdin) > STDIN_BYTES_MAX:
            raise BadRequest(f"stdin has {len(stdin):,} bytes, at most {STDIN_BYTES_MAX:,} are allowed")
        try:
            spec = msgspec.structs.replace(spec, stdin_bytes=len(stdin))
            encode_spec(spec)
            request = requests.EnqueueJobWithStdin(job=spec, stdin=stdin)
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
        self, jobs: Iterable[NewJob], *, request_id: str | RequestId | None = None
    ) -> builtins.list[SubmittedJob]:
        """Submit jobs, in this order, up to 64 in a request; return once all are on the broker's disk.

        Nothing is submitted if one of them is invalid. The jobs of a request are submitted all or none; after another
        error, the same call with the same `request_id` submits those that are missing. Raises the errors of `submit`.

        >>> jobs = await client.submit_many({"command": "echo", "args": [word]} for word in ("one", "two", "three"))
        >>> len(jobs)
        3
        """
        specs = [spec_from(job) for job in jobs]
        if not specs:
            raise BadRequest("no job is given")
        name = request_id_of(request_id)
        submitted: builtins.list[SubmittedJob] = []
        for number, batch in enumerate(tuple(batches(specs))):
            submitted += await self._enqueue(batch, batch_id(name, number))
        return submitted

    def map(
        self,
        jobs: Iterable[NewJob],
        *,
        buffersize: int = BUFFERSIZE,
        check: bool = False,
        cancel_on_exit: bool = False,
    ) -> BatchIterator[Job]:
        """Submit jobs and iterate over them in their order, each once it has ended.

        A job that failed comes like any other: `Job.state` and `Job.result` say how it ended. With `check` it raises
        `JobFailed` in its turn, as `Executor.map` does. At most `buffersize` jobs are submitted ahead of the one that
        comes next. After the loop was left early no more jobs are submitted; those that are continue. With
        `cancel_on_exit` they are cancelled: at once by `async with`, or else when the client is closed. Raises the
        errors of `submit` and `follow`.

        >>> async for job in client.map({"command": "sh", "args": ["-c", f"exit {code}"]} for code in (0, 7)):
        ...     print(job.state, job.exit_status)
        COMPLETED 0
        FAILED 7
        """
        from airunner.client.ends import Gathered

        if not 1 <= buffersize <= FOLLOWED_MAX:
            raise BadRequest(
                f"buffersize is {buffersize}: give 1 to {FOLLOWED_MAX:,}, the number of jobs to submit ahead"
            )
        return Gathered(self, self._entered, jobs, buffersize, check=check, cancel_on_exit=cancel_on_exit)

    async def wait(self, job: JobRef, *, timeout_s: float | None = None, check: bool = False) -> Job:
        """Wait for a job to end, and return it as it is then.

        Raises `StillRunning` after `timeout_s`; the job continues. With `check` raises `JobFailed` if it is not
        COMPLETED. Raises `NotFound`.

        >>> job = await client.submit(command="sh", args=["-c", "exit 7"])
        >>> ended = await client.wait(job, timeout_s=60)
        >>> print(ended.state, ended.exit_status)
        FAILED 7
        """
        return (await self.wait_many([job], timeout_s=timeout_s, check=check))[0]

    async def wait_many(
        self, jobs: Iterable[JobRef], *, first: bool = False, timeout_s: float | None = None, check: bool = False
    ) -> builtins.list[Job]:
        """Wait for all jobs to end, or for the `first` of them; return those that have ended, in this order.

        Raises `StillRunning` after `timeout_s`, with those that have `ended` until then. With `check` raises
        `JobFailed` for the first that is not COMPLETED. Raises `NotFound`.

        >>> jobs = await client.submit_many([{"command": "true"}, {"command": "false"}])
        >>> [ended.exit_status for ended in await client.wait_many(jobs)]
        [0, 1]
        """
        from airunner.client.ends import wait_all

        job_ids = ids_of(jobs)
        return await wait_all(self.as_completed(job_ids), job_ids, first=first, timeout_s=timeout_s, check=check)

    def as_completed(self, jobs: Iterable[JobRef]) -> BatchIterator[Job]:
        """Iterate over jobs as they end, the first first. Raises `NotFound`, and the errors of `follow`.

        >>> jobs = await client.submit_many([{"command": "true"}, {"command": "false"}])
        >>> sorted([ended.exit_status async for ended in client.as_completed(jobs)])
        [0, 1]
        """
        from airunner.client.ends import AsCompleted

        return AsCompleted(self, self._entered, ids_of(jobs))

    async def cancel(self, job: JobRef) -> JobState:
        """Cancel a job; return its state: CANCELLED; RUNNING until its agent has ended it; or its earlier final state.

        Once this returns, no agent starts the job again. Raises `NotFound`.

        >>> job = await client.submit(command="true", queue="nightly")
        >>> print(await client.cancel(job))
        CANCELLED
        """
        return (await self._ask(requests.CancelJob(job_id=id_of(job)))).state

    async def resize(self, job: JobRef, size: TerminalSize) -> JobState:
        """Change the size of a running job's terminal; return the job's state. Others ignore it. Raises `NotFound`."""
        return (await self._ask(requests.SendInput(job_id=id_of(job), resize=size))).state

    async def retry(self, job: JobRef, *, request_id: str | RequestId | None = None) -> SubmittedJob:
        """Submit a finished job again, as a new job. Raises `NotFound`, `NotFinished`, `Conflict`.

        >>> job = await client.wait(await client.submit(command="false"))
        >>> again = await client.retry(job)
        >>> (await client.get(again)).origin == job.id
        True
        """
        reply = await self._ask(requests.RetryJob(job_id=id_of(job)), request_id_of(request_id))
        return SubmittedJob(reply.job_ids[0])

    async def get(self, job: JobRef) -> Job:
        """Get a job as it is now. Raises `NotFound`.

        >>> job = await client.submit(command="true", metadata={"build": "42"})
        >>> (await client.get(job)).spec.metadata
        {'build': '42'}
        """
        return (await self._ask(requests.GetJob(job_id=id_of(job)))).job

    def list(
        self, *, before: JobRef | None = None, page_size: int = requests.PAGE_SIZE_MAX, **filters: Unpack[JobFilters]
    ) -> BatchIterator[JobSummary]:
        """List all jobs that match all filters, newest first, older than the job `before`, if given.

        Each job comes once, while other jobs are submitted or removed: a page begins after the last job of the page
        before it. Raises `NotFound`: there is no job `before`, or all jobs of a page were removed before the next.

        >>> job = await client.submit(command="true", name="nightly build", metadata={"build": "43"})
        >>> [found.name async for found in client.list(metadata={"build": "43"})][0]
        'nightly build'
        >>> failed = [job.id async for job in client.list(state=JobState.FAILED, queue="default")]
        """
        return Batches(self._jobs(before, page_size, filters))

    async def _jobs(
        self, before: JobRef | None, page_size: int, filters: JobFilters
    ) -> AsyncGenerator[Sequence[JobSummary]]:
        """Yield pages of jobs."""
        known: builtins.list[str] = []  # ids of the last page: retention may remove some of them meanwhile
        while True:
            try:
                page = await self.list_page(before=known[-1] if known else before, page_size=page_size, **filters)
            except NotFound:
                if len(known) <= 1:
                    raise
                known.pop()
                continue
            yield page.jobs
            if not page.more or not page.jobs:
                return
            known = [job.id for job in page.jobs]

    async def list_page(
        self,
        *,
        before: JobRef | None = None,
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
        if (state := filters.get("state")) is not None:
            wanted["state"] = state if isinstance(state, str) else tuple(state)
        last = None if before is None else id_of(before)
        request = requests.ListJobs(before=last, page=page, page_size=page_size, count=count, **wanted)
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

    def logs(
        self,
        job: JobRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        streams: Sequence[Stream] = STREAMS,
        attempt: int | None = None,
    ) -> BatchIterator[Line]:
        r"""Read the lines of a job's output so far; with `follow`, then what comes until the job ends.

        `tail` reads only the last lines, of which a long log's end is enough. `since_ms` and `until_ms` bound the time
        of the lines, `streams` and `attempt` choose some of them. `Line.text` is a line as text, `Line.data` as bytes
        with its newline. Raises `NotFound`.

        >>> job = await client.submit(command="sh", args=["-c", "echo one; echo two; echo three"])
        >>> [line.text async for line in client.logs(job, follow=True)]
        ['one', 'two', 'three']
        >>> [line.data async for line in client.logs(job, tail=1)]
        [b'three\n']
        """
        from airunner.client.logreader import LogReader, Wanted

        wanted = Wanted(tuple(streams), attempt, since_ms, until_ms)
        return Batches(LogReader(self, id_of(job), wanted).lines(tail, follow=follow))

    async def _enqueue(self, specs: Sequence[JobSpec], request_id: RequestId | None) -> builtins.list[SubmittedJob]:
        """Submit the jobs of one request."""
        try:
            request = requests.EnqueueJob(jobs=tuple(specs))
            for spec in specs:
                encode_spec(spec)
        except ValueError as error:
            raise invalid_specs(error, specs) from error
        reply = await self._ask(request, request_id)
        return [SubmittedJob(job_id) for job_id in reply.job_ids]
