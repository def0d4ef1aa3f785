"""Jobs are waited for and gathered: in order, bounded, and without losing one that fails."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from airunner import (
    AirunnerError,
    BadRequest,
    BatchIterator,
    Client,
    Job,
    JobFailed,
    JobSpec,
    JobState,
    NotFound,
    OperatorError,
    Reason,
    Result,
    StillRunning,
)
from airunner.client.jobref import JobRef
from airunner.protocol.names import JobId
from airunner.transport.ports import Sent
from tests.client.wire import Wire, brokered
from tests.client.working import Worker

everywhere = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@asynccontextmanager
async def worked(*exit_codes: int) -> AsyncIterator[tuple[Wire, Client]]:
    """A client, and an agent that ends the jobs of the queue with these codes, the last waiting job first."""

    async def work(client: Client) -> None:
        workers = [await Worker.lease(client, bytes([number]) * 32) for number in range(len(exit_codes))]
        for worker, code in reversed([*zip(workers, exit_codes, strict=True)]):
            await worker.run(1, code)

    async with brokered() as (wire, client), anyio.create_task_group() as group:
        group.start_soon(work, client)
        yield wire, client


@everywhere
async def test_jobs_are_gathered_in_their_order_and_failed_ones_are_results_too() -> None:
    async with worked(0, 7, 0) as (_, client):
        ended = [job async for job in client.map({"command": "make", "name": name} for name in "abc")]
    assert [(job.spec.name, job.state, job.exit_status) for job in ended] == [
        ("a", JobState.COMPLETED, 0),
        ("b", JobState.FAILED, 7),
        ("c", JobState.COMPLETED, 0),
    ]


async def test_only_so_many_jobs_are_submitted_ahead_of_the_one_that_is_read() -> None:
    read: list[int] = []

    def jobs() -> Iterator[JobSpec]:
        for number in range(20):
            read.append(number)
            yield JobSpec(command="make")

    async with brokered() as (wire, client), anyio.create_task_group() as group:
        ended = client.map(jobs(), buffersize=8)
        group.start_soon(anext, ended)
        with anyio.move_on_after(60):
            await anyio.sleep_forever()
        assert len(read) == 8
        group.cancel_scope.cancel()
    assert wire.asked.count("EnqueueJob") == 1
    with pytest.raises(BadRequest, match="buffersize is 0"):
        client.map([], buffersize=0)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_failed_job_raises_in_its_turn_and_the_rest_continue_or_are_cancelled(*, cancelled: bool) -> None:
    async with worked(0, 7) as (_, client):
        jobs = [{"command": "make"}] * 4
        ended = client.map(jobs, check=True, cancel_on_exit=cancelled)
        assert (await anext(ended)).exit_status == 0
        with pytest.raises(JobFailed, match=r"FAILED with exit code 7") as failed:
            await anext(ended)
        assert (failed.value.exit_code, failed.value.code) == (7, "job-failed")
        states = [job.state async for job in client.list()][:2]
        assert [job.exit_status async for job in client.list(state="FAILED")] == [7]
        assert states == [JobState.CANCELLED if cancelled else JobState.SCHEDULED] * 2


async def test_a_client_that_is_closed_before_its_map_cancels_what_waits() -> None:
    async with worked(0) as (_, outer):
        async with Client(reach=outer._reach) as client:
            ended = client.map([{"command": "make"}] * 3, cancel_on_exit=True)
            assert (await anext(ended)).state is JobState.COMPLETED
        await ended.aclose()
        assert [job.state async for job in outer.list()] == [JobState.CANCELLED] * 2 + [JobState.COMPLETED]


async def test_a_client_that_is_closed_while_an_answer_comes_raises_nothing() -> None:
    answered, closing = anyio.Event(), anyio.Event()

    class Answered(Client):
        async def get(self, job: JobRef) -> Job:
            found = await super().get(job)
            answered.set()
            with anyio.CancelScope(shield=True):  # an answer that is here already is not cancelled
                await closing.wait()
            return found

    async with brokered() as (_, outer), Answered(reach=outer._reach) as client, anyio.create_task_group() as group:
        ended = client.as_completed([await client.submit(command="make")])
        group.start_soon(ended.__anext__)
        await answered.wait()
        group.cancel_scope.cancel()

        async def close() -> None:
            closing.set()

        client._entered.closing.add(close)


async def test_an_iteration_that_was_interrupted_goes_on_or_says_that_it_cannot() -> None:
    async def interrupted(items: BatchIterator[object]) -> None:
        with anyio.move_on_after(1):
            await anext(items)

    async with brokered() as (wire, client):
        wire.send = lambda *_: Sent.DONE  # no answer arrives
        gathered = client.map([{"command": "make"}] * 2)
        await interrupted(gathered)
        del wire.send
        await interrupted(gathered)
        [_, first] = [job.id async for job in client.list()]
        lines, ends = client.logs(first, follow=True), client.as_completed([first])
        await interrupted(lines)
        await interrupted(ends)
        await (await Worker.lease(client)).run(1, 7)
        assert (await anext(ends)).id == first
        assert (await anext(gathered)).exit_status == 7
        with pytest.raises(AirunnerError, match="this iteration was interrupted while it waited"):
            await anext(lines)


async def test_a_wait_ends_with_all_jobs_the_first_or_its_time() -> None:
    async with brokered() as (_, client):
        slow, quick, never = [await client.submit(command="make", queue=queue) for queue in ("default", "default", "x")]
        workers = [await Worker.lease(client, bytes([number]) * 32) for number in range(2)]
        await workers[1].run(1, 7)
        [first] = await client.wait_many([slow, quick, never], first=True)
        assert (first.id, first.exit_status) == (quick.id, 7)
        await workers[0].run(1)
        assert [job.id for job in await client.wait_many([slow, quick, slow])] == [slow.id, quick.id]
        assert (await client.wait(slow.id, check=True)).state is JobState.COMPLETED
        with pytest.raises(JobFailed):
            await client.wait_many([slow, quick], check=True)
        with pytest.raises(TimeoutError, match=f"job {never.id} has not ended after 0.01 s") as late:
            await client.wait_many([slow, never], timeout_s=0.01)
        assert isinstance(late.value, StillRunning)
        assert ([job.id for job in late.value.ended], late.value.waiting) == ([slow.id], (never.id,))
        for ask in (client.wait, client.get, client.cancel, lambda job: anext(client.follow(job))):
            with pytest.raises(NotFound, match="there is no job nothing"):
                await ask("nothing")
        with pytest.raises(BadRequest, match="at most 10,000 jobs can be waited for at once, not 10,001"):
            await client.wait_many(map(str, range(10_001)))
        with pytest.raises(BadRequest, match=r"several jobs are expected, such as \['nothing'\]"):
            await client.wait_many("nothing")


@pytest.mark.parametrize(
    ("state", "result", "how"),
    [
        (JobState.FAILED, Result(exit_code=7), " with exit code 7"),
        (JobState.FAILED, Result(signal=9, reason=Reason.SIGNAL), " by signal 9"),
        (JobState.FAILED, Result(signal=15, reason=Reason.TIMEOUT), ": timeout"),
        (JobState.CANCELLED, None, ""),
    ],
)
def test_a_failed_job_says_how_it_ended(state: JobState, result: Result | None, how: str) -> None:
    job = Job(id=JobId("j"), state=state, submitted_ms=0, spec=JobSpec(command="x", name="n"), result=result)
    assert str(JobFailed(job)) == f"job j (n) is {state}{how}"
    assert JobFailed(job).exit_code == job.exit_status
    for error in (JobFailed(job), StillRunning([job], ["k"], 1.5), NotFound("k"), OperatorError("k", exit_code=69)):
        copied = pickle.loads(pickle.dumps(error))
        assert (vars(copied), str(copied)) == (vars(error), str(error))


async def test_many_jobs_are_submitted_again_without_a_double() -> None:
    async with brokered() as (wire, client):
        jobs = [{"command": "make", "name": f"{number}"} for number in range(130)]
        first = await client.submit_many(jobs, request_id="nightly")
        assert await client.submit_many(jobs, request_id="nightly") == first
        assert [job.name async for job in client.list()] == [f"{number}" for number in reversed(range(130))]
        asked = len(wire.asked)
        for wrong in ([*jobs, {"command": ""}], [*jobs, JobSpec(command="x" * 70_000)], [*jobs, "make"], []):
            with pytest.raises(BadRequest):
                await client.submit_many(wrong)
        assert len(wire.asked) == asked


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    client = Client()
    for method in (client.get, client.follow, client.map, client.as_completed):
        with pytest.raises(
            RuntimeError, match="not open: use it inside of `async with Client\\(\\) as client:`"
        ) as told:
            await method("x")
        assert isinstance(told.value, AirunnerError)
    with pytest.raises(RuntimeError, match=r"for `with` there is airunner\.sync\.Client"), client:
        pass
    async with brokered() as (_, client):
        with pytest.raises(AirunnerError, match="open already"):
            await client.__aenter__()
        with pytest.raises(BadRequest, match=r"fields too \(name\)"):
            await client.submit(JobSpec(command="x"), name="y")
