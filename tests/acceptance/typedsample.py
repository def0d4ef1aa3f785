"""What a type checker knows of the API: `mypy --strict` passes this only if each of these is so."""

from __future__ import annotations

from typing import assert_never, assert_type

import airunner
from airunner import Client, Event, Job, JobState, JobSummary, Line, SubmittedJob, sync


def narrowed(event: Event) -> str:
    match event.body:
        case airunner.Output(data=data, stream=stream):
            return assert_type(data, bytes).decode() + assert_type(stream, airunner.Stream)
        case airunner.JobFinished() as body:
            assert body.data  # type: ignore[attr-defined]
            return str(assert_type(body.exit_code, int | None)) + assert_type(body.state, JobState)
        case airunner.ProcessStart(pid=number) | airunner.OutputTruncated(omitted_bytes=number):
            return str(assert_type(number, int))
        case (
            airunner.JobScheduled()
            | airunner.JobUnblocked()
            | airunner.JobLeased()
            | airunner.JobReleased()
            | airunner.JobExpired()
        ):
            return assert_type(event.kind, str)
        case airunner.JobCancelRequested() | airunner.ProcessEnd() | airunner.ProcessError() | airunner.Heartbeat():
            return ""
        case airunner.GitCloneStart() | airunner.GitCloneProgress() | airunner.GitCloneEnd():
            return ""
        case airunner.GitCloneError() | airunner.TerminalResize() | airunner.LogSigned():
            return ""
        case airunner.Artifact() | airunner.Returned():
            return ""
        case airunner.Kept():
            return ""
        case airunner.UnknownBody(kind=kind):
            return kind
    assert_never(event.body)


async def asynchronous(client: Client) -> None:
    job = assert_type(await client.submit(command="true", args=["x"]), SubmittedJob)
    await client.submit(commnad="true")  # type: ignore[call-arg]
    await client.submit(command=3)  # type: ignore[arg-type]
    await client.wait(3)  # type: ignore[arg-type]
    assert_type(await client.submit_many([{"command": "true"}]), list[SubmittedJob])
    assert_type(await client.wait(job), Job)
    assert_type([event async for event in client.follow(job)], list[Event])
    assert_type([line async for line in client.logs(job)], list[Line])
    assert_type([each async for each in client.list(state=JobState.FAILED)], list[JobSummary])
    assert_type([each async for each in client.map([{"command": "true"}])], list[Job])


def blocking(client: sync.Client) -> None:
    job = assert_type(client.submit(command="true", args=["x"]), SubmittedJob)
    client.submit(commnad="true")  # type: ignore[call-arg]
    client.submit(command=3)  # type: ignore[arg-type]
    client.wait(3)  # type: ignore[arg-type]
    assert_type(client.submit_many([{"command": "true"}]), list[SubmittedJob])
    assert_type(client.wait(job), Job)
    assert_type(list(client.follow(job)), list[Event])
    assert_type(list(client.logs(job)), list[Line])
    assert_type(list(client.list(state=JobState.FAILED)), list[JobSummary])
    assert_type(list(client.map([{"command": "true"}])), list[Job])
