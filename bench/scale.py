"""Queue depth: lease latency, memory and start of a broker with a million waiting jobs, and of one with a thousand.

Two brokers on two stores receive requests in turn, so that other load on the machine affects both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import anyio
import apsw

from airunner.broker.lifecycle.commands import MintedJob, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import prepare
from airunner.broker.store.sqlite.rows import Database
from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JOB_ID_RANDOM_BYTES, WatchKey, new_job_id
from airunner.protocol.requests import ENQUEUE_MAX, EnqueueJob
from airunner.transport.channel import Channel
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import CurveNetwork, new_context
from bench.cluster import ANYWHERE, new_home, running
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product
from bench.requests import dequeue, request_id

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
            asks.append(TenantRequest(tenant="default", request_id=request_id(now_ms), request=request, minted=minted))
        store.apply(asks, SYSTEM.wall_ms())
    store.close()


def lease_ms(endpoints: list[str], home: Path) -> list[list[float]]:
    """Measure the milliseconds of each DequeueJob of one job, in turn at each endpoint."""
    return anyio.run(_lease_ms, endpoints, home)


async def _lease_ms(endpoints: list[str], home: Path) -> list[list[float]]:
    place = Home(home)
    network = CurveNetwork(new_context(), load_client_pair(place), load_broker_public(place))
    taken_ms: list[list[float]] = [[] for _ in endpoints]
    async with anyio.create_task_group() as group:
        channels = [Channel(network, [endpoint], lambda: b"", SYSTEM) for endpoint in endpoints]
        for channel in channels:
            await group.start(channel.run)
        for number in range(WARMING + LEASES):
            for channel, taken in zip(channels, taken_ms, strict=True):
                request = dequeue(1, wait_ms=0)
                began_s = time.perf_counter()
                reply = await channel.ask(request)
                if number >= WARMING:
                    taken.append((time.perf_counter() - began_s) * 1_000)
                assert len(reply.leases) == 1, "no job was leased"
        group.cancel_scope.cancel()
    return taken_ms


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1_024


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure a broker with `FEW` jobs beside one with `JOBS` jobs."""
    with new_home(product) as home, ExitStack() as stack:
        brokers: list[tuple[str, int, float]] = []
        for count in (FEW, JOBS):
            path = home / f"{count}.db"
            product.call(fill, path, count)
            os.sync()  # otherwise the broker's first fsyncs wait for what filled the store
            arguments = ["broker", "--listen", ANYWHERE, "--events", ANYWHERE, "--http", "127.0.0.1:0", "--no-auth"]
            began_s = time.monotonic()
            ready, pid = stack.enter_context(running(product, home, [*arguments, "--store", f"sqlite:///{path}"]))
            endpoint = next(word for word in ready.split() if word.startswith("tcp://"))
            brokers.append((endpoint, pid, time.monotonic() - began_s))

        def measure() -> Sample:
            few, many = map(median, product.call(lease_ms, [endpoint for endpoint, _, _ in brokers], home))
            (_, few_pid, few_s), (_, many_pid, many_s) = brokers
            return {
                "a lease": Reading(many, few),
                "peak memory": Reading(peak_mib(many_pid), peak_mib(few_pid)),
                "start": Reading(many_s, few_s),
            }

        yield measure


GROUP: Final = Group("scale", FIGURES, opened, rounds=1, table=False)
