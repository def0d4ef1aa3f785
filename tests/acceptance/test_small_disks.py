"""A disk that is smaller than what a job writes makes the job wait for the broker, and loses and repeats nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from airunner import Client
from airunner.protocol.events import JobReleased, Output
from airunner.protocol.job import JobState
from tests.acceptance.mounting import small_disk
from tests.acceptance.running import Cluster, environment
from tests.acceptance.running import run as run_airunner
from tests.agent.checkout.repositories import commit, new_repository

pytestmark = pytest.mark.timeout(60)

LINES = 300_000
WRITTEN = b"".join(b"%d\n" % number for number in range(1, LINES + 1))
JOBS = 10
BALLAST_BYTES, REPOSITORY_BYTES = 38 << 20, 3 << 20
COMMAND = ("seq", str(LINES))


@contextmanager
def agents_disk(cluster: Cluster, size: str) -> Iterator[Path]:
    """The disk of the cluster's agents, which end before it does."""
    with small_disk(cluster.home / "agent", size) as disk:
        yield disk
        for agent in cluster.agents:
            agent.stop()


def test_a_job_writes_more_than_its_agents_disk_holds(cluster: Cluster) -> None:

    async def run() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            job = await client.submit(command=COMMAND[0], args=list(COMMAND[1:]), max_attempts=2)
            written = bytearray()
            async for event in client.follow(job.id):
                if isinstance(event.body, Output):
                    written += event.body.data
            assert bytes(written) == WRITTEN
            found = await client.get(job.id)
            assert (found.state, found.attempt) == (JobState.COMPLETED, 1)

    with agents_disk(cluster, "900k"):
        cluster.agent()
        anyio.run(run)


def test_a_full_disk_costs_jobs_with_a_repository_or_a_hook_nothing_but_time(cluster: Cluster, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    (repository / "large").write_bytes(os.urandom(REPOSITORY_BYTES))
    commit(repository, "two")
    hook = cluster.home / "hooks" / "pre-command"
    hook.parent.mkdir(mode=0o700)
    hook.write_text(f"#!/bin/sh\n[ -e large ] || head -c {REPOSITORY_BYTES} /dev/zero > large\n")
    hook.chmod(0o700)

    async def run() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            places = [str(repository), ""] * (JOBS // 2)
            jobs = [await client.submit(command="true", repository=place, max_attempts=1) for place in places]
            said = await anyio.to_thread.run_sync(agent.line, "no job can be run here now")
            assert "out of disk" in said
            await anyio.Path(ballast).unlink()
            for job in jobs:
                released = [event async for event in client.follow(job.id) if isinstance(event.body, JobReleased)]
                assert not any(event.body.lost for event in released)
                assert (await client.get(job.id)).state is JobState.COMPLETED

    with agents_disk(cluster, "40m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(BALLAST_BYTES))
        agent = cluster.agent(spawn=2)
        anyio.run(run)
    assert "jobs can be run here again" in agent.lines


def test_airunner_run_needs_no_room_for_what_the_job_writes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "400k") as disk:
        environ = environment(tmp_path / "none", {"TMPDIR": str(disk)})
        done = run_airunner(environ, "run", "--quiet", "--", *COMMAND)
    assert done.returncode == 0, done.stderr
    assert done.stdout == WRITTEN
