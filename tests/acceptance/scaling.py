"""What tests of scalers share: an agent that ends by itself, and jobs for it."""

from __future__ import annotations

import sys

from airunner.client.client import Client
from airunner.protocol.fields import JobSpec
from tests.acceptance.running import REPOSITORY, Cluster


def agent_command(cluster: Cluster) -> list[str]:
    """A command, with its variables, that runs an agent until there is no more to do."""
    variables = [f"PYTHONPATH={REPOSITORY}", f"AIRUNNER_HOME={cluster.home}"]
    options = ["--broker", cluster.broker.requests, "--disconnect-after-idle", "1"]
    return ["env", *variables, sys.executable, "-m", "airunner", "agent", *options]


async def run_jobs(cluster: Cluster, count: int) -> set[str]:
    """Submit jobs, wait for the end of all, and return their states."""
    states: set[str] = set()
    async with Client(cluster.broker.requests, home=cluster.home) as client:
        specs = [JobSpec(command="sleep", args=("0.2",))] * count
        for job in await client.submit_many(specs):
            states |= {event.body.state async for event in client.follow(job.id, kinds=["JOB_FINISHED"])}
    return states
