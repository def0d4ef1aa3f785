"""Disks that are full or small: what runs is kept and ended, and loses and repeats nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import anyio
import anyio.to_thread
import pytest

from airunner import Client
from airunner.protocol.errors import NoSpace
from airunner.protocol.events import JobReleased
from airunner.protocol.job import JobState
from tests.acceptance.running import Cluster, RunningBroker, environment, running_broker, submitted
from tests.acceptance.running import run as run_airunner
from tests.agent.checkout.repositories import commit, new_repository
from tests.postgresql.serving import NOBODY, Server
from tests.smalldisk import small_disk

FLOOD = "head -c 40000000 /dev/urandom; sleep 600"  # bytes that no compression makes fewer
JOBS = 10
BALLAST_BYTES, REPOSITORY_BYTES = 38 << 20, 3 << 20


def shown(cluster: Cluster, job_id: str) -> dict[str, object]:
    done = cluster.airunner("show", "--json", job_id)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def health(cluster: Cluster) -> dict[str, object]:
    asked = Request(f"http://{cluster.broker.http}/health", headers={"Accept": "application/json"})
    with urlopen(asked) as response:
        return json.loads(response.read())


@pytest.fixture
def squeezed(home: Path, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose store is on a small disk."""
    with small_disk(tmp_path / "disk", "24m") as disk:
        running = Cluster(RunningBroker(home, f"sqlite:///{disk}/airunner.db", "--reserve-mib", "4"))
        with closing(running):
            yield running


def test_a_flood_fills_the_store_and_ends_nobody_elses_job(squeezed: Cluster) -> None:
    agent = squeezed.agent("--visibility-timeout", "4", spawn=2)
    assert health(squeezed)["status"] == "ok"
    quiet = submitted(squeezed, "--", "sleep", "6")
    flood = submitted(squeezed, "--", "sh", "-c", FLOOD)
    agent.line("the broker's disk has no room for events now")
    assert health(squeezed)["status"] == "degraded"
    refused = squeezed.airunner("submit", "--no-monitor", "--", "true")
    assert (refused.returncode, b"disk" in refused.stderr) == (69, True)
    watched = squeezed.airunner("monitor", quiet)
    assert watched.returncode == 0
    assert (shown(squeezed, quiet)["state"], shown(squeezed, quiet)["attempt"]) == ("COMPLETED", 1)
    assert squeezed.airunner("cancel", flood).returncode == 0
    assert b"bytes of output were left out here" in squeezed.airunner("monitor", flood).stderr
    assert (shown(squeezed, flood)["state"], shown(squeezed, flood)["attempt"]) == ("CANCELLED", 1)


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

    with small_disk(cluster.home / "agent", "40m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(BALLAST_BYTES))
        agent = cluster.agent(spawn=2)
        anyio.run(run)
        agent.stop()
    assert "jobs can be run here again" in agent.lines


def test_no_room_is_needed_for_what_a_job_writes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "400k") as disk:
        environ = environment(tmp_path / "none", {"TMPDIR": str(disk)})
        done = run_airunner(environ, "run", "--quiet", "--", "seq", "300000")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"".join(b"%d\n" % number for number in range(1, 300_001))


async def fill(client: Client, argument_bytes: int = 30_000) -> list[str]:
    """Submit jobs of this size until there is no room for one more."""
    jobs: list[str] = []
    try:
        while True:
            jobs.append((await client.submit(command="true", args=(os.urandom(argument_bytes).hex(),))).id)
    except NoSpace:
        return jobs


def test_a_full_database_server_refuses_jobs_and_loses_none(home: Path, postgresql: Server) -> None:
    async def run() -> None:
        async with Client(broker.requests, home=home) as client:
            jobs = await fill(client)
            assert "the disk of the database server is full" in health(Cluster(broker))["conditions"]["disk"]
            await anyio.run_process(["mount", "-o", "remount,size=64m", str(disk)])
            jobs.append((await client.submit(command="true")).id)
            assert health(Cluster(broker))["status"] == "ok"
            assert [(await client.get(job_id)).id for job_id in jobs] == jobs

    place = "small_disk"
    with small_disk(postgresql.root / place, "24m", uid=NOBODY) as disk:
        postgresql.execute(f"CREATE TABLESPACE {place} OWNER airunner LOCATION '{disk}'")
        postgresql.execute(f"CREATE DATABASE {place} OWNER airunner TEMPLATE template0 TABLESPACE {place}")
        try:
            with running_broker(home, postgresql.url(place)) as broker:
                anyio.run(run)
        finally:
            postgresql.drop(place)
            postgresql.execute(f"DROP TABLESPACE {place}")


def test_a_bounded_store_on_a_server_refuses_jobs_and_serves_what_is_there(home: Path, store: str) -> None:
    async def run() -> None:
        async with Client(broker.requests, home=home) as client:
            jobs = await fill(client)
            await fill(client, argument_bytes=1)
            assert "(--store-gib): new jobs" in health(Cluster(broker))["conditions"]["disk"]
            assert await client.cancel(jobs[0]) is JobState.CANCELLED

    with running_broker(home, store, "--store-gib", "0.004", "--reserve-mib", "2") as broker:
        anyio.run(run)
