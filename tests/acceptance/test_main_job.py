"""The main job, end to end, on real processes: submit, run, follow, replay, list; and another runner's job file."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest
import yaml

from airunner.client.client import Client
from airunner.protocol.events import Event, Output
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from tests.acceptance.running import Cluster
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.checkout.serving import over_http

EVERY_BYTE = "import os; os.write(1, bytes(range(256)) * 1000)"
CLIENTS = 8
JOBS_PER_CLIENT = 25
COUNTED = "".join(f"{number}\n" for number in range(1, 2_001)).encode()
COUNTING = JobSpec(command="seq", args=("1", "2000"))


@pytest.mark.parametrize(("words", "code", "stdout", "stderr"), [
    (("--", "sh", "-c", "echo out; echo err >&2; exit 7"), 7, b"out\n", b"err\n"),
    (("--", "sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM, b"", b"FAILED by signal 15"),
    (("--", sys.executable, "-c", EVERY_BYTE), 0, bytes(range(256)) * 1_000, b"COMPLETED"),
    (("https://unreachable.invalid/x.git", "--", "true"), 125, b"", b"checkout-failed"),
    (("--", "no-such-command-anywhere"), 127, b"", b"no-such-command-anywhere"),
    (("--timeout", "1", "--", "sleep", "1000"), 124, b"", b"timeout"),
    (("--queue", "nowhere", "--expires", "10ms", "--", "true"), 125, b"", b"FAILED (expired)"),
], ids=["exit code", "signal", "bytes", "no repository", "no command", "out of time", "not begun"])  # fmt: skip
def test_what_a_job_comes_to_submit_comes_to(
    standing: Cluster, words: tuple[str, ...], code: int, stdout: bytes, stderr: bytes
) -> None:
    done = standing.airunner("submit", *words)
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


BASH = "/usr/bin/bash"
JOB_FILE = """\
command: /usr/bin/bash
args: ["-c", "echo hello; sleep 1; echo done"]
processType: pty
timeout: 0
workingDirectory: ""
environment: {STAGE: dev}
metadata: {}
repository: https://example.org/project.git
commit: main
branch: ""
owner: somebody
"""


@pytest.mark.skipif(not os.access(BASH, os.X_OK), reason=f"there is no {BASH} here, which the job file names")
def test_a_job_file_of_another_runner_runs_unchanged(cluster: Cluster, tmp_path: Path) -> None:
    project = new_repository(tmp_path / "web" / "project.git")
    tip = commit(project, "two")
    git(project, "update-server-info")
    cluster.agent(spawn=4)
    with over_http(tmp_path / "web") as server:
        jobs: list[str] = []
        for repository in (str(project), f"http://{server.authority}/project.git/.git"):
            text = JOB_FILE.replace("https://example.org/project.git", repository)
            (tmp_path / "job.yaml").write_text(text)
            (tmp_path / "job.json").write_text(json.dumps(yaml.safe_load(text)))
            for name in ("job.yaml", "job.json"):
                done = cluster.airunner("submit", "--no-monitor", "--config", str(tmp_path / name))
                assert done.returncode == 0, done.stderr
                jobs.append(done.stdout.decode().strip())
        for job in jobs:
            done = cluster.airunner("monitor", "--json", job)
            events = [json.loads(line) for line in done.stdout.splitlines()]
            assert done.returncode == 0, events
            assert "".join(event.get("data", "") for event in events) == "hello\r\ndone\r\n"
            checked_out = [event["commit"] for event in events if event["kind"] == "GIT_CLONE_END"]
            assert checked_out == [tip], "what main was resolved to"
            spec = json.loads(cluster.airunner("show", "--json", job).stdout)["spec"]
            assert (spec["environment"], spec["owner"], spec.get("timeout_seconds")) == (
                {"STAGE": "dev"},
                "somebody",
                None,
            )
