"""Queue throughput: no-op jobs through a broker with CURVE, tokens and fsync, and what they cost the broker.

A process submits jobs by `Client`; for the whole life it also leases and completes them, without running anything: an
in-process worker. The references store the same jobs with pyzmq and apsw alone, and with SQLite alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, NamedTuple

import anyio
import zmq
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from airunner import Client
from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.coding import encode
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import FIRST, NO_REQUEST, magic
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobCompleted, JobsLeased
from airunner.protocol.requests import COMPLETIONS_MAX, ENQUEUE_MAX, SLOTS_MAX, Ping
from airunner.transport.channel import Channel
from bench.cluster import Cluster, cluster, connected
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.processortime import processor_s
from bench.product import Product
from bench.reference import ENQUEUE, PING, BareBroker, bare_broker, set_based_life
from bench.requests import dequeue, ended_at_once

SQLITE: Final = "SQLite alone, one thread, the whole life of 256 jobs in three transactions"
IN_FLIGHT: Final = "pyzmq with CURVE and apsw alone, one thread, 64 requests in flight"
ROUND_TRIP: Final = "pyzmq with CURVE and apsw alone, one request at a time"
FIGURES: Final = (
    Figure("end to end", "jobs/s", Bound.LEAST, 0.25, of=SQLITE),
    Figure("enqueue in bulk", "jobs/s", Bound.LEAST, 1.6, of=IN_FLIGHT),
    Figure("enqueue, 64 in flight", "jobs/s", Bound.LEAST, 0.5, of=IN_FLIGHT),
    Figure("enqueue one by one", "jobs/s", Bound.LEAST, 0.6, of=ROUND_TRIP),
    Figure("broker, whole life", "µs a job", Bound.MOST, offset=70, of=SQLITE),
    Figure("broker, enqueue in bulk", "µs a job", of=IN_FLIGHT),
    Figure("broker, 64 in flight", "µs a job", of=IN_FLIGHT),
    Figure("broker, lone EnqueueJob", "µs", Bound.MOST, offset=250, of=ROUND_TRIP),
    Figure(
        "broker, Ping", "µs", Bound.MOST, offset=100, of="a message and its reply by the same broker of pyzmq alone"
    ),
)
LIVES: Final = 8_192  # jobs of a round that live to their end
BULK: Final = 32_768  # jobs enqueued in a round, in requests of ENQUEUE_MAX
FLOWN: Final = 8_192  # jobs enqueued in a round one in a request, with `WINDOW` requests in flight
WINDOW: Final = 64
LONE: Final = 800  # jobs enqueued in a round one after another
PINGS: Final = 600  # sent in a round one after another: fewer than a machine may send at once for no tenant
ASKING: Final = 8  # requests that a producer of batches, and the worker for leases, each keep in flight
SETTLING: Final = 2  # requests with which the worker settles, at once
PARKED_MS: Final = 200  # for which a request for leases is parked, at the end of a round in vain
SPEC: Final = JobSpec(command="true")


class Cost(NamedTuple):
    """Jobs or requests a second, and the broker's processor time for each in µs."""

    rate: float
    broker_us: float


async def _measured(where: Cluster, count: int, use: Callable[[], Awaitable[None]]) -> Cost:
    """Run `use`, which makes the broker do `count` things."""
    before_s, began_s = processor_s(where.broker_pid), time.perf_counter()
    await use()
    seconds = time.perf_counter() - began_s
    return Cost(count / seconds, (processor_s(where.broker_pid) - before_s) / count * 1e6)


async def _at_once(count: int, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(job)


def enqueue(where: Cluster, jobs: int, each: int, asking: int, queue: str) -> Cost:
    """Submit jobs by one `Client`, `each` in a request, with `asking` requests in flight."""

    async def main() -> Cost:
        async with Client(where.requests, home=where.home, token=where.token) as client:
            await client.submit(command="true", queue=queue)  # connects
            left = jobs // each

            async def some() -> None:
                nonlocal left
                specs = [JobSpec(command="true", queue=queue)] * each
                while left:
                    left -= 1
                    await (client.submit(specs[0]) if each == 1 else client.submit_many(specs))

            return await _measured(where, jobs, lambda: _at_once(asking, some))

    return anyio.run(main)


def live(where: Cluster, jobs: int) -> Cost:
    """Submit jobs in bulk, and lease and complete them meanwhile: an in-process worker."""

    async def main() -> Cost:
        async with Client(where.requests, home=where.home, token=where.token) as client, connected(where) as channel:
            await _live(client, channel, ENQUEUE_MAX)  # connects
            before_s, began_s = processor_s(where.broker_pid), time.perf_counter()
            ended_s = await _live(client, channel, jobs)
            used_s = processor_s(where.broker_pid) - before_s
        return Cost(jobs / (ended_s - began_s), used_s / jobs * 1e6)

    return anyio.run(main)


async def _live(client: Client, channel: Channel, jobs: int) -> float:
    """Submit jobs, lease them, and settle what is leased meanwhile together, as an agent does.

    Returns the instant at which the last job had ended: after it, requests for further leases are still parked.
    """
    left, leased, ended_s = jobs // ENQUEUE_MAX, 0, 0.0
    send, receive = anyio.create_memory_object_stream[JobsLeased](ASKING)

    async def submit() -> None:
        nonlocal left
        while left:
            left -= 1
            await client.submit_many([SPEC] * ENQUEUE_MAX)

    async def lease(ours: MemoryObjectSendStream[JobsLeased]) -> None:
        nonlocal leased
        with ours:
            while leased < jobs:
                granted = await channel.ask(dequeue(SLOTS_MAX, wait_ms=PARKED_MS))
                leased += len(granted.leases)
                if granted.leases:
                    await ours.send(granted)

    async def settle(ours: MemoryObjectReceiveStream[JobsLeased]) -> None:
        nonlocal ended_s
        async for granted in ours:
            leases = [*granted.leases]
            with suppress(anyio.WouldBlock, anyio.EndOfStream):
                while len(leases) + SLOTS_MAX <= COMPLETIONS_MAX:
                    leases += ours.receive_nowait().leases
            published = await channel.ask(ended_at_once(leases))
            assert set(published.completions) == {JobCompleted(state=JobState.COMPLETED)}, published
            ended_s = time.perf_counter()

    with ExitStack() as clones:
        senders = [clones.enter_context(send.clone()) for _ in range(ASKING)]
        receivers = [clones.enter_context(receive.clone()) for _ in range(SETTLING)]
        send.close()
        receive.close()
        async with anyio.create_task_group() as group:
            for sender in senders:
                group.start_soon(lease, sender)
                group.start_soon(submit)
            for receiver in receivers:
                group.start_soon(settle, receiver)
    return ended_s


def ping(where: Cluster, count: int) -> Cost:
    """Send Pings one after another."""
    keys = Home(where.home)
    pair, broker = load_client_pair(keys), load_broker_public(keys)
    request = [magic(FIRST), NO_REQUEST, b"", encode(Ping())]
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = broker, pair.public, pair.secret
        dealer.connect(where.requests)

        def some(pings: int) -> None:
            for _ in range(pings):
                dealer.send_multipart(request)
                reply = dealer.recv_multipart()
                assert b"Pong" in reply[-1], reply

        some(1)  # connects
        before_s, began_s = processor_s(where.broker_pid), time.perf_counter()
        some(count)
        seconds = time.perf_counter() - began_s
        return Cost(count / seconds, (processor_s(where.broker_pid) - before_s) / count * 1e6)


def _bare(bare: BareBroker, body: bytes, requests: int, in_flight: int) -> Cost:
    before_s = processor_s(bare.pid)
    rate = bare.rate(body, requests, in_flight)
    return Cost(rate, (processor_s(bare.pid) - before_s) / requests * 1e6)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure against one broker, whose queues of submitted jobs grow from round to round."""
    with cluster(product, spawn=1, agents=0, requests_per_s=1_000_000) as where, bare_broker() as bare:

        def measure() -> Sample:
            sqlite = Cost(*set_based_life(LIVES))
            life = product.call(live, where, LIVES)
            flown_bare = _bare(bare, ENQUEUE, FLOWN, WINDOW)
            bulk = product.call(enqueue, where, BULK, ENQUEUE_MAX, ASKING, "bulk")
            flown = product.call(enqueue, where, FLOWN, 1, WINDOW, "flown")
            lone_bare = _bare(bare, ENQUEUE, LONE, 1)
            lone = product.call(enqueue, where, LONE, 1, 1, "lone")
            pinged = product.call(ping, where, PINGS)
            pinged_bare = _bare(bare, PING, PINGS, 1)
            return {
                "end to end": Reading(life.rate, sqlite.rate),
                "enqueue in bulk": Reading(bulk.rate, flown_bare.rate),
                "enqueue, 64 in flight": Reading(flown.rate, flown_bare.rate),
                "enqueue one by one": Reading(lone.rate, lone_bare.rate),
                "broker, whole life": Reading(life.broker_us, sqlite.broker_us),
                "broker, enqueue in bulk": Reading(bulk.broker_us, flown_bare.broker_us),
                "broker, 64 in flight": Reading(flown.broker_us, flown_bare.broker_us),
                "broker, lone EnqueueJob": Reading(lone.broker_us, lone_bare.broker_us),
                "broker, Ping": Reading(pinged.broker_us, pinged_bare.broker_us),
            }

        yield measure


GROUP: Final = Group("queue", FIGURES, opened)
