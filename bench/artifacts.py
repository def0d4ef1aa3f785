"""Artifacts of a job: how fast 10,000 files of 500 MB are stored and fetched, and what each process pays for it.

The files cannot be compressed, so that all of their bytes go over the wire and to the disk. The reference copies the
same files on the same disk and syncs it, with nothing of airunner around. Rates are of a machine that does nothing
else; processor seconds a GB also hold where other work disturbs the rates.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import msgspec

from airunner import Client
from airunner.protocol.events import Artifact, JobFinished, ProcessEnd
from bench.cluster import Cluster, agent, cluster
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.processortime import processor_s
from bench.product import Product

FILES: Final = 10_000
FILE_BYTES: Final = 50_000
BYTES: Final = FILES * FILE_BYTES
GB: Final = BYTES / 1e9
MAKE: Final = """
import os, sys
for number in range(int(sys.argv[1])):
    if number % 100 == 0:
        os.makedirs(folder := f"dist/{number // 100}")
    with open(f"{folder}/{number}", "wb") as file:
        file.write(os.urandom(int(sys.argv[2])))
"""
PUT, GET = "stored", "fetched"
COPIED: Final = "the same files copied on the disk, and synced"
AGENT, BROKER, BROKER_GET, CLIENT = "agent, a GB", "broker, a GB stored", "broker, a GB fetched", "client, a GB"
AGENT_PEAK, BROKER_PEAK = "agent's memory, peak", "broker's memory, peak"
FIGURES: Final = (
    Figure(PUT, "MB/s", Bound.LEAST, offset=200, of=COPIED),
    Figure(GET, "MB/s", Bound.LEAST, offset=200, of=COPIED),
    *(Figure(name, "s") for name in (AGENT, BROKER, BROKER_GET, CLIENT)),
    *(Figure(name, "MiB") for name in (AGENT_PEAK, BROKER_PEAK)),
)


class Taken(msgspec.Struct, frozen=True):
    """Seconds that storing and fetching took, and processor seconds of each process."""

    put_s: float
    get_s: float
    agent_s: float
    broker_put_s: float
    broker_get_s: float
    client_s: float


class Used(NamedTuple):
    """Processor seconds that the agent and the broker have used so far."""

    agent_s: float
    broker_s: float


def measured(where: Cluster, agent_pid: int, folder: Path) -> Taken:
    """Run a job that leaves the files, and fetch them into a folder."""

    def used() -> Used:
        return Used(processor_s(agent_pid), processor_s(where.broker_pid))

    async def main() -> Taken:
        async with Client(where.requests, home=where.home, token=where.token) as client:
            job = await client.submit(
                command=sys.executable, args=["-c", MAKE, str(FILES), str(FILE_BYTES)], artifacts=["dist"]
            )
            before, made_ms, ended_ms, files = used(), 0, 0, 0
            async for event in client.follow(job.id):
                match event.body:
                    case ProcessEnd(timestamp_ms=made_ms):
                        before = used()
                    case JobFinished(timestamp_ms=ended_ms):
                        assert files == FILES, "a file was not visible before the job's end"
                    case Artifact():
                        files += 1
                    case _:
                        pass
            stored = used()
            began_s, own_s = time.monotonic(), time.process_time()
            await client.fetch(job, folder=folder)
            return Taken(
                put_s=(ended_ms - made_ms) / 1_000,
                get_s=time.monotonic() - began_s,
                agent_s=stored.agent_s - before.agent_s,
                broker_put_s=stored.broker_s - before.broker_s,
                broker_get_s=processor_s(where.broker_pid) - stored.broker_s,
                client_s=time.process_time() - own_s,
            )

    return anyio.run(main)


def copied_s(folder: Path, to: Path) -> float:
    """Copy a folder on the disk, and sync it; return the seconds that it took."""
    os.sync()
    began_s = time.monotonic()
    shutil.copytree(folder, to)
    os.sync()
    return time.monotonic() - began_s


def peak_mib(pid: int) -> float:
    """Return the largest resident size that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1_024


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with one agent, each round with new files."""
    with cluster(product, spawn=1, agents=0) as where, agent(product, where, 1) as agent_pid:

        def measure() -> Sample:
            with tempfile.TemporaryDirectory(prefix="airunner-bench-") as made:
                folder = Path(made) / "fetched"
                taken = product.call(measured, where, agent_pid, folder)
                copied = BYTES / 1e6 / copied_s(folder, Path(made) / "copied")
            return {
                PUT: Reading(BYTES / 1e6 / taken.put_s, copied),
                GET: Reading(BYTES / 1e6 / taken.get_s, copied),
                AGENT: Reading(taken.agent_s / GB),
                BROKER: Reading(taken.broker_put_s / GB),
                BROKER_GET: Reading(taken.broker_get_s / GB),
                CLIENT: Reading(taken.client_s / GB),
                AGENT_PEAK: Reading(peak_mib(agent_pid)),
                BROKER_PEAK: Reading(peak_mib(where.broker_pid)),
            }

        yield measure


GROUP: Final = Group("artifacts", FIGURES, opened, table=False)
