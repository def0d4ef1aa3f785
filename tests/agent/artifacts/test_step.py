"""Artifacts of an attempt on a stage: what is stored and recorded of a job's files, and what the job comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random

import anyio
import pytest

from airunner.agent.artifacts import flow
from airunner.agent.artifacts.collecting import FILES_MAX
from airunner.agent.artifacts.step import Put
from airunner.broker.blobs.address import MEMORY, open_blobs
from airunner.broker.blobs.keeper import Blobs
from airunner.broker.blobs.store import BlobStore
from airunner.broker.searcher import run_here
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice, unpacked
from airunner.protocol.errors import NoSpace, Unauthenticated
from airunner.protocol.events import Artifact, ProcessError
from airunner.protocol.job import Job, JobState, Reason
from airunner.protocol.requests import HaveBlobs, PutBlob, ReleaseJob
from tests.agent.playing import PlayedProcess, Stage, staged
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

TENANT = "default"
VIRTUAL_S = 3_600.0


@pytest.fixture
def store() -> BlobStore:
    return open_blobs(MEMORY)


@pytest.fixture
async def stage(tmp_path: Path, store: BlobStore) -> AsyncIterator[Stage]:
    """An agent of a broker with blobs."""
    async with staged(tmp_path, blobs=Blobs(store, [run_here])) as stage:
        with anyio.fail_after(VIRTUAL_S):
            yield stage


def leave(process: PlayedProcess, files: dict[str, bytes]) -> None:
    """Write files where the process runs."""
    for path, content in files.items():
        file = process.spec.working_directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


async def done(stage: Stage, files: dict[str, bytes], exit_code: int = 0, **fields: object) -> tuple[Job, list[object]]:
    """A job that leaves files, once it has ended, and the bodies of its log."""
    job, process = await stage.begun("make", **fields)
    leave(process, files)
    process.exit(exit_code)
    log = [event.body async for event in stage.client.follow(job.id)]
    return await stage.client.get(job.id), log


def content(store: BlobStore, slices: Sequence[Slice]) -> bytes:
    pieces = {part.blob: unpacked(store.get(TENANT, [part.blob])[0]) for part in slices}
    return b"".join(pieces[part.blob][part.offset : part.offset + part.length] for part in slices)


def artifacts(log: Sequence[object]) -> dict[str, Artifact]:
    return {body.path: body for body in log if isinstance(body, Artifact)}


def said(log: Sequence[object]) -> list[str]:
    return [body.message for body in log if isinstance(body, ProcessError)]


def requests(stage: Stage, kind: type[HaveBlobs | PutBlob]) -> int:
    return sum(isinstance(one, kind) for one in stage.wire.requests)


@pytest.mark.parametrize("exit_code", [0, 3])
async def test_each_file_is_recorded_before_the_end_and_its_slices_are_the_file(
    stage: Stage, store: BlobStore, exit_code: int
) -> None:
    files = {
        "dist/large": Random(1).randbytes(2 * PIECE_BYTES_MAX + 5),
        "dist/none": b"",
        **{f"dist/{number}": b"%d" % number for number in range(1_000)},
    }
    job, log = await done(stage, {**files, "other": b"x"}, exit_code, artifacts=("dist",))
    assert job.state is (JobState.FAILED if exit_code else JobState.COMPLETED)
    left = artifacts(log)
    assert sorted(left) == sorted(files)
    assert [path for path in left if content(store, left[path].slices) != files[path]] == []
    assert {path: left[path].size_bytes for path in left} == {path: len(files[path]) for path in files}
    assert [line.partition(" in ")[0] for line in said(log)] == ["artifacts: 1,002 files, 2.0 MiB"]
    assert type(log[-1]).__name__ == "JobFinished"


async def test_folders_and_links_are_recorded_too(stage: Stage) -> None:
    job, process = await stage.begun("make", artifacts=("out",))
    checkout = process.spec.working_directory
    (checkout / "out/empty").mkdir(parents=True)
    (checkout / "out").chmod(0o700)
    (checkout / "out/link").symlink_to("empty")
    process.exit(0)
    left = artifacts([event.body async for event in stage.client.follow(job.id)])
    assert list(left) == ["out/empty/", "out/link"]
    assert left["out/link"].target == "empty"
    assert requests(stage, HaveBlobs) == 0, "there is nothing to store"


async def test_a_job_without_artifacts_asks_nothing_more(stage: Stage) -> None:
    _, log = await done(stage, {"file": b"x"})
    assert (artifacts(log), said(log)) == ({}, [])
    assert requests(stage, HaveBlobs) == requests(stage, PutBlob) == 0


@pytest.mark.parametrize("required", [False, True])
async def test_a_pattern_without_a_match_is_said_and_fails_the_job_if_it_is_required(
    stage: Stage, *, required: bool
) -> None:
    globs = ("dist/*.whl", "report.xml")
    job, log = await done(stage, {"report.xml": b"<x/>"}, artifacts=globs, artifact_required=required)
    assert list(artifacts(log)) == ["report.xml"], "the others are kept nevertheless"
    assert said(log)[-1] == "artifacts: nothing matches dist/*.whl"
    assert job.result is not None
    assert (job.state, job.result.exit_code, job.result.reason) == (
        (JobState.FAILED, 0, Reason.ARTIFACT_MISSING) if required else (JobState.COMPLETED, 0, None)
    )


async def test_a_failed_job_keeps_its_own_reason(stage: Stage) -> None:
    job, _ = await done(stage, {}, 3, artifacts=("missing",), artifact_required=True)
    assert job.result is not None
    assert (job.result.exit_code, job.result.reason) == (3, Reason.EXIT_CODE)


async def test_a_job_that_has_removed_its_checkout_has_left_nothing(stage: Stage) -> None:
    job, process = await stage.begun("make", artifacts=("*",), artifact_required=True)
    process.spec.working_directory.rmdir()
    process.exit(0)
    assert said([event.body async for event in stage.client.follow(job.id)]) == ["artifacts: nothing matches *"]


@pytest.mark.parametrize("required", [False, True])
async def test_a_broker_without_blobs_is_said_and_fails_the_job_only_if_artifacts_are_required(
    tmp_path: Path, *, required: bool
) -> None:
    async with staged(tmp_path) as stage:
        job, log = await done(stage, {"file": b"x"}, artifacts=("file",), artifact_required=required)
        assert [line.split(":")[0] for line in said(log)] == ["artifacts are not kept"]
        assert artifacts(log) == {}
        assert job.state is (JobState.FAILED if required else JobState.COMPLETED)


async def test_more_than_the_agent_keeps_fails_the_job_and_nothing_is_sent(tmp_path: Path, store: BlobStore) -> None:
    async with staged(tmp_path, blobs=Blobs(store, [run_here]), artifact_bytes_max=1 << 20) as stage:
        job, log = await done(stage, {"file": bytes((1 << 20) + 1)}, artifacts=("file",))
        assert job.result is not None
        assert (job.state, job.result.reason) == (JobState.FAILED, Reason.ARTIFACT_MISSING)
        assert len(said(log)) == 1
        assert "--artifact-gib" in said(log)[0]
        assert requests(stage, HaveBlobs) == 0


async def test_no_piece_is_sent_twice_by_an_attempt_or_by_the_next_one(stage: Stage, store: BlobStore) -> None:
    large = Random(2).randbytes(3 * PIECE_BYTES_MAX)
    files = {"a": large, "b": large, "c": large[:PIECE_BYTES_MAX] * 2}
    _, log = await done(stage, files, 1, artifacts=("*",))
    sent = [blob.id for one in stage.wire.requests if isinstance(one, PutBlob) for blob in one.blobs]
    assert len(sent) == len(set(sent)) == 3
    again, log = await done(stage, files, artifacts=("*",))
    assert again.state is JobState.COMPLETED
    left = artifacts(log)
    assert [path for path in files if content(store, left[path].slices) != files[path]] == []
    assert len([one for one in stage.wire.requests if isinstance(one, PutBlob) for _ in one.blobs]) == 3


async def test_a_cancelled_job_leaves_nothing(stage: Stage) -> None:
    job, process = await stage.begun("make", artifacts=("*",))
    leave(process, {"file": b"x"})
    await stage.client.cancel(job.id)
    log = [event.body async for event in stage.client.follow(job.id)]
    assert (artifacts(log), requests(stage, HaveBlobs)) == ({}, 0)


async def test_a_cancel_ends_the_upload(stage: Stage, store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = anyio.Event()

    def full(*_: object) -> None:
        asked.set()
        raise NoSpace

    monkeypatch.setattr(store, "put", full)
    job, process = await stage.begun("make", artifacts=("*",))
    leave(process, {"file": b"x"})
    process.exit(0)
    await asked.wait()
    await stage.client.cancel(job.id)
    log = [event.body async for event in stage.client.follow(job.id)]
    assert artifacts(log) == {}
    ended = await stage.client.get(job.id)
    assert (ended.state, ended.result.reason) == (JobState.CANCELLED, Reason.CANCELLED)


@pytest.mark.parametrize("error", [NoSpace, Unauthenticated])
async def test_a_broker_that_has_no_room_for_a_while_only_delays_the_end(
    stage: Stage, store: BlobStore, monkeypatch: pytest.MonkeyPatch, error: type[NoSpace | Unauthenticated]
) -> None:
    refusals = 9
    put = store.put

    def full(*arguments: object) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise error("the broker's blob store is full")
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "put", full)
    job, log = await done(stage, {"file": b"content"}, artifacts=("*",))
    assert job.state is JobState.COMPLETED
    assert content(store, artifacts(log)["file"].slices) == b"content"
    assert said(log)[0] == "artifacts wait for the broker: the broker's blob store is full"
    assert len(said(log)) == 2


async def test_a_file_is_not_recorded_before_the_pieces_that_an_earlier_window_sends(
    stage: Stage, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals, put = 5, store.put
    stored_ms = 0

    def full(*arguments: object) -> None:
        nonlocal refusals, stored_ms
        refusals -= 1
        if refusals >= 0:
            raise NoSpace
        put(*arguments)  # type: ignore[arg-type]
        stored_ms = stage.edges.wall_ms()

    monkeypatch.setattr(store, "put", full)
    monkeypatch.setattr(flow, "WINDOW_BYTES", PIECE_BYTES_MAX)
    _, log = await done(stage, dict.fromkeys("abc", bytes(PIECE_BYTES_MAX)), artifacts=("*",))
    left = artifacts(log)
    assert list(left) == ["a", "b", "c"], "whose content is one piece"
    assert min(artifact.timestamp_ms for artifact in left.values()) >= stored_ms > 0


async def test_an_attempt_that_loses_its_lease_in_an_upload_ends_and_the_next_one_leaves_the_files(
    stage: Stage, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, asked = store.put, anyio.Event()

    def full(*_: object) -> None:
        asked.set()
        raise NoSpace

    monkeypatch.setattr(store, "put", full)
    job, process = await stage.begun("make", artifacts=("*",))
    leave(process, {"file": b"first"})
    process.exit(0)
    await asked.wait()
    lease = next(one.lease for one in stage.wire.requests if isinstance(one, PutBlob))
    await stage.client._ask(ReleaseJob(lease=lease))
    monkeypatch.setattr(store, "put", put)
    second = await stage.launcher.process(2)
    leave(second, {"file": b"second"})
    second.exit(0)
    log = [event.body async for event in stage.client.follow(job.id)]
    assert content(store, artifacts(log)["file"].slices) == b"second"
    assert (await stage.client.get(job.id)).state is JobState.COMPLETED


async def test_what_a_job_has_put_counts_among_its_artifacts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airunner.agent.attempt.attempt.Put", lambda: Put(files=FILES_MAX - 1, size_bytes=7))
    job, log = await done(stage, {"a": b"1", "b": b"2"}, artifacts=("?",))
    assert job.result is not None
    assert (job.result.reason, artifacts(log)) == (Reason.ARTIFACT_MISSING, {})
    assert said(log) == ["artifacts are missing: they are more than 100,000 files beside those that the job has put"]
    job, log = await done(stage, {"a": b"1"}, artifacts=("?",))
    assert (job.state, [*artifacts(log)]) == (JobState.COMPLETED, ["a"])
