"""Latencies between two brokers of a fleet on PostgreSQL, beside those at one of them.

A worker is connected to one broker and a client to the other, as an agent and a monitor are. Measured are the times
from before a request is sent at one to the moment at which what it brings about arrives at the other: a job's lease,
an event, a Nudge for a cancelled job. The reference has worker and client at the same broker.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import anyio

from airunner import Client
from airunner.protocol.events import Output, Stream, encode_bodies
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import EventBatch, PublishJobEvents
from airunner.transport.channel import Channel
from bench.cluster import Cluster, broker, connected, new_home
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product, Unmeasured
from bench.requests import dequeue, ended_at_once
from tests.postgresql.serving import VERSIONS, programs, serving

ONE: Final = "the same at one broker"
FIGURES: Final = (
    Figure("submit to lease, median", "ms", of=ONE),
    Figure("submit to lease, p99", "ms", Bound.MOST, offset=50, of=ONE),
    Figure("append to monitor, median", "ms", of=ONE),
    Figure("append to monitor, p99", "ms", Bound.MOST, offset=100, of=ONE),
    Figure("cancel to Nudge, median", "ms", of=ONE),
    Figure("cancel to Nudge, p99", "ms", of=ONE),
)
LEASE, APPEND, CANCEL = "submit to lease", "append to monitor", "cancel to Nudge"
JOBS: Final = 100  # leased and cancelled, one after another
EVENTS: Final = 200  # appended, one after another
PAUSE_S: Final = 0.01  # between two, for the worker's request to be parked


class Pair:
    """Worker at one broker and client at another, and the milliseconds from each request to its effect."""

    def __init__(self, channel: Channel, client: Client) -> None:
        self.measured: dict[str, list[float]] = {LEASE: [], APPEND: [], CANCEL: []}
        self._channel = channel
        self._client = client
        self._arrived_in, self._arrived = anyio.create_memory_object_stream[None](EVENTS)
        channel.nudged = self._arrive

    async def lease(self) -> JobLease:
        """Submit a job while the worker's request for one is parked."""
        found: list[JobLease] = []
        began_s = 0.0

        async def lease() -> None:
            found.extend((await self._channel.ask(dequeue(1, wait_ms=10_000))).leases)
            self._note(LEASE, began_s)

        async with anyio.create_task_group() as group:
            group.start_soon(lease)
            await anyio.sleep(PAUSE_S)
            began_s = time.monotonic()
            await self._client.submit(command="true")
        return found[0]

    async def cancel(self, lease: JobLease) -> None:
        """Cancel a job until the worker is nudged, and end it."""
        began_s = time.monotonic()
        await self._client.cancel(lease.job_id)
        await self._arrived.receive()
        self._note(CANCEL, began_s)
        await self._channel.ask(ended_at_once([lease]))

    async def append(self, lease: JobLease) -> None:
        """Append events to a job's log one by one, while a monitor follows it."""
        events = encode_bodies([Output(timestamp_ms=1, stream=Stream.STDOUT, data=b"a line of output\n")])
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow, lease.job_id)
            for index in range(EVENTS):
                batch = EventBatch(lease=lease.ref, first_index=index, count=1, events=events)
                began_s = time.monotonic()
                await self._channel.ask(PublishJobEvents(batches=(batch,)))
                await self._arrived.receive()
                if index:  # the first is replayed: it comes before the subscription
                    self._note(APPEND, began_s)
                await anyio.sleep(PAUSE_S)
            group.cancel_scope.cancel()

    def close(self) -> None:
        """Close what arrives."""
        self._arrived_in.close()
        self._arrived.close()

    async def _follow(self, job_id: str) -> None:
        async for event in self._client.follow(job_id):
            if event.kind == "OUTPUT":
                self._arrive()

    def _arrive(self) -> None:
        self._arrived_in.send_nowait(None)

    def _note(self, what: str, began_s: float) -> None:
        self.measured[what].append((time.monotonic() - began_s) * 1_000)


def between_ms(worker: Cluster, client: Cluster) -> dict[str, list[float]]:
    """Measure the milliseconds between a worker's broker and a client's."""

    async def main() -> dict[str, list[float]]:
        async with connected(worker) as channel, Client(client.requests, home=client.home, token=client.token) as there:
            with closing(Pair(channel, there)) as pair:
                for _ in range(JOBS):
                    await pair.cancel(await pair.lease())
                await pair.append(await pair.lease())
        return pair.measured

    return anyio.run(main)


@contextmanager
def fleet(product: Product) -> Generator[tuple[Cluster, Cluster]]:
    """Run two brokers on a PostgreSQL server of their own; clients of both have the first one's home."""
    version = next((version for version in VERSIONS if programs(version)), None)
    if version is None:
        raise Unmeasured("no PostgreSQL is installed: install Debian's postgresql-15")
    with tempfile.TemporaryDirectory(prefix="airunner-bench-") as folder, new_home(product) as home:
        keys, other = Path(folder) / "fleet.keys", Path(folder) / "home"
        for where, words in (
            (home, ("add", "fleet", "--role", "broker")),
            (home, ("export", "fleet", "--output", str(keys))),
            (other, ("import", str(keys))),
        ):
            command = product.command("certs", *words)
            subprocess.run(command, env=product.environ(where), check=True, capture_output=True)
        with serving(version, Path(folder) / "log") as server:
            store = server.url(server.database())
            with broker(product, home, store=store) as first, broker(product, other, store=store, keys=home) as second:
                yield first, second


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure with two brokers."""
    with fleet(product) as (first, second):

        def measure() -> Sample:
            between = product.call(between_ms, first, second)
            alone = product.call(between_ms, first, first)
            sample: dict[str, Reading] = {}
            for what, found_ms in between.items():
                sample[f"{what}, median"] = Reading(median(found_ms), median(alone[what]))
                sample[f"{what}, p99"] = Reading(*(quantiles(each, n=100)[98] for each in (found_ms, alone[what])))
            return sample

        yield measure


GROUP: Final = Group("fleet", FIGURES, opened)
