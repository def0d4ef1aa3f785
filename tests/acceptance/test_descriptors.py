"""An agent takes what descriptors its slots need, leaves its jobs the bound that it was given, and takes on no more."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread

import anyio
import pytest

from airunner import Client
from airunner.agent.plan import AGENT_DESCRIPTORS, SLOT_DESCRIPTORS
from airunner.protocol.events import Output
from airunner.protocol.job import JobState
from tests.acceptance.bounded import needs_prlimit, with_descriptors
from tests.acceptance.running import Cluster

pytestmark = [pytest.mark.timeout(60), needs_prlimit]

SLOTS = 24
SOFT = 80  # four slots' worth
SCRIPT = "ulimit -Sn; echo >$1; read _ <$2"


def test_as_many_jobs_run_as_there_are_slots_under_the_bound_that_a_shell_gives(
    cluster: Cluster, tmp_path: Path
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    for fifo in (begun, go):
        os.mkfifo(fifo)
    words = ["agent", "--broker", cluster.broker.requests, "--spawn", str(SLOTS)]
    agent = with_descriptors(cluster.home, SOFT, 4_096, words)
    cluster.agents.append(agent)
    agent.line("airunner agent ready")

    def let_go_when_all_have_begun() -> None:
        """Each job takes one line; both ends are held open, so that none waits for another to be there."""
        with begun.open("r+b", 0) as said, go.open("r+b", 0) as gate:
            seen = 0
            while seen < SLOTS:
                seen += len(said.read(SLOTS))
            gate.write(b"\n" * SLOTS)
            done.wait()

    async def run() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            args = ["-c", SCRIPT, "sh", str(begun), str(go)]
            jobs = [await client.submit(command="sh", args=args, max_attempts=1) for _ in range(SLOTS)]
            for job in jobs:
                events = [event async for event in client.follow(job.id)]
                written = b"".join(event.body.data for event in events if isinstance(event.body, Output))
                assert written == f"{SOFT}\n".encode(), "a program that uses select() counts on it"
                assert (await client.get(job.id)).state is JobState.COMPLETED

    done = Event()
    gate = Thread(target=let_go_when_all_have_begun, daemon=True)
    gate.start()
    anyio.run(run)
    done.set()
    gate.join()


def test_no_more_slots_are_taken_than_descriptors_carry_and_that_is_said(cluster: Cluster) -> None:
    carried = 3
    hard = AGENT_DESCRIPTORS + carried * SLOT_DESCRIPTORS
    agent = with_descriptors(cluster.home, hard, hard, ["agent", "--broker", cluster.broker.requests, "--spawn", "9"])
    cluster.agents.append(agent)
    said = agent.line("--spawn 9")
    assert f"only {carried} jobs run at once" in said
    assert "LimitNOFILE=" in said
    assert f" {carried} slots," in agent.line("airunner agent ready")
