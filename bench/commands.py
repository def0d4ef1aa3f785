"""Job rate of an agent with short jobs, beside the rate of bare processes.

Jobs of /bin/true wait in a paused queue, which is then opened; their rate is measured from the first lease to the last
end, and every log is checked. The bare rate is that of `os.posix_spawn` and `waitpid` in as many threads as the agent
has slots.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import anyio

from airunner import Client
from airunner.protocol.fields import DEFAULT_QUEUE, JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode
from airunner.protocol.requests import ENQUEUE_MAX
from bench.bareprocess import COMMAND, in_threads, run_command
from bench.cluster import Cluster, cluster
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product

NAME: Final = "/bin/true, 4 at once"
FIGURES: Final = (Figure(NAME, "jobs/s", Bound.LEAST, 0.6, of="posix_spawn and waitpid in 4 threads"),)
EVENTS: Final = ["JOB_SCHEDULED", "JOB_LEASED", "PROCESS_START", "PROCESS_END", "JOB_FINISHED"]
JOBS: Final = 1_280  # of a round
SLOTS: Final = 4  # of the agent, and threads of the reference
FOLLOWED: Final = 32  # logs read at once


def bare_rate(processes: int, threads: int) -> float:
    """Measure how many bare processes a second can be started and waited for."""

    def some() -> None:
        for _ in range(processes // threads):
            run_command()

    began_s = perf_counter()
    in_threads(threads, some)
    return processes / (perf_counter() - began_s)


def job_rate(where: Cluster, jobs: int) -> float:
    """Measure the jobs a second from the first lease to the last end; read and check all logs afterwards."""
    return anyio.run(_job_rate, where, jobs)


async def _job_rate(where: Cluster, jobs: int) -> float:
    async with Client(where.requests, home=where.home, token=where.token) as client:
        await client.update_queue(DEFAULT_QUEUE, QueueMode.PAUSED)
        submitted = [
            job
            for _ in range(jobs // ENQUEUE_MAX)
            for job in await client.submit_many([JobSpec(command=COMMAND)] * ENQUEUE_MAX)
        ]
        await client.update_queue(DEFAULT_QUEUE, QueueMode.OPEN)
        starts: list[int] = []
        ends: list[int] = []
        room = anyio.Semaphore(FOLLOWED)

        async def check(job_id: str) -> None:
            async with room:
                kinds = [event.kind async for event in client.follow(job_id)]
                job = await client.get(job_id)
            assert kinds == EVENTS, kinds
            assert job.state is JobState.COMPLETED, job
            assert job.started_ms is not None, job
            assert job.finished_ms is not None, job
            starts.append(job.started_ms)
            ends.append(job.finished_ms)

        await check(submitted[-1].id)  # only the last job is followed while the jobs run, to disturb them little
        async with anyio.create_task_group() as group:
            for job in submitted[:-1]:
                group.start_soon(check, job.id)
    return len(submitted) / ((max(ends) - min(starts)) / 1_000)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with one agent of `SLOTS` slots."""
    with cluster(product, spawn=SLOTS, requests_per_s=1_000_000) as where:
        product.call(job_rate, where, ENQUEUE_MAX)  # the agent's first jobs import modules

        def measure() -> Sample:
            bare = bare_rate(JOBS, SLOTS)
            return {NAME: Reading(product.call(job_rate, where, JOBS), bare)}

        yield measure


GROUP: Final = Group("commands", FIGURES, opened)
