"""The main job, end to end, on real processes: submit, run, follow, replay, list."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter

import anyio
import pytest

from airunner.client.client import Client
from airunner.protocol.events import Event, Output
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from tests.acceptance.running import Cluster

EVERY_BYTE = "import os; os.write(1, bytes(range(256)) * 1000)"
CLIENTS = 8
JOBS_PER_CLIENT = 25
COUNTED = "".join(f"{number}\n" for number in range(1, 2_001)).encode()
COUNTING = JobSpec(command="seq", args=("1", "2000"))

pytestmark = pytest.mark.timeout(120)


def submit(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return cluster.airunner("submit", *arguments)


@pytest.mark.parametrize(("words", "code", "stdout", "stderr"), [
    (("--", "sh", "-c", "echo out; echo err >&2; exit 7"), 7, b"out\n", b"err\n"),
    (("--", "sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM, b"", b"FAILED by signal 15"),
    (("--", sys.executable, "-c", EVERY_BYTE), 0, bytes(range(256)) * 1_000, b"COMPLETED"),
    (("https://unreachable.invalid/x.git", "--", "true"), 1, b"", b"checkout-failed"),
    (("--", "no-such-command-anywhere"), 127, b"", b"no-such-command-anywhere"),
    (("--timeout-seconds", "1", "--", "sleep", "1000"), 124, b"", b"timeout"),
], ids=["exit code", "signal", "bytes", "no repository", "no command", "out of time"])  # fmt: skip
def test_what_a_job_comes_to_submit_comes_to(
    standing: Cluster, words: tuple[str, ...], code: int, stdout: bytes, stderr: bytes
) -> None:
    done = submit(standing, *words)
    assert (done.returncode, done.stdout) == (code, stdout)
    assert stderr in done.stderr


async def run_counting_jobs(cluster: Cluster) -> dict[str, list[Event]]:
    """Every job's log as its submitter followed it; the broker is killed when a quarter of them have ended."""
    logs: dict[str, list[Event]] = {}
    quarter = anyio.Event()

    async def work() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client, anyio.create_task_group() as group:

            async def one() -> None:
                job = await client.submit(COUNTING)
                logs[job.id] = [event async for event in client.follow(job.id)]
                if len(logs) >= CLIENTS * JOBS_PER_CLIENT // 4:
                    quarter.set()

            for _ in range(JOBS_PER_CLIENT):
                group.start_soon(one)

    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(work)
        await quarter.wait()
        await anyio.to_thread.run_sync(cluster.broker.kill)
        await anyio.to_thread.run_sync(cluster.broker.start)
    return logs


async def check_counting_jobs(cluster: Cluster, logs: dict[str, list[Event]]) -> None:
    """All are there, COMPLETED once, gapless and byte-equal; live and replayed are the same."""
    assert len(logs) == CLIENTS * JOBS_PER_CLIENT
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        for job_id, live in logs.items():
            job = await client.get(job_id)
            assert job.state is JobState.COMPLETED
            replayed = [event async for event in client.replay(job_id)]
            assert replayed == live
            assert [event.sequence for event in replayed] == list(range(1, job.last_sequence + 1))
            assert Counter(event.kind for event in replayed)["JOB_FINISHED"] == 1
            last = [event.body for event in replayed if event.attempt == job.attempt]
            assert b"".join(body.data for body in last if isinstance(body, Output)) == COUNTED


def test_a_killed_broker_loses_no_job_and_finishes_none_twice(cluster: Cluster) -> None:
    cluster.agent(spawn=4)
    cluster.agent(spawn=4)

    async def run() -> None:
        await check_counting_jobs(cluster, await run_counting_jobs(cluster))

    anyio.run(run)
