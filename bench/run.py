"""Job rate of an agent with short jobs, compared with the rate of bare processes.

2,000 jobs of /bin/true wait in a paused queue, which is then opened; their rate is measured from the first lease to the
last end, and every log is checked. The bare rate is that of `os.posix_spawn` and `waitpid` in as many threads as the
agent has slots. Both are measured in turns. Run it with `python -m bench.run [--jobs 2000]`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from statistics import median
from threading import Thread
from time import perf_counter
from typing import Final

import anyio

from airunner import Client
from airunner.protocol.fields import DEFAULT_QUEUE, JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode
from bench.cluster import cluster

COMMAND: Final = "/bin/true"
EVENTS: Final = ["JOB_SCHEDULED", "JOB_LEASED", "PROCESS_START", "PROCESS_END", "JOB_FINISHED"]
SHARE_MIN: Final = 0.35  # least median of the job rate, as a share of the bare rate
BATCH: Final = 64  # jobs in a submission
FOLLOWED: Final = 32  # logs read at once


def bare_rate(processes: int, threads: int) -> float:
    """Measure how many bare processes a second can be started and waited for."""

    def some() -> None:
        for _ in range(processes // threads):
            os.waitpid(os.posix_spawn(COMMAND, [COMMAND], os.environ), 0)

    running = [Thread(target=some) for _ in range(threads)]
    began = perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return processes / (perf_counter() - began)


async def job_rate(requests: str, home: str, jobs: int) -> float:
    """Measure the jobs a second from the first lease to the last end; read and check all logs afterwards."""
    async with Client(requests, home=home) as client:
        await client.update_queue(DEFAULT_QUEUE, QueueMode.PAUSED)
        submitted = [
            job for count in _batches(jobs) for job in await client.submit_many([JobSpec(command=COMMAND)] * count)
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
    return jobs / ((max(ends) - min(starts)) / 1_000)


def _batches(jobs: int) -> Iterator[int]:
    for first in range(0, jobs, BATCH):
        yield min(BATCH, jobs - first)


def main() -> None:
    """Print both rates and their ratio for each round; exit with 1 if the median ratio is below `SHARE_MIN`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000, help="number of jobs (default 2000)")
    parser.add_argument("--spawn", type=int, default=4, help="slots of the agent, and threads (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind, in turns (default 3)")
    options = parser.parse_args()
    shares: list[float] = []
    with cluster(spawn=options.spawn) as running:
        anyio.run(job_rate, running.requests, str(running.home), options.spawn * 4)
        for _ in range(options.rounds):
            bare = bare_rate(options.jobs, options.spawn)
            jobs = anyio.run(job_rate, running.requests, str(running.home), options.jobs)
            shares.append(jobs / bare)
            print(f"{jobs:7.0f} jobs/s   {bare:7.0f} bare processes/s   {jobs / bare:6.1%}", flush=True)
    print(f"median {median(shares):.1%} of the bare rate (at least {SHARE_MIN:.0%})")
    sys.exit(median(shares) < SHARE_MIN)


if __name__ == "__main__":
    main()
