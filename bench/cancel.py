"""Cancel latency: from `cancel` until a client receives the end of the running process, and the end of the job."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Final

import anyio

from airunner import Client
from bench.cluster import Cluster, cluster
from bench.figures import Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product

ENDS: Final = ("PROCESS_END", "JOB_FINISHED")
FIGURES: Final = tuple(Figure(f"to {kind}, {which}", "ms") for kind in ENDS for which in ("median", "most"))
JOBS: Final = 20  # of a round, one after another


def end_ms(where: Cluster, jobs: int) -> dict[str, list[float]]:
    """Measure the milliseconds from `cancel` to each of `ENDS`, for each of so many jobs that sleep."""

    async def main() -> dict[str, list[float]]:
        measured: dict[str, list[float]] = {kind: [] for kind in ENDS}
        async with Client(where.requests, home=where.home, token=where.token) as client:
            for _ in range(jobs):
                job = await client.submit(command="sleep", args=("1000",))
                began_s = perf_counter()
                async for event in client.follow(job.id):
                    if event.kind == "PROCESS_START":
                        began_s = perf_counter()
                        await client.cancel(job.id)
                    elif event.kind in measured:
                        measured[event.kind].append((perf_counter() - began_s) * 1_000)
        return measured

    return anyio.run(main)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with one agent."""
    with cluster(product, spawn=2) as where:

        def measure() -> Sample:
            measured = product.call(end_ms, where, JOBS)
            medians = {f"to {kind}, median": Reading(median(taken_ms)) for kind, taken_ms in measured.items()}
            return medians | {f"to {kind}, most": Reading(max(taken_ms)) for kind, taken_ms in measured.items()}

        yield measure


GROUP: Final = Group("cancel", FIGURES, opened, table=False)
