"""A token that ends while a job runs, over real sockets."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from airunner import Client
from airunner.protocol.errors import Forbidden, Unauthenticated
from airunner.protocol.job import JobState
from tests.acceptance.running import Cluster, airunner

pytestmark = pytest.mark.timeout(120)


def test_an_agent_whose_token_ends_goes_on_with_the_next_and_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "token"

    def renew(*options: str) -> str:
        draft = tmp_path / "draft"
        draft.write_text(airunner(cluster.home, "token", "--subject", "test", "--role", "work", *options).strip())
        draft.chmod(0o600)
        return draft.rename(file).read_text()

    async def ended(words: str, job_id: str) -> None:
        """Return once the broker takes this token for expired; until then it has only not the role."""
        async with Client(cluster.broker.requests, home=cluster.home, token=words) as client:
            while True:
                try:
                    await client.get(job_id)
                except Forbidden:
                    continue
                except Unauthenticated:
                    return

    renew()
    agent = cluster.agent("--token-file", str(file))
    go = tmp_path / "go"
    os.mkfifo(go)

    async def run() -> None:
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            job = await client.submit(command="sh", args=("-c", f"cat {go}; echo done"))
            async for event in client.follow(job.id):
                if event.kind == "PROCESS_START":
                    break
            await ended(await anyio.to_thread.run_sync(renew, "--ttl", "1s"), job.id)
            await anyio.to_thread.run_sync(go.write_text, "go\n")
            await anyio.to_thread.run_sync(lambda: agent.line("the broker takes no events now"))
            renew()
            kinds = [event.kind async for event in client.follow(job.id)]
            assert kinds.count("JOB_LEASED") == 1
            assert (await client.get(job.id)).state is JobState.COMPLETED

    anyio.run(run)
