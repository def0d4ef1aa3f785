"""Queue depth: lease latency, memory and start of a broker with a million waiting jobs, and of one with a thousand.

Two brokers on two stores receive requests in turn, so that other load on the machine affects both. With a million jobs
a lease may take `RATIO_MAX` times as long, and the broker may use `MEMORY_MIB_MAX` and take `START_S_MAX` to start. Run
it with `python -m bench.scale [--jobs 1000000]`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import anyio
import apsw
from msgspec import Struct

from airunner.broker.lifecycle.commands import MintedJob, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import prepare
from airunner.broker.store.sqlite.rows import Database
from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JOB_ID_RANDOM_BYTES, REQUEST_ID_BYTES, SEED_BYTES, RequestId, WatchKey, new_job_id
from airunner.protocol.requests import ENQUEUE_MAX, DequeueJob, EnqueueJob
from airunner.transport.channel import Channel
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import CurveNetwork, new_context

RATIO_MAX: Final = 1.5  # bound of the median lease latency with many jobs, divided by that with few
MEMORY_MIB_MAX: Final = 200.0  # bound of the peak memory of the broker with many jobs
START_S_MAX: Final = 2.0  # bound of the time until the broker with many jobs is ready
FEW: Final = 1_000  # waiting jobs of the other broker
LEASES: Final = 400  # leases measured at each broker
WARMING: Final = 10  # leases before those, not measured: the first requests open the connections
VISIBILITY_MS: Final = 3_600_000


class Measured(Struct):
    """Measurements of one broker."""

    jobs: int
    start_s: float
    leases_ms: list[float]
    memory_mib: float = 0.0


def _database(path: Path) -> Database:
    """Open a database file; the return type is ours, as apsw's own types need Python 3.12."""
    return apsw.Connection(str(path))


def fill(path: Path, jobs: int) -> None:
    """Fill a store with waiting jobs by the same code as a broker, but without fsync."""
    connection = _database(path)
    prepare(connection)
    connection.execute("PRAGMA synchronous = off")
    store = Store(SqliteEngine(connection))
    left = jobs
    while left:
        asks: list[TenantRequest] = []
        while left and len(asks) < store.batch_max:
            count = min(left, ENQUEUE_MAX)
            left -= count
            now_ms = SYSTEM.wall_ms()
            minted = tuple(
                MintedJob(new_job_id(now_ms, os.urandom(JOB_ID_RANDOM_BYTES)), WatchKey(os.urandom(32)))
                for _ in range(count)
            )
            request = EnqueueJob(jobs=(JobSpec(command="true"),) * count)
            request_id = RequestId(os.urandom(REQUEST_ID_BYTES))
            asks.append(TenantRequest(tenant="default", request_id=request_id, request=request, minted=minted))
        store.apply(asks, SYSTEM.wall_ms())
    store.close()


@contextmanager
def broker(home: Path, path: Path) -> Generator[tuple[str, int, float]]:
    """Run a broker during the block; yield its endpoint, its process id, and the seconds until it was ready."""
    anywhere = "tcp://127.0.0.1:0"
    doors = ["--listen", anywhere, "--events", anywhere, "--http", "127.0.0.1:0"]
    command = [sys.executable, "-m", "airunner", "broker", *doors, "--store", f"sqlite:///{path}", "--no-auth"]
    began_s = time.monotonic()
    environ = {**os.environ, "AIRUNNER_HOME": str(home)}
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        ready = next(line for line in process.stderr if "ready:" in line)
        taken_s = time.monotonic() - began_s
        yield next(word for word in ready.split() if word.startswith("tcp://")), process.pid, taken_s
    finally:
        process.terminate()
        process.wait()


async def lease(endpoints: list[str], home: Path) -> list[list[float]]:
    """Measure the milliseconds of each DequeueJob of one job, in turn at each endpoint."""
    place = Home(home)
    network = CurveNetwork(new_context(), load_client_pair(place), load_broker_public(place))
    taken_ms: list[list[float]] = [[] for _ in endpoints]
    async with anyio.create_task_group() as group:
        channels = [Channel(network, [endpoint], lambda: b"", SYSTEM) for endpoint in endpoints]
        for channel in channels:
            await group.start(channel.run)
        for number in range(WARMING + LEASES):
            for channel, taken in zip(channels, taken_ms, strict=True):
                request = DequeueJob(
                    agent="bench", queues=("default",), visibility_ms=VISIBILITY_MS, token_seed=os.urandom(SEED_BYTES)
                )
                began_s = time.perf_counter()
                reply = await channel.ask(request)
                if number >= WARMING:
                    taken.append((time.perf_counter() - began_s) * 1_000)
                assert len(reply.leases) == 1, "no job was leased"
        group.cancel_scope.cancel()
    return taken_ms


def memory_mib(pid: int) -> float:
    """Return the process's peak memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1_024


def measure(jobs: int, folder: Path) -> list[Measured]:
    """Measure a broker with `FEW` jobs and a broker with `jobs` jobs."""
    home = folder / "home"
    environ = {**os.environ, "AIRUNNER_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "airunner", "certs", "init"], env=environ, check=True, capture_output=True)
    measured: list[Measured] = []
    with ExitStack() as stack:
        endpoints: list[str] = []
        pids: list[int] = []
        for count in (FEW, jobs):
            print(f"filling a store with {count} jobs", flush=True)
            fill(folder / f"{count}.db", count)
            endpoint, pid, start_s = stack.enter_context(broker(home, folder / f"{count}.db"))
            endpoints.append(endpoint)
            pids.append(pid)
            measured.append(Measured(count, start_s, []))
        for broker_measured, pid, taken_ms in zip(measured, pids, anyio.run(lease, endpoints, home), strict=True):
            broker_measured.leases_ms = taken_ms
            broker_measured.memory_mib = memory_mib(pid)
    return measured


def main() -> int:
    """Print the measurements; return 1 when a bound is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="waiting jobs in the long queue (default 1000000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airunner-scale-") as folder:
        few, many = measure(options.jobs, Path(folder))
    for found in (few, many):
        print(
            f"{found.jobs:>9} waiting: start {found.start_s:.2f} s   lease median {median(found.leases_ms):.3f} ms   "
            f"memory {found.memory_mib:.0f} MiB"
        )
    ratio = median(many.leases_ms) / median(few.leases_ms)
    print(f"a lease from {many.jobs} jobs takes {ratio:.2f} times as long as one from {few.jobs} (at most {RATIO_MAX})")
    kept = ratio <= RATIO_MAX and many.memory_mib < MEMORY_MIB_MAX and many.start_s < START_S_MAX
    if not kept:
        print(f"a bound is exceeded: {RATIO_MAX} times, {MEMORY_MIB_MAX:.0f} MiB, {START_S_MAX} s")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
