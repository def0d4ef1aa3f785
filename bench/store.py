"""Store on PostgreSQL: batches beside SQLite's, over a slow line, of several brokers at once, and beside dead rows.

Measured are batches of the Store itself, without a broker around it: both engines get the same commands in turn, on
the same disk. Where a lease's time depends on what others have left open, the queue is filled by one statement.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from threading import BrokenBarrierError
from typing import Final

import psycopg
from msgspec import Struct

from airunner.broker.lifecycle.commands import MintedJob, TenantRequest
from airunner.broker.requests import kind_of
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine
from airunner.broker.store.postgres.engine import PostgresEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.events import Output, Stream, encode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Result
from airunner.protocol.names import JOB_ID_RANDOM_BYTES, WatchKey, new_job_id
from airunner.protocol.replies import JobLease, JobsLeased, Refused
from airunner.protocol.requests import CompleteJob, EnqueueJob, EventBatch, PublishJobEvents, StoreRequest
from bench.delayline import DelayLine
from bench.figures import Bound, Figure, Reading, Sample
from bench.group import Group, Round
from bench.product import Product, Unmeasured
from bench.requests import dequeue, request_id
from tests.postgresql.fleets import open_engine
from tests.postgresql.serving import VERSIONS, Server, programs, serving

BATCH: Final = 64  # jobs in a batch, each submitted, leased, published to and completed by a command of its own
OUTPUT_BYTES: Final = 4_096  # events of a job that a batch publishes
REPEATS: Final = 12  # batches of a kind in a round
LINE_S: Final = 0.001  # delay each way of the slow line
TRIES_MAX: Final = 1_000  # batches in which `BATCH` jobs are leased: the first, unless other brokers lease there too
COMMIT_S: Final = 0.005  # by which a commit takes longer when several brokers are compared with one
BROKERS: Final = 4
SHARED_BATCHES: Final = 20  # of each broker, when several are compared with one
MANY: Final = 1_000_000  # waiting jobs
FEW: Final = 1_000
LEASED_BEFORE: Final = 64_000  # jobs leased while a transaction is left open
SQLITE: Final = "SQLite"
ONE: Final = "one broker"
SHORT: Final = f"from {FEW:,} waiting"
PROCESSES: Final = get_context("fork")
KINDS: Final = ("enqueue", "lease", "publish", "complete")
FIGURES: Final = (
    *(Figure(f"{kind} {BATCH}", "ms", Bound.MOST, factor=1.5, of=SQLITE) for kind in KINDS),
    Figure(f"life of {BATCH}", "ms", Bound.MOST, factor=1.5, of=SQLITE),
    *(Figure(f"{kind} {BATCH}, 2 ms line", "ms", Bound.MOST, offset=15) for kind in KINDS),
    Figure(f"{BROKERS} brokers, 5 ms commits", "jobs/s", Bound.LEAST, factor=2.5, of=ONE),
    Figure(f"lease {BATCH} beside dead rows", "ms", Bound.MOST, factor=2, of=SHORT),
)


class Taken(Struct):
    """Milliseconds of each batch, by kind."""

    ms: dict[str, list[float]] = {}


class Batches:
    """Batches of one store; `taken` has the milliseconds of each."""

    def __init__(self, engine: Engine) -> None:
        self._store = Store(engine)
        self.taken: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def live(self) -> None:
        """Submit, lease, publish to and complete `BATCH` jobs, in a batch of each kind."""
        self.apply("enqueue", [EnqueueJob(jobs=(JobSpec(command="true"),))] * BATCH)
        leases = self.lease()
        events = encode_bodies([Output(timestamp_ms=1, stream=Stream.STDOUT, data=os.urandom(OUTPUT_BYTES))])
        pieces = [EventBatch(lease=lease.ref, first_index=0, count=1, events=events) for lease in leases]
        self.apply("publish", [PublishJobEvents(batches=(piece,)) for piece in pieces])
        ends = [CompleteJob(lease=lease.ref, event_count=1, result=Result(exit_code=0)) for lease in leases]
        self.apply("complete", ends)

    def lease(self) -> list[JobLease]:
        """Lease `BATCH` jobs, one a command; if other brokers have them locked, the rest in further batches."""
        leases: list[JobLease] = []
        for _ in range(TRIES_MAX):
            asked = [dequeue(1, wait_ms=0) for _ in range(BATCH - len(leases))]
            replies = self.apply("lease", asked)
            leases += [lease for reply in replies if isinstance(reply, JobsLeased) for lease in reply.leases]
            if len(leases) == BATCH:
                return leases
        raise Unmeasured(f"{len(leases)} of {BATCH} jobs were leased")

    def apply(self, kind: str, requests: Sequence[StoreRequest]) -> Sequence[object]:
        """Apply a batch, and note how long it took."""
        commands = [_command(request) for request in requests]
        began_s = time.perf_counter()
        applied = self._store.apply(commands, _now_ms())
        self.taken[kind].append((time.perf_counter() - began_s) * 1_000)
        replies = [done.reply for done in applied.done]
        for refused in (reply for reply in replies if isinstance(reply, Refused)):
            raise Unmeasured(f"a request to {kind} was refused: {refused.message}")
        return replies


class SlowCommits(PostgresEngine):
    """Engine whose commits take `COMMIT_S` longer, with all locks held meanwhile, as on a slow disk or standby."""

    def commit(self) -> None:
        """Wait before the commit is sent."""
        time.sleep(COMMIT_S)
        super().commit()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _command(request: StoreRequest) -> TenantRequest:
    now_ms = _now_ms()
    minted = tuple(
        MintedJob(new_job_id(os.urandom(JOB_ID_RANDOM_BYTES)), WatchKey(os.urandom(32)))
        for _ in range(kind_of(request).mints(request))
    )
    return TenantRequest(tenant="bench", request_id=request_id(now_ms), request=request, minted=minted)


def lives(url: str, sqlite: str | None = None) -> dict[str, Taken]:
    """Measure batches of PostgreSQL and, if a path is given, of SQLite in turn."""
    with ExitStack() as stack:
        engines: dict[str, Engine] = {"postgres": stack.enter_context(closing(open_engine(url, "first")))}
        if sqlite is not None:
            engines["sqlite"] = stack.enter_context(closing(open_sqlite(Path(sqlite))))
        batches = {name: Batches(engine) for name, engine in engines.items()}
        for each in batches.values():  # statements are prepared
            each.live()
            each.live()
            each.taken = {kind: [] for kind in KINDS}
        for _ in range(REPEATS):
            for each in batches.values():
                each.live()
    return {name: Taken(each.taken) for name, each in batches.items()}


def shared(url: str, brokers: int) -> float:
    """Measure the jobs a second that brokers, each a process, bring through one queue."""
    all_there = PROCESSES.Barrier(brokers + 1)
    running = [PROCESSES.Process(target=_live_often, args=(url, number, all_there)) for number in range(brokers)]
    for process in running:
        process.start()
    with suppress(BrokenBarrierError):
        all_there.wait()
    began_s = time.perf_counter()
    for process in running:
        process.join()
    took_s = time.perf_counter() - began_s
    if any(process.exitcode for process in running):
        raise Unmeasured("a broker failed, as it has printed")
    return brokers * SHARED_BATCHES * BATCH / took_s


def _live_often(url: str, number: int, all_there: Barrier) -> None:
    """Bring batches through the queue, once all brokers are there."""
    try:
        with closing(open_engine(url, f"broker{number}")) as engine:
            engine.__class__ = SlowCommits
            batches = Batches(engine)
            batches.live()
            batches.live()
            all_there.wait()
            for _ in range(SHARED_BATCHES):
                batches.live()
    except BaseException:
        all_there.abort()
        raise


def leases_ms(url: str, leased_before: int) -> list[float]:
    """Measure leases of `BATCH` jobs, after many others beside a transaction that is left open; 0: without one."""
    with ExitStack() as stack:
        batches = Batches(stack.enter_context(closing(open_engine(url, "first"))))
        if leased_before:
            left = stack.enter_context(closing(psycopg.connect(url)))
            left.execute("SELECT count(*) FROM airunner.broker")
            left.execute("SELECT pg_current_xact_id()")
            for _ in range(leased_before // BATCH):
                batches.lease()
        else:
            batches.lease()
        batches.taken["lease"].clear()
        for _ in range(REPEATS):
            batches.lease()
    return batches.taken["lease"]


def fill(url: str, jobs: int) -> None:
    """Fill a store with copies of a waiting job, numbered from the next one on."""
    with closing(open_engine(url, "first")) as engine:
        Batches(engine).apply("enqueue", [EnqueueJob(jobs=(JobSpec(command="true"),))])
    with psycopg.connect(url, autocommit=True) as connection:
        columns = [str(name) for (name,) in connection.execute(_COLUMNS)]
        changed = {"number": "at", "job_id": "'copy-' || at"}
        copied = ", ".join(changed.get(name, name) for name in columns)
        numbers = f"generate_series({BATCH}, {jobs + BATCH - 1}) AS at"
        connection.execute(f"INSERT INTO airunner.job SELECT {copied} FROM airunner.job, {numbers}".encode())
        connection.execute(
            "INSERT INTO airunner.waiting SELECT tenant, queue, ''::bytea, -priority, number FROM airunner.job"
            " ON CONFLICT DO NOTHING"
        )
        connection.execute(f"UPDATE airunner.tally SET waiting = waiting + {jobs}".encode())
        connection.execute(f"SELECT setval('airunner.job_number', {jobs + 2 * BATCH})".encode())
        connection.execute("VACUUM ANALYZE")


_COLUMNS: Final = (
    "SELECT column_name FROM information_schema.columns WHERE table_schema = 'airunner' AND table_name = 'job'"
    " ORDER BY ordinal_position"
)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Run a server with its data on the same disk as the SQLite store."""
    version = next((version for version in VERSIONS if programs(version)), None)
    if version is None:
        raise Unmeasured("no PostgreSQL is installed: install Debian's postgresql-15")
    with tempfile.TemporaryDirectory(prefix="airunner-bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(serving(version, Path(folder) / "log", max_wal_size="2GB"))
        rounds = _Rounds(product, server, Path(folder))
        yield rounds.measure


class _Rounds:
    """Rounds of the group; the queue with a million jobs is filled once and shrinks from round to round."""

    def __init__(self, product: Product, server: Server, folder: Path) -> None:
        self._call = product.call
        self._server = server
        self._folder = folder
        self._many = self._filled(MANY)

    def measure(self) -> Sample:
        sample: dict[str, Reading] = {}
        found = self._call(lives, self._new(), str(self._folder / f"{time.monotonic_ns()}.db"))
        ours, sqlite = (_medians(found[name]) for name in ("postgres", "sqlite"))
        for kind in KINDS:
            sample[f"{kind} {BATCH}"] = Reading(ours[kind], sqlite[kind])
        sample[f"life of {BATCH}"] = Reading(sum(ours.values()), sum(sqlite.values()))
        near = self._server.url(self._server.database(), tcp=True)
        with DelayLine(self._server.port, LINE_S) as line:
            slow = _medians(self._call(lives, near.replace(f":{self._server.port}/", f":{line.port}/"))["postgres"])
        sample |= {f"{kind} {BATCH}, 2 ms line": Reading(slow[kind]) for kind in KINDS}
        four, one = (self._call(shared, self._new(), brokers) for brokers in (BROKERS, 1))
        sample[f"{BROKERS} brokers, 5 ms commits"] = Reading(four, one)
        few = self._call(leases_ms, self._filled(FEW), 0)
        many = self._call(leases_ms, self._many, LEASED_BEFORE)
        sample[f"lease {BATCH} beside dead rows"] = Reading(median(many), median(few))
        return sample

    def _filled(self, jobs: int) -> str:
        url = self._new()
        self._call(fill, url, jobs)
        return url

    def _new(self) -> str:
        return self._server.url(self._server.database())


def _medians(taken: Taken) -> dict[str, float]:
    return {kind: median(some) for kind, some in taken.ms.items()}


GROUP: Final = Group("store", FIGURES, opened, rounds=3, table=False)
