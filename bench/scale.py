"""Queue depth: lease latency, memory and start of a broker with a million waiting jobs, and of one with a thousand.

Two brokers on two stores receive requests in turn, so that other load on the machine affects both.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from bench.cluster import Cluster, connected, filled_broker
from bench.figures import Bound, Figure, Reading, Sample
from bench.fill import fill_waiting
from bench.group import Group, Round
from bench.product import Product
from bench.requests import dequeue

FEW: Final = 1_000  # waiting jobs of one broker
JOBS: Final = 1_000_000  # waiting jobs of the other
THOUSAND: Final = "a broker with a thousand waiting jobs"
FIGURES: Final = (
    Figure("a lease", "ms", Bound.MOST, 1.5, of=THOUSAND),
    Figure("peak memory", "MiB", Bound.MOST, offset=200, of=THOUSAND),
    Figure("start", "s", Bound.MOST, offset=2, of=THOUSAND),
)
LEASES: Final = 400  # leases measured at each broker
WARMING: Final = 10  # leases before those, not measured: the first requests open the connections


def lease_ms(places: list[Cluster]) -> list[list[float]]:
    """Measure the milliseconds of each DequeueJob of one job, in turn at each broker."""
    return anyio.run(_lease_ms, places)


async def _lease_ms(places: list[Cluster]) -> list[list[float]]:
    taken_ms: list[list[float]] = [[] for _ in places]
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(connected(where)) for where in places]
        for number in range(WARMING + LEASES):
            for channel, taken in zip(channels, taken_ms, strict=True):
                request = dequeue(1, wait_ms=0)
                began_s = time.perf_counter()
                reply = await channel.ask(request)
                if number >= WARMING:
                    taken.append((time.perf_counter() - began_s) * 1_000)
                assert len(reply.leases) == 1, "no job was leased"
    return taken_ms


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1_024


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure a broker with `FEW` jobs beside one with `JOBS` jobs."""
    with (
        filled_broker(product, fill_waiting, FEW) as (few, _),
        filled_broker(product, fill_waiting, JOBS) as (many, _),
    ):

        def measure() -> Sample:
            few_ms, many_ms = map(median, product.call(lease_ms, [few, many]))
            return {
                "a lease": Reading(many_ms, few_ms),
                "peak memory": Reading(peak_mib(many.broker_pid), peak_mib(few.broker_pid)),
                "start": Reading(many.start_s, few.start_s),
            }

        yield measure


GROUP: Final = Group("scale", FIGURES, opened, rounds=1, table=False)
