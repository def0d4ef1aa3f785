"""Queue throughput: rate of no-op jobs through the broker, and processor time a job of broker, worker and producer.

A producer submits jobs, and a worker leases and completes them without running them, each in a process of its own. The
broker has CURVE sockets, tokens and an fsync for each commit. The reference does the same with pyzmq and apsw alone: as
many messages, and a loop that receives the waiting ones, applies them in one transaction with an fsync, and replies.
Both are measured in turns. Run it with `python -m bench.queue [--jobs 8000]`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import anyio
import apsw
import msgspec
import zmq
from msgspec import Struct
from msgspec.structs import replace

from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.client.reach import reach
from airunner.protocol.events import AgentBody, ProcessEnd, ProcessStart, encode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Result
from airunner.protocol.names import SEED_BYTES
from airunner.protocol.replies import JobCompleted, JobsLeased
from airunner.protocol.requests import CompleteJob, DequeueJob, EnqueueJob, EventBatch, PublishJobEvents
from airunner.transport.channel import Channel
from bench.cluster import Cluster, cluster, token

LIFE_US_MAX: Final = 110.0  # bound of the broker's processor time for a job's life, with many jobs in each request
LONE_US_MAX: Final = 500.0  # bound of the same for a lone EnqueueJob: of one job, while no other request waits
SUBMITTED: Final = 64  # jobs in an EnqueueJob that is not lone
LEASED: Final = 16  # jobs in a DequeueJob, and in the PublishJobEvents that completes them
ASKING: Final = 8  # requests that the producer and the worker each keep in flight
LONE: Final = 500  # lone EnqueueJobs in each round
VISIBILITY_MS: Final = 600_000
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")  # ticks a second, in which /proc states processor time
SPEC: Final = JobSpec(command="true")
EVENTS: Final[list[AgentBody]] = [
    ProcessStart(timestamp_ms=1, pid=1, started_at=1),
    ProcessEnd(timestamp_ms=2, pid=1, exit_code=0, duration_ms=1),
]


class Costs(Struct, frozen=True):
    """Throughput in jobs a second, and processor time in µs a job."""

    rate: float
    broker_us: float
    worker_us: float
    producer_us: float

    def __str__(self) -> str:
        """Format the costs as one line of the report."""
        return (
            f"{self.rate:7.0f} jobs/s   broker {self.broker_us:6.1f} µs a job   "
            f"worker {self.worker_us:6.1f}   producer {self.producer_us:6.1f}"
        )


class Worked(NamedTuple):
    """Processor time of a worker, and the instant (on the steady clock) at which its last job ended."""

    processor_s: float
    ended_s: float


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that a process and its running children have used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the process has ended meanwhile
        if pid in (int(stat.parent.name), int(fields[1])):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


# --- airunner -----------------------------------------------------------------------------------------


async def _with_channel(where: Cluster, token_text: str, use: Callable[[Channel], Awaitable[None]]) -> float:
    """Run `use` with a channel to the broker; return the processor time that it used, in seconds."""
    way = reach(where.requests, token_text, where.home)
    taken_s = 0.0
    try:
        async with anyio.create_task_group() as group:
            channel = Channel(way.network, way.endpoints, way.token, way.edges)
            await group.start(channel.run)
            began_s = time.process_time()
            await use(channel)
            taken_s = time.process_time() - began_s
            group.cancel_scope.cancel()
    finally:
        way.close()
    return taken_s


def produce(where: Cluster, token_text: str, jobs: int, each: int, asking: int, queue: str = "default") -> float:
    """Submit `jobs` jobs, `each` in a request, `asking` requests at once; return the processor time in seconds."""

    async def submit(channel: Channel) -> None:
        left = [(SPEC if queue == "default" else replace(SPEC, queue=queue),) * each] * (jobs // each)

        async def some() -> None:
            while left:
                await channel.ask(EnqueueJob(jobs=left.pop()))

        async with anyio.create_task_group() as group:
            for _ in range(asking):
                group.start_soon(some)

    return anyio.run(_with_channel, where, token_text, submit)


def work(where: Cluster, token_text: str, jobs: int) -> Worked:
    """Lease and complete `jobs` jobs, without running them."""
    events = encode_bodies(EVENTS)
    ended, ended_s = 0, 0.0

    async def complete(channel: Channel) -> None:
        async def some() -> None:
            nonlocal ended, ended_s
            while ended < jobs:
                leases = await channel.ask(
                    DequeueJob(
                        agent="bench",
                        queues=("default",),
                        slots=LEASED,
                        visibility_ms=VISIBILITY_MS,
                        wait_ms=1_000,
                        token_seed=os.urandom(SEED_BYTES),
                    )
                )
                if not leases.leases:
                    continue
                published = await channel.ask(_ended(leases, events))
                assert set(published.completions) == {JobCompleted(state=JobState.COMPLETED)}, published
                ended, ended_s = ended + len(leases.leases), time.monotonic()

        async with anyio.create_task_group() as group:
            for _ in range(ASKING):
                group.start_soon(some)

    return Worked(anyio.run(_with_channel, where, token_text, complete), ended_s)


def _ended(leased: JobsLeased, events: bytes) -> PublishJobEvents:
    """Make the request that publishes all events of the leased attempts and completes them."""
    batches: list[EventBatch] = []
    completions: list[CompleteJob] = []
    for lease in leased.leases:
        batches.append(
            EventBatch(
                lease=lease.ref,
                first_index=0,
                count=len(EVENTS),
                events=events,
            )
        )
        completions.append(
            CompleteJob(
                lease=lease.ref,
                event_count=len(EVENTS),
                result=Result(exit_code=0),
            )
        )
    return PublishJobEvents(batches=tuple(batches), completions=tuple(completions))


# --- the reference (bare broker): pyzmq and apsw alone --------------------------------------------------------------


def bare_broker(home: Path, ready: Connection) -> None:
    """Run a minimal broker, which moves bytes between a ROUTER socket and two tables, until it is killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.curve_server = True
    router.curve_secretkey = (home / "certs" / "broker.secret").read_bytes().strip()
    ready.send(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    database: Any = apsw.Connection(str(home / "bare.db"))
    database.execute("PRAGMA journal_mode = wal; PRAGMA synchronous = full")
    database.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, state INTEGER, spec BLOB)")
    database.execute("CREATE INDEX waiting ON jobs (id) WHERE state = 0")
    database.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, job INTEGER, events BLOB)")
    parked: list[bytes] = []
    while True:
        asked = [router.recv_multipart()]
        while router.poll(0) and len(asked) < SUBMITTED:
            asked.append(router.recv_multipart())
        replies: list[list[bytes]] = []
        database.execute("BEGIN IMMEDIATE")
        for peer, kind, *rows in asked:
            if kind == b"lease":
                parked.append(peer)
                continue
            if kind == b"enqueue":
                database.executemany("INSERT INTO jobs (state, spec) VALUES (0, ?)", ((row,) for row in rows))
            else:
                ids = [int(row) for row in rows[0::2]]
                database.executemany("UPDATE jobs SET state = 2 WHERE id = ?", ((number,) for number in ids))
                runs = zip(ids, rows[1::2], strict=True)
                database.executemany("INSERT INTO runs (job, events) VALUES (?, ?)", runs)
            replies.append([peer, b"done"])
        while parked:
            waiting = list(database.execute("SELECT id, spec FROM jobs WHERE state = 0 ORDER BY id LIMIT ?", (LEASED,)))
            if not waiting:
                break
            database.executemany("UPDATE jobs SET state = 1 WHERE id = ?", ((number,) for number, _ in waiting))
            replies.append([parked.pop(0), *(part for number, spec in waiting for part in (b"%d" % number, spec))])
        database.execute("COMMIT")
        for reply in replies:
            router.send_multipart(reply)


@contextmanager
def _dealer(home: Path, endpoint: str) -> Generator[zmq.Socket[bytes]]:
    """Connect a DEALER socket to the bare broker."""
    keys = Home(home)
    pair, broker = load_client_pair(keys), load_broker_public(keys)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = broker, pair.public, pair.secret
        dealer.connect(endpoint)
        yield dealer


def bare_produce(home: Path, endpoint: str, jobs: int) -> float:
    """Submit jobs to the bare broker, as `produce` does."""
    with _dealer(home, endpoint) as dealer:
        began_s = time.process_time()
        requests = jobs // SUBMITTED
        for number in range(requests):
            dealer.send_multipart([b"enqueue", *([msgspec.msgpack.encode(SPEC)] * SUBMITTED)])
            if number >= ASKING:
                dealer.recv_multipart()
        for _ in range(min(requests, ASKING)):
            dealer.recv_multipart()
        return time.process_time() - began_s


def bare_work(home: Path, endpoint: str, jobs: int) -> Worked:
    """Lease and complete jobs of the bare broker, as `work` does."""
    events = encode_bodies(EVENTS)
    with _dealer(home, endpoint) as dealer:
        began_s = time.process_time()
        requests = jobs // LEASED
        for _ in range(min(requests, ASKING)):
            dealer.send_multipart([b"lease"])
        ended = 0
        while ended < requests:
            reply = dealer.recv_multipart()
            if reply != [b"done"]:
                dealer.send_multipart([b"complete", *(part for row in reply[0::2] for part in (row, events))])
                continue
            ended += 1
            if ended <= requests - ASKING:
                dealer.send_multipart([b"lease"])
        return Worked(time.process_time() - began_s, time.monotonic())


# --- the measurement ----------------------------------------------------------------------------------


def _measured(pid: int, jobs: int, worker: Future[Worked], producer: Future[float]) -> Costs:
    """Wait until worker and producer, which have just started, are done; return the costs of their jobs."""
    before_s, began_s = processor_s(pid), time.monotonic()
    worked = worker.result()
    seconds = (processor_s(pid) - before_s, worked.processor_s, producer.result())
    return Costs(jobs / (worked.ended_s - began_s), *(taken_s / jobs * 1e6 for taken_s in seconds))


def main() -> None:
    """Print the costs of each round and their medians; exit with 1 if the broker's medians exceed the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=8_000, help="number of jobs in each round (default 8000)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind, in turns (default 3)")
    options = parser.parse_args()
    jobs = math.ceil(options.jobs / SUBMITTED) * SUBMITTED
    spawning = get_context("spawn")
    ours: list[Costs] = []
    bares: list[Costs] = []
    lones_us: list[float] = []
    with cluster(spawn=1, agents=0, requests_per_s=1_000_000) as where, ProcessPoolExecutor(2, spawning) as pool:
        opens = token(where, "default")
        receiver, sender = spawning.Pipe(duplex=False)
        bare = spawning.Process(target=bare_broker, args=(where.home, sender), daemon=True)
        bare.start()
        endpoint: str = receiver.recv()

        def life(count: int) -> Costs:
            worker = pool.submit(work, where, opens, count)
            return _measured(
                where.broker_pid, count, worker, pool.submit(produce, where, opens, count, SUBMITTED, ASKING)
            )

        def bare_life(count: int) -> Costs:
            assert bare.pid is not None
            worker = pool.submit(bare_work, where.home, endpoint, count)
            return _measured(bare.pid, count, worker, pool.submit(bare_produce, where.home, endpoint, count))

        life(SUBMITTED)
        bare_life(SUBMITTED)  # not counted: these first runs import modules and open connections
        for _ in range(options.rounds):
            ours.append(life(jobs))
            print(f"airunner   {ours[-1]}", flush=True)
            bares.append(bare_life(jobs))
            print(f"bare       {bares[-1]}", flush=True)
            before_s = processor_s(where.broker_pid)
            pool.submit(produce, where, opens, LONE, 1, 1, "lone").result()
            lones_us.append((processor_s(where.broker_pid) - before_s) / LONE * 1e6)
            print(f"lone EnqueueJob: broker {lones_us[-1]:.0f} µs", flush=True)
        bare.terminate()
    life_us, lone_us = median(costs.broker_us for costs in ours), median(lones_us)
    bare_us = median(costs.broker_us for costs in bares)
    print(f"median: broker {life_us:.1f} µs a job (at most {LIFE_US_MAX:g}; bare {bare_us:.1f})")
    print(f"        broker {lone_us:.0f} µs a lone EnqueueJob (at most {LONE_US_MAX:g})")
    sys.exit(life_us > LIFE_US_MAX or lone_us > LONE_US_MAX)


if __name__ == "__main__":
    main()
