"""An agent on a machine that is out of processes destroys no jobs: it gives them back, says so, and waits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import anyio
import pytest

from airunner import Client
from airunner.protocol.job import JobState
from airunner.protocol.replies import AgentSummary
from tests.acceptance.bounded import give, homes_of_an_ordinary_user, needs_root, with_processes
from tests.acceptance.running import Cluster, Process
from tests.acceptance.test_machines import machine, token

pytestmark = [pytest.mark.timeout(60), needs_root]  # a dozen processes of airunner, one after another

PROCESSES = 40
JOBS = 20
# Forks until there is no process left for its user, says so, and holds them all until it is let go.
GREEDY = """
import os, signal, sys
full, go = sys.argv[1:]
children = []
while True:
    try:
        pid = os.fork()
    except BlockingIOError:
        break
    if not pid:
        signal.pause()
    children.append(pid)
open(full, "w").close()
open(go).close()
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with homes_of_an_ordinary_user() as made:
        yield made


@pytest.fixture
def poor(cluster: Cluster, folder: Path) -> Iterator[Process]:
    """An agent of an ordinary user's that may have few processes."""
    home = machine(cluster, folder, "poor", "--role", "agent", "--queue", "default")
    give(home)
    words = ["agent", "--broker", cluster.broker.requests, "--spawn", "4", "--name", "poor"]
    agent = with_processes(home, PROCESSES, words, {"AIRUNNER_TOKEN": token(cluster)})
    try:
        agent.line("airunner agent ready")
        yield agent
    finally:
        agent.stop()


def health(cluster: Cluster) -> str:
    with urlopen(f"http://{cluster.broker.http}/health", timeout=10) as answer:
        return str(answer.read().decode())


async def heard(client: Client, *, troubled: bool) -> AgentSummary:
    """The poor agent, once its heartbeat has told of its trouble, or that it is over."""
    while True:
        found = {one.name: one async for one in client.agents()}
        if bool(found["poor"].trouble) is troubled:
            return found["poor"]


def test_what_it_cannot_start_is_another_agents_and_nothing_is_lost(
    cluster: Cluster, poor: Process, folder: Path
) -> None:
    full, go = folder / "full", folder / "go"
    for fifo in (full, go):
        os.mkfifo(fifo)
        fifo.chmod(0o666)

    async def run() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            args = ["-c", GREEDY, str(full), str(go)]
            greedy = await client.submit(command=sys.executable, args=args, max_attempts=1)
            full.read_bytes()
            jobs = [await client.submit(command="true", max_attempts=1) for _ in range(JOBS)]
            said = poor.line("no job can be run here now")
            assert "Resource temporarily unavailable" in said
            assert "ulimit -u" in said
            agent = await heard(client, troubled=True)
            assert agent.leases == 1
            assert "Resource temporarily unavailable" in agent.trouble
            assert health(cluster).startswith("degraded\nagents: 1 agent ")
            cluster.agent("--name", "healthy", spawn=2)
            for job in jobs:
                assert [one async for one in client.follow(job.id)][-1].kind == "JOB_FINISHED"
                assert (await client.get(job.id)).state is JobState.COMPLETED
            assert len([line for line in poor.lines if line.startswith("no job can be run")]) == 1
            assert not any("launcher" in line for line in poor.lines)
            go.write_text("")
            poor.line("jobs can be run here again")
            assert [one.kind async for one in client.follow(greedy.id)].count("JOB_LEASED") == 1
            await heard(client, troubled=False)
            assert health(cluster) == "ok\n"

    anyio.run(run)
