"""Start latency of jobs at a steady rate: from before `submit` until a worker, or a real process, has started.

The in-process worker notes the instant at which it has the lease: its first line. For real processes a client follows
each job, and notes the instant at which PROCESS_START reaches it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import anyio

from airunner import Client
from bench.cluster import Cluster, cluster, connected
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product
from bench.reference import fsync_ms
from bench.requests import dequeue, ended_at_once

FSYNC: Final = "an fsync of 4 KiB appended, in ms"
FIGURES: Final = (
    Figure("to the worker, median", "ms", Bound.MOST, 4, 0.6, of=FSYNC),
    Figure("to the worker, p99", "ms", Bound.MOST, 4, of="the median of the same jobs"),
    Figure("to PROCESS_START, median", "ms", Bound.MOST, 4, 2.6, of=FSYNC),
    Figure("to PROCESS_START, p99", "ms", of="the median of the same jobs"),
)
RATE: Final = 50.0  # jobs a second
SECONDS: Final = 6.0  # for which they are submitted
SLOTS: Final = 8  # of the agent that starts processes
WORKERS: Final = 4  # requests for a lease that the in-process worker keeps parked


async def _at_rate(rate: float, seconds: float, submit: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start `submit` at a steady rate, and wait until all have ended."""
    begin_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(int(rate * seconds)):
            await anyio.sleep_until(begin_s + number / rate)
            group.start_soon(submit)


def start_ms(where: Cluster, rate: float, seconds: float) -> list[float]:
    """Measure the milliseconds from before `submit` until PROCESS_START reaches a client that follows the job."""

    async def main() -> list[float]:
        measured: list[float] = []
        async with Client(where.requests, home=where.home, token=where.token) as client:

            async def start() -> None:
                began_s = time.monotonic()
                job = await client.submit(command="true")
                started = [time.monotonic() async for event in client.follow(job.id) if event.kind == "PROCESS_START"]
                measured.extend((instant_s - began_s) * 1_000 for instant_s in started)

            await start()  # the first job opens the connections
            measured.clear()
            await _at_rate(rate, seconds, start)
        return measured

    return anyio.run(main)


def submitted_s(where: Cluster, rate: float, seconds: float) -> dict[str, float]:
    """Submit jobs at a steady rate; return for each the instant before `submit`, on the steady clock."""

    async def main() -> dict[str, float]:
        instants: dict[str, float] = {}
        async with Client(where.requests, home=where.home, token=where.token) as client:

            async def submit() -> None:
                began_s = time.monotonic()
                job = await client.submit(command="true")
                instants[job.id] = began_s

            first = await client.submit(command="true")  # opens the connection, and shows that the worker is there
            async for _ in client.follow(first.id):
                pass
            await _at_rate(rate, seconds, submit)
        return instants

    return anyio.run(main)


def leased_s(where: Cluster, jobs: int) -> dict[str, float]:
    """Lease and complete so many jobs; return for each the instant of the worker's first line."""

    async def main() -> dict[str, float]:
        instants: dict[str, float] = {}
        async with connected(where) as channel, anyio.create_task_group() as workers:

            async def work() -> None:
                while len(instants) < jobs:
                    leased = await channel.ask(dequeue(1, wait_ms=1_000))
                    instants.update((lease.job_id, time.monotonic()) for lease in leased.leases)
                    if leased.leases:
                        await channel.ask(ended_at_once(leased.leases))

            for _ in range(WORKERS):
                workers.start_soon(work)
        return instants

    return anyio.run(main)


def to_worker_ms(product: Product, where: Cluster, rate: float, seconds: float) -> list[float]:
    """Measure the milliseconds from before `submit` to the worker's first line, each in a process of its own."""
    worker = product.start(leased_s, where, int(rate * seconds) + 1)
    try:
        submitted = product.call(submitted_s, where, rate, seconds)
        leased = worker.result()
    finally:
        worker.kill()
    return [(leased[job_id] - began_s) * 1_000 for job_id, began_s in submitted.items()]


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with a broker alone for the in-process worker, and with a broker and an agent for processes."""
    with (
        cluster(product, spawn=1, agents=0) as bare,
        cluster(product, spawn=SLOTS) as full,
        tempfile.TemporaryDirectory(prefix="airunner-bench-") as folder,
    ):

        def measure() -> Sample:
            fsyncs = [fsync_ms(Path(folder))]
            worker_ms = to_worker_ms(product, bare, RATE, SECONDS)
            fsyncs.append(fsync_ms(Path(folder)))
            process_ms = product.call(start_ms, full, RATE, SECONDS)
            fsyncs.append(fsync_ms(Path(folder)))
            fsync, worker, process = median(fsyncs), median(worker_ms), median(process_ms)
            return {
                "to the worker, median": Reading(worker, fsync),
                "to the worker, p99": Reading(quantiles(worker_ms, n=100)[98], worker),
                "to PROCESS_START, median": Reading(process, fsync),
                "to PROCESS_START, p99": Reading(quantiles(process_ms, n=100)[98], process),
            }

        yield measure


GROUP: Final = Group("latency", FIGURES, opened)
