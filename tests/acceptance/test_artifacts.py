"""Artifacts of jobs: real agents leave files at a real broker, whole, each before the job ends, and none twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from random import Random

import pytest

from airunner.agent.artifacts.uploading import WINDOW_BYTES
from airunner.client.client import Client
from airunner.protocol.blobs import PIECE_BYTES_MAX, Slice, blob_id, unpacked
from airunner.protocol.events import Artifact, JobFinished, ProcessError
from airunner.protocol.job import JobState, Reason
from airunner.protocol.requests import GetBlob
from tests.acceptance.running import Cluster, stored, submitted

WINDOW_PIECES = WINDOW_BYTES // PIECE_BYTES_MAX
MANY = 3 * WINDOW_PIECES  # large files
LEAVE = f"""
import os, random, sys
os.makedirs("dist/empty")
for number in range(int(sys.argv[1])):
    with open(f"dist/{{number}}", "wb") as file:
        file.write(random.Random(number).randbytes({PIECE_BYTES_MAX}))
with open("dist/run", "w") as file:
    file.write("#!/bin/sh\\n")
os.chmod("dist/run", 0o750)
os.symlink("run", "dist/link")
"""
TIMEOUT_S = 180


def leaving(count: int) -> tuple[str, ...]:
    """Words of a job that leaves so many large files, and a few others."""
    return ("--artifact", "dist", "--", sys.executable, "-c", LEAVE, str(count))


@cache
def content_of(number: int) -> bytes:
    return Random(number).randbytes(PIECE_BYTES_MAX)


async def fetched(client: Client, slices: Sequence[Slice]) -> bytes:
    """What slices are put together."""
    content = b""
    for part in slices:
        reply = await client._ask(GetBlob(ids=(part.blob,)))
        content += unpacked(reply.blobs[0])[part.offset : part.offset + part.length]
    return content


def blobs(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """The blobs on the broker's disk: of each file the inode and the instant of its last change."""
    files = (cluster.home / "broker/blobs").glob("*/blobs/*/*")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_file_that_a_job_leaves_can_be_fetched_and_is_in_the_log_before_the_end(cluster: Cluster) -> None:
    cluster.agent()
    job_id = submitted(cluster, *leaving(3))
    assert cluster.airunner("wait", job_id).returncode == 0
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        log = [event.body async for event in client.follow(job_id)]
        left = {body.path: body for body in log if isinstance(body, Artifact)}
        assert sorted(left) == ["dist/0", "dist/1", "dist/2", "dist/empty/", "dist/link", "dist/run"]
        assert isinstance(log[-1], JobFinished)
        for number in range(3):
            assert await fetched(client, left[f"dist/{number}"].slices) == content_of(number)
        assert await fetched(client, left["dist/run"].slices) == b"#!/bin/sh\n"
    assert (left["dist/run"].mode, left["dist/link"].target) == (0o750, "run")
    assert any("artifacts: 6 files, 3.0 MiB in " in body.message for body in log if isinstance(body, ProcessError))


async def test_a_missing_artifact_is_said_and_fails_the_job_if_it_is_required(cluster: Cluster) -> None:
    cluster.agent()
    done = cluster.airunner("submit", "--artifact", "*.whl", "--", "true")
    assert (done.returncode, b"artifacts: nothing matches *.whl" in done.stderr) == (0, True)
    done = cluster.airunner("submit", "--artifact", "*.whl", "--artifact-required", "--", "true")
    assert (done.returncode, b"artifacts: nothing matches *.whl" in done.stderr) == (125, True)
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        (job, *_) = (await client.list_page()).jobs
    assert job.result is not None
    assert (job.state, job.result.reason) == (JobState.FAILED, Reason.ARTIFACT_MISSING)
    for glob in ("/etc/passwd", "../x", "a/../b"):
        done = cluster.airunner("submit", "--artifact", glob, "--", "true")
        assert (done.returncode, len(done.stderr.splitlines())) == (64, 1), done.stderr


@contextmanager
def stuck(cluster: Cluster) -> Iterator[None]:
    """While the block runs, the broker cannot store a piece of the last window: a file is where its folder would be."""
    pieces = [blob_id(content_of(number)).hex() for number in sorted(range(MANY), key=str)]
    first = {piece[:2] for piece in pieces[: 2 * WINDOW_PIECES]}
    folder = next(piece[:2] for piece in pieces[2 * WINDOW_PIECES :] if piece[:2] not in first)
    block = cluster.home / "broker/blobs/default/blobs" / folder
    block.parent.mkdir(parents=True, exist_ok=True)
    block.touch()
    yield
    block.unlink()


@pytest.mark.timeout(TIMEOUT_S)
async def test_an_agent_that_is_killed_in_an_upload_sends_no_piece_twice(cluster: Cluster) -> None:
    with stuck(cluster):
        agent = cluster.agent()
        job_id = submitted(cluster, *leaving(MANY))
        stored(cluster, job_id, "ARTIFACT")
        agent.kill()
    before = blobs(cluster)
    assert WINDOW_PIECES <= len(before) <= MANY, "it was killed in the middle"
    cluster.agent()
    assert cluster.airunner("wait", job_id, timeout_s=TIMEOUT_S).returncode == 0
    after = blobs(cluster)
    assert len(after) == MANY + 1, "the small files share a piece"
    assert {name: after[name] for name in before} == before, "none was written again"
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        log = [event.body async for event in client.follow(job_id)]
        left = {body.path: body for body in log if isinstance(body, Artifact)}
        assert len(left) == MANY + 3
        for number in (0, MANY - 1):
            assert await fetched(client, left[f"dist/{number}"].slices) == content_of(number)
