"""A disk that is smaller than what a job writes makes the job wait for the broker, and loses and repeats nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from airunner import Client
from airunner.protocol.events import JobReleased, Output
from airunner.protocol.job import JobState
from tests.acceptance.running import Cluster, environment
from tests.acceptance.smalldisk import MODULE, needs_mounts, on_small_disk, variables
from tests.agent.checkout.repositories import commit, new_repository

pytestmark = [pytest.mark.timeout(60), needs_mounts]

LINES = 300_000
WRITTEN = b"".join(b"%d\n" % number for number in range(1, LINES + 1))
JOBS = 10
DISK, BALLAST_BYTES, REPOSITORY_BYTES = "40m", 38 << 20, 3 << 20
COMMAND = ("seq", str(LINES))


def test_a_job_writes_more_than_its_agents_disk_holds(cluster: Cluster) -> None:
    words = ["agent", "--broker", cluster.broker.requests]
    agent = on_small_disk(cluster.home, cluster.home / "agent", "900k", words, {})
    cluster.agents.append(agent)
    agent.line("airunner agent ready")

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

    anyio.run(run)


def test_a_full_disk_costs_jobs_with_a_repository_or_a_hook_nothing_but_time(cluster: Cluster, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    (repository / "large").write_bytes(os.urandom(REPOSITORY_BYTES))
    commit(repository, "two")
    hook = cluster.home / "hooks" / "pre-command"
    hook.parent.mkdir(mode=0o700)
    hook.write_text(f"#!/bin/sh\n[ -e large ] || head -c {REPOSITORY_BYTES} /dev/zero > large\n")
    hook.chmod(0o700)
    folder = cluster.home / "agent"
    words = ["agent", "--broker", cluster.broker.requests, "--spawn", "2", "--allow-local"]
    agent = on_small_disk(cluster.home, folder, DISK, words, {})
    cluster.agents.append(agent)
    agent.line("airunner agent ready")
    ballast = Path(f"/proc/{agent.pid}/root{folder}/ballast")
    ballast.write_bytes(bytes(BALLAST_BYTES))

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

    anyio.run(run)
    assert "jobs can be run here again" in agent.lines


def test_airunner_run_needs_no_room_for_what_the_job_writes(tmp_path: Path) -> None:
    more = {**variables(tmp_path, "400k"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        (sys.executable, "-m", MODULE, "run", "--quiet", "--", *COMMAND),
        env=environment(tmp_path / "none", more),
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == WRITTEN
