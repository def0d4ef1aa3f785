"""Jobs again: what a new job takes over from another, and what the broker requires of that."""

from __future__ import annotations

from functools import partial

import pytest

from airunner.client.again import CONTINUED, Past, require_shown, taken_over
from airunner.protocol.blobs import SavedWorkspace, Slice
from airunner.protocol.errors import NotFinished, NotFound, OperatorError
from airunner.protocol.events import Event, GitCloneEnd, Kept, Output, Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JobId
from airunner.protocol.shownspec import shown_spec
from tests.client.wire import brokered
from tests.client.working import Worker, blobs_in_memory

SLICE = Slice(bytes(32), 0, 1)


def continuing(job_id: str) -> JobSpec:
    return JobSpec(command="true", continues=SavedWorkspace(job_id=job_id, slices=(SLICE,)))


async def test_a_job_is_continued_once_it_has_ended_and_by_its_tenant_alone() -> None:
    blobs = blobs_in_memory()
    claimants = partial(blobs.store.claimants, "default")
    async with brokered(blobs) as (_, client):
        job = await client.submit(command="true")
        with pytest.raises(NotFinished):
            await client.submit(continuing(job.id))
        worker = await Worker.lease(client)
        await worker.put(b"kept")
        with pytest.raises(NotFinished):
            await client.submit(continuing(job.id))
        await worker.complete()
        with pytest.raises(NotFound):
            await client.submit(continuing("another"))
        again = await client.submit(continuing(job.id), request_id="once")
        assert (await client.submit(continuing(job.id), request_id="once")).id == again.id
        assert set(claimants()) == {job.id, again.id}
        await client.cancel(again.id)
        retry = await client.retry(again.id)
        assert set(claimants()) == {job.id, again.id, retry.id}


def event(body: GitCloneEnd | Kept | Output) -> Event:
    return Event(job_id=JobId("job"), sequence=1, attempt=1, body=body)


def test_the_commit_is_that_of_the_last_save() -> None:
    commits = [event(GitCloneEnd(timestamp_ms=0, commit=digit * 40, duration_ms=1)) for digit in "12"]
    kept = event(Kept(timestamp_ms=0, files=1, size_bytes=1, slices=(SLICE,)))
    output = event(Output(timestamp_ms=0, stream=Stream.STDOUT, data=b"x"))
    assert Past.of([output]) == Past()
    assert Past.of([commits[0], kept, commits[1]]) == Past("2" * 40, "1" * 40, (SLICE,))


def test_a_secret_that_is_not_shown_is_read_here_or_named() -> None:
    spec = JobSpec(
        command="curl",
        args=("-H", "hunter2-and-more"),
        repository="https://example.org/x.git",
        branch="main",
        environment={"API_TOKEN": "hunter2-and-more", "PASSWORD": "swordfish-too", "LEVEL": "3"},
        not_before_ms=5,
    )
    shown = shown_spec(spec)
    fields = taken_over(shown, CONTINUED, "1" * 40, {"PASSWORD": "here"})
    environment = {"API_TOKEN": "[REDACTED]", "PASSWORD": "here", "LEVEL": "3"}
    checkout = {"repository": spec.repository, "branch": "main", "commit": "1" * 40}
    assert fields == {**checkout, "environment": environment}
    with pytest.raises(OperatorError, match="job x has secret values that are not shown: set API_TOKEN in your") as one:
        require_shown("x", JobSpec(command="true", **fields))
    assert "\n" not in one.value.message
    require_shown("x", JobSpec(command="true", **{**fields, "environment": {}}))
    with pytest.raises(OperatorError, match="the command of job x has a secret"):
        require_shown("x", JobSpec(command="curl", args=shown.args))
