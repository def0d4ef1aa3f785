"""PgQueuer on PostgreSQL: jobs are rows of a table, leased in batches and completed in batches.

It runs in a virtual environment of its own, `.venv/peers`, so that nothing it brings changes what airunner does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio

from bench.bareprocess import run_command
from bench.peers import works
from bench.peers.postgres import PROGRAMS, USER, postgres
from bench.peers.works import AT_ONCE, BULK, LIVES, LONE, PROCESSES, RATE, SECONDS, Peer, Works, between_ms
from bench.product import ROOT, Product

VENV: Final = ROOT / ".venv" / "peers"
BATCH: Final = 100  # jobs that are enqueued, leased and completed together
SMALL_BATCH: Final = 10  # PgQueuer's default, for the latency of single jobs
NAME: Final = "bench"
BODY: Final = b'{"command":"/bin/true"}'


async def _queries(folder: str) -> Any:  # noqa: ANN401 - PgQueuer's types are not installed beside airunner
    pgqueuer: Any = import_module("pgqueuer")
    return pgqueuer.Queries(pgqueuer.AsyncpgDriver(await import_module("asyncpg").connect(host=folder, user=USER)))


async def _work(folder: str, batch: int, jobs: int, run: Callable[[int], Awaitable[None]]) -> None:
    """Lease and complete so many jobs; `run` is called with the id of each."""
    manager: Any = import_module("pgqueuer").QueueManager(await _queries(folder))
    left = jobs

    async def ran(job: Any) -> None:  # noqa: ANN401 - see `_queries`
        nonlocal left
        await run(job.id)
        left -= 1
        if not left:
            manager.shutdown.set()

    manager.entrypoint(NAME, accepts_context=False)(ran)
    await manager.run(batch_size=batch)  # returns when what has ended is in the database


def install(folder: str) -> None:
    """Make PgQueuer's tables."""

    async def main() -> None:
        await (await _queries(folder)).install()

    anyio.run(main)


def one_by_one(folder: str) -> float:
    """Enqueue jobs one after another; return jobs a second."""

    async def main() -> float:
        queries = await _queries(folder)
        began_s = time.perf_counter()
        for _ in range(LONE):
            await queries.enqueue("lone", BODY)
        return LONE / (time.perf_counter() - began_s)

    return anyio.run(main)


async def _enqueue(queries: Any, name: str, jobs: int) -> None:  # noqa: ANN401 - see `_queries`
    while jobs:
        count = min(BATCH, jobs)
        await queries.enqueue([name] * count, [BODY] * count, [0] * count)
        jobs -= count


def in_bulk(folder: str) -> float:
    """Enqueue jobs in batches; return jobs a second."""

    async def main() -> float:
        queries = await _queries(folder)
        began_s = time.perf_counter()
        await _enqueue(queries, "bulk", BULK)
        return BULK / (time.perf_counter() - began_s)

    return anyio.run(main)


def end_to_end(folder: str) -> float:
    """Enqueue jobs in batches, and lease and complete them meanwhile; return jobs a second."""

    async def run(_: int) -> None:
        pass

    async def main() -> float:
        queries = await _queries(folder)
        began_s = time.perf_counter()
        async with anyio.create_task_group() as group:
            group.start_soon(_enqueue, queries, NAME, LIVES)
            group.start_soon(_work, folder, BATCH, LIVES, run)
        return LIVES / (time.perf_counter() - began_s)

    return anyio.run(main)


def submitted_s(folder: str) -> dict[str, float]:
    """Submit jobs at a steady rate; return for each the instant before that."""

    async def main() -> dict[str, float]:
        queries = await _queries(folder)

        async def submit() -> str:
            (job,) = await queries.enqueue(NAME, BODY)
            return str(job)

        return await works.submitted_s(submit)

    return anyio.run(main)


def started_s(folder: str) -> dict[str, float]:
    """Lease and complete the jobs of `submitted_s`; return for each the worker's first instant."""
    instants: dict[str, float] = {}

    async def run(job: int) -> None:
        instants[str(job)] = time.monotonic()

    anyio.run(_work, folder, SMALL_BATCH, int(RATE * SECONDS), run)
    return instants


def true(folder: str) -> float:
    """Run jobs, `AT_ONCE` of them at once; return jobs a second."""

    async def main() -> float:
        await _enqueue(await _queries(folder), NAME, PROCESSES)
        room = anyio.Semaphore(AT_ONCE)

        async def run(_: int) -> None:
            async with room:
                await anyio.to_thread.run_sync(run_command)

        began_s = time.perf_counter()
        await _work(folder, BATCH, PROCESSES, run)
        return PROCESSES / (time.perf_counter() - began_s)

    return anyio.run(main)


@contextmanager
def _started(folder: Path) -> Generator[Works]:
    product = Product("PgQueuer", str(VENV / "bin" / "python"), (str(ROOT),))

    with postgres(folder) as place:
        product.call(install, place)

        def start_ms() -> list[float]:
            worker = product.start(started_s, place)
            return between_ms(product.call(submitted_s, place), worker.result())

        yield Works(
            one_by_one=lambda: product.call(one_by_one, place),
            in_bulk=lambda: product.call(in_bulk, place),
            end_to_end=lambda: product.call(end_to_end, place),
            start_ms=start_ms,
            true=lambda: product.call(true, place),
        )


def _missing() -> str:
    if PROGRAMS is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    return "" if (VENV / ".made").exists() else "PgQueuer is not installed: make bench-peers does it, online"


PEER: Final = Peer("PgQueuer", _missing(), _started)
