"""Machines that are let in, bound to a tenant, and let in no more, over real sockets and without a restart."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from airunner import Client
from airunner.protocol.errors import Forbidden, OperatorError, Unauthenticated
from airunner.protocol.job import JobState
from tests.acceptance.running import Cluster, Process, airunner

pytestmark = pytest.mark.timeout(120)


def machine(cluster: Cluster, folder: Path, name: str, *options: str) -> Path:
    """The home of a machine that was added and has taken its file in."""
    home = folder / name
    airunner(cluster.home, "certs", "add", name, *options)
    airunner(cluster.home, "certs", "export", name, "--output", str(folder / f"{name}.keys"))
    airunner(home, "certs", "import", str(folder / f"{name}.keys"))
    return home


def token(cluster: Cluster, *options: str) -> str:
    return airunner(cluster.home, "token", "--subject", "test", *options).strip()


def test_a_revoked_machine_is_refused_at_its_very_next_request(cluster: Cluster, tmp_path: Path) -> None:
    laptop = machine(cluster, tmp_path, "laptop")
    words = token(cluster)

    async def run() -> None:
        async with Client(cluster.broker.requests, home=laptop, token=words) as client:
            await client.submit(command="true")
            airunner(cluster.home, "certs", "revoke", "laptop")
            with pytest.raises(Unauthenticated, match="allow-list"):
                await client.submit(command="true")
        with pytest.raises(OperatorError, match="allow-list"):
            async with Client(cluster.broker.requests, home=laptop, token=words) as client:
                await client.submit(command="true")
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            assert len((await client.list_jobs()).jobs) == 1

    anyio.run(run)


def test_a_revoked_agent_that_waits_for_a_job_is_given_none(cluster: Cluster, tmp_path: Path) -> None:
    build = machine(cluster, tmp_path, "build", "--role", "agent", "--queue", "default")
    agent = Process(build, ["agent", "--broker", cluster.broker.requests], {"AIRUNNER_TOKEN": token(cluster)})
    try:
        agent.line("airunner agent ready")

        async def run() -> None:
            async with Client(cluster.broker.requests, home=cluster.home) as client:
                while not [one async for one in client.agents()]:
                    pass  # until it has asked for a job
                await anyio.to_thread.run_sync(airunner, cluster.home, "certs", "revoke", "build")
                job = await client.submit(command="true")
                async for event in client.follow(job.id):
                    if event.kind == "JOB_RELEASED":
                        break
                cluster.agent()
                kinds = [event.kind async for event in client.follow(job.id)]
                assert kinds.count("PROCESS_START") == 1
                found = await client.get(job.id)
                assert (found.state, found.attempt) == (JobState.COMPLETED, 2)

        anyio.run(run)
        assert not any("begins" in line for line in agent.lines)
    finally:
        agent.kill()


def test_a_machine_opens_no_more_than_it_is_listed_for(cluster: Cluster, tmp_path: Path) -> None:
    bound = machine(cluster, tmp_path, "bound", "--tenant", "acme")

    async def refused(words: str) -> None:
        async with Client(cluster.broker.requests, home=bound, token=words) as client:
            with pytest.raises(Forbidden):
                await client.submit(command="true")

    async def run() -> None:
        await refused(token(cluster))
        await refused(token(cluster, "--tenant", "acme", "--role", "read"))
        async with Client(cluster.broker.requests, home=bound, token=token(cluster, "--tenant", "acme")) as client:
            await client.submit(command="true")
        async with Client(cluster.broker.requests, home=cluster.home) as client:
            assert (await client.list_jobs()).jobs == ()

    anyio.run(run)


def test_an_agent_whose_token_ends_goes_on_with_the_next_and_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "token"

    def renew(*options: str) -> str:
        draft = tmp_path / "draft"
        draft.write_text(token(cluster, "--role", "work", *options))
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
