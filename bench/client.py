"""Start of a `Client`: how long it takes to connect and to submit its first job, in a fresh process.

The first figure begins once everything is imported; the second is that of a whole program, from its start to its end.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from typing import Final

import anyio

from airunner import Client
from bench.cluster import Cluster, cluster
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product
from bench.reference import ENQUEUE, BareBroker, bare_broker

NAME: Final = "connect and first submit"
PROGRAM_NAME: Final = "program that submits one job"
FIGURES: Final = (
    Figure(NAME, "ms", Bound.MOST, offset=25, of="pyzmq with CURVE and apsw alone, in a process that has run before"),
    Figure(PROGRAM_NAME, "ms", of="python -c pass"),
)
PROGRAM: Final = """
import asyncio
from airunner import Client
async def main():
    async with Client() as client:
        await client.submit(command="true")
asyncio.run(main())
"""
PROCESSES: Final = 5  # fresh processes of a round, of which the median is taken


def first_submit_ms(where: Cluster) -> float:
    """Measure the milliseconds from `Client(...)` until its first job is submitted."""

    async def main() -> float:
        began_s = time.perf_counter()
        async with Client(where.requests, home=where.home, token=where.token) as client:
            await client.submit(command="true")
            return (time.perf_counter() - began_s) * 1_000

    return anyio.run(main)


def _bare_ms(bare: BareBroker) -> float:
    """Measure the milliseconds from a new context until the bare broker has stored a job."""
    began_s = time.perf_counter()
    bare.rate(ENQUEUE, 1, 1)
    return (time.perf_counter() - began_s) * 1_000


def _program_ms(product: Product, where: Cluster, text: str) -> float:
    """Measure the milliseconds from the start of a Python program to its end."""
    environ = product.environ(where.home) | {"AIRUNNER_BROKER": where.requests, "AIRUNNER_TOKEN": where.token}
    began_s = time.perf_counter()
    subprocess.run([product.python, "-c", text], env=environ, check=True, capture_output=True)
    return (time.perf_counter() - began_s) * 1_000


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure against one broker."""
    with cluster(product, spawn=1, agents=0) as where, bare_broker() as bare:
        _bare_ms(bare)

        def measure() -> Sample:
            bare_ms = median(_bare_ms(bare) for _ in range(PROCESSES))
            ours_ms = median(product.call(first_submit_ms, where) for _ in range(PROCESSES))
            programs = [[_program_ms(product, where, text) for text in (PROGRAM, "pass")] for _ in range(PROCESSES)]
            program_ms, empty_ms = map(median, zip(*programs, strict=True))
            return {NAME: Reading(ours_ms, bare_ms), PROGRAM_NAME: Reading(program_ms, empty_ms)}

        yield measure


GROUP: Final = Group("client", FIGURES, opened)
