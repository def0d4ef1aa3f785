"""Growth: what a broker's work costs with a million finished jobs and ten million events, beside one with a thousand.

Two brokers get the same requests in turn, so that other load on the machine affects both.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from statistics import median, quantiles
from typing import Final, NamedTuple

import anyio
from msgspec import Struct

from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.requests import ENQUEUE_MAX, EnqueueJob, GetJob, ListJobs, ListQueues, ReplayJobEvents
from airunner.transport.channel import Channel
from bench.cluster import Cluster, connected, filled_broker
from bench.figures import Bound, Figure, Reading, Sample
from bench.fill import EVENTS_A_JOB, fill_finished
from bench.group import Group, Round
from bench.processortime import processor_s
from bench.product import Product
from bench.requests import dequeue, ended_at_once

JOBS: Final = 1_000_000  # finished jobs of one broker
FEW: Final = 1_000  # of the other, so that pages of lists are full
THOUSAND: Final = "a broker with a thousand finished jobs"
SLOWER_MAX: Final = 1.25  # times as long: a rate drops by a fifth
WINDOWS: Final = 5  # in which each kind of request is measured at each broker, in turn
REPEATS: Final = 60  # requests of a kind in a window
PAGE: Final = 100
LEASED: Final = 16  # jobs leased, and then completed, in a request


class Place(Struct, frozen=True):
    """Place to measure: a running broker, and ids of jobs in its store."""

    where: Cluster
    job_ids: list[str]


class Taken(Struct):
    """Milliseconds that each request of a kind took at one broker, and its processor time (µs) in each window."""

    each_ms: list[float] = []
    windows_us: list[float] = []


class _User:
    """User of one broker; each method is a kind of request, or of several that belong together."""

    def __init__(self, channel: Channel, job_ids: list[str]) -> None:
        self._channel = channel
        self._job_ids = job_ids

    async def enqueue(self, jobs: int = 1, queue: str = "waiting") -> None:
        await self._channel.ask(EnqueueJob(jobs=(JobSpec(command="true", queue=queue),) * jobs))

    async def enqueue_many(self) -> None:
        await self.enqueue(ENQUEUE_MAX)

    async def live(self, jobs: int = 1) -> None:
        """Submit, lease and complete jobs."""
        await self.enqueue(jobs, "default")
        for _ in range(0, jobs, LEASED):
            leased = await self._channel.ask(dequeue(min(jobs, LEASED), wait_ms=0))
            await self._channel.ask(ended_at_once(leased.leases))

    async def live_many(self) -> None:
        await self.live(ENQUEUE_MAX)

    async def list(self) -> None:
        await self._channel.ask(ListJobs(page_size=PAGE))

    async def list_failed(self) -> None:
        await self._channel.ask(ListJobs(page_size=PAGE, state=JobState.FAILED))

    async def list_branch(self) -> None:
        await self._channel.ask(ListJobs(page_size=PAGE, metadata={"branch": "branch-3"}))

    async def list_queues(self) -> None:
        await self._channel.ask(ListQueues())

    async def show(self) -> None:
        await self._channel.ask(GetJob(job_id=self._any()))

    async def replay(self) -> None:
        await self._channel.ask(ReplayJobEvents(job_id=self._any()))

    def _any(self) -> str:
        return random.choice(self._job_ids)


class Kind(NamedTuple):
    """Kind of requests: its name in the table, what sends it, how often in a window, and for how many jobs."""

    name: str
    ask: Callable[[_User], Awaitable[None]]
    repeats: int = REPEATS
    jobs: int = 1


KINDS: Final = (
    Kind("enqueue", _User.enqueue),
    Kind("bulk enqueue, a job", _User.enqueue_many, 16, ENQUEUE_MAX),
    Kind("whole life", _User.live),
    Kind("bulk life, a job", _User.live_many, 4, ENQUEUE_MAX),
    Kind("list", _User.list),
    Kind("list --state", _User.list_failed),
    Kind("list --metadata", _User.list_branch),
    Kind("queues", _User.list_queues),
    Kind("show", _User.show),
    Kind("replay", _User.replay),
)
FIGURES: Final = (
    *(Figure(kind.name, "ms", Bound.MOST, SLOWER_MAX, of=THOUSAND) for kind in KINDS),
    Figure("enqueue, p99", "ms", Bound.MOST, SLOWER_MAX, of=THOUSAND),
    *(Figure(f"broker, {kind.name}", "µs", Bound.MOST, SLOWER_MAX, of=THOUSAND) for kind in KINDS),
    Figure(f"file, a job of {EVENTS_A_JOB} events", "bytes"),
)


def measured(places: list[Place]) -> list[dict[str, Taken]]:
    """Measure all kinds of requests at each place, in turn."""
    return anyio.run(_measured, places)


async def _measured(places: list[Place]) -> list[dict[str, Taken]]:
    found = [{kind.name: Taken() for kind in KINDS} for _ in places]
    async with AsyncExitStack() as stack:
        users = [_User(await stack.enter_async_context(connected(place.where)), place.job_ids) for place in places]
        for user in users:
            for kind in KINDS:
                await kind.ask(user)  # not measured: connects, and reads what is then in the caches
        for _ in range(WINDOWS):
            for kind in KINDS:
                for place, user, taken in zip(places, users, found, strict=True):
                    await _measure(kind, user, place.where.broker_pid, taken[kind.name])
    return found


async def _measure(kind: Kind, user: _User, broker_pid: int, taken: Taken) -> None:
    """Measure one window."""
    before_s = processor_s(broker_pid)
    for _ in range(kind.repeats):
        began_s = time.perf_counter()
        await kind.ask(user)
        taken.each_ms.append((time.perf_counter() - began_s) * 1_000 / kind.jobs)
    taken.windows_us.append((processor_s(broker_pid) - before_s) / kind.repeats / kind.jobs * 1e6)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure a broker with `FEW` finished jobs beside one with `JOBS`."""
    with (
        filled_broker(product, fill_finished, FEW) as (few, filled),
        filled_broker(product, fill_finished, JOBS) as (many, filled_many),
    ):
        places = [Place(few, filled.job_ids), Place(many, filled_many.job_ids)]

        def measure() -> Sample:
            before, after = product.call(measured, places)
            sample = {f"file, a job of {EVENTS_A_JOB} events": Reading(filled_many.bytes_a_job)}
            for kind in KINDS:
                then, now = before[kind.name], after[kind.name]
                sample[kind.name] = Reading(median(now.each_ms), median(then.each_ms))
                # The least of the windows: other load on the machine only adds to it.
                sample[f"broker, {kind.name}"] = Reading(min(now.windows_us), min(then.windows_us))
            then, now = before["enqueue"], after["enqueue"]
            sample["enqueue, p99"] = Reading(*(quantiles(taken.each_ms, n=100)[98] for taken in (now, then)))
            return sample

        yield measure


GROUP: Final = Group("growth", FIGURES, opened, rounds=1)
