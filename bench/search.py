"""Search of a long log through a broker: how fast, and how long other requests wait meanwhile.

The log is a build's, in segments as an agent sends its output. The reference decompresses the same segments, counts
their lines and searches them with RE2, in one process and with nothing of airunner around. Other requests are a
client's that asks for a job again and again, alone and beside a search.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import re2  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs] - it has no types

from airunner import Client
from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.protocol.compression import compressed, decompressed
from airunner.protocol.events import OUTPUT_BYTES_MAX, Output, Stream, encode_bodies
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Result
from airunner.protocol.replies import JobsLeased
from airunner.protocol.requests import CompleteJob, EnqueueJob, EventBatch, PublishJobEvents, StoreRequest
from airunner.transport.ports import SYSTEM
from bench.cluster import Cluster, filled_broker
from bench.console import build_log
from bench.figures import Bound, Figure, Reading, Sample
from bench.fill import TENANT, minted_job, opened_store
from bench.group import Group, Round
from bench.product import Product
from bench.requests import dequeue, request_id

ALONE: Final = "zstd, a count of lines and RE2 alone, one thread"
MEANWHILE: Final = "the same without a search"
PLAIN, REGEX, LINE = "plain", "regular expression", "to a line by its number"
WAIT: Final = "GetJob meanwhile, slowest"
WAIT_REGEX: Final = "GetJob by regex, slowest"
FIGURES: Final = (
    Figure(PLAIN, "MB/s", Bound.LEAST, offset=500, of=ALONE),
    Figure(REGEX, "MB/s", Bound.LEAST, offset=500, of=ALONE),
    Figure(LINE, "MB/s", Bound.LEAST, offset=500),
    Figure(WAIT, "ms", Bound.MOST, offset=25, of=MEANWHILE),
    Figure(WAIT_REGEX, "ms", Bound.MOST, offset=25, of=MEANWHILE),
)
LOG_MB: Final = 1_024
PIECE_BYTES: Final = 8 * 1_048_576  # of a log, which repeats it
EVENTS: Final = 7  # OUTPUTs in a segment: with their fields they take less than a batch may have
MISSING: Final = "fatal: no such line"  # the pattern, which is in no line
MISSING_REGEX: Final = "fatal: [a-z]+ [0-9]+$"
PAUSE_S: Final = 0.01  # between two requests, so that they stay within the tenant's quota
ALONE_S: Final = 1.0  # for which requests are sent without a search


def fill_log(path: Path, mb: int) -> str:
    """Fill a store with one finished job whose log has so many MiB of output; return its id."""
    store = Store(SqliteEngine(opened_store(path)))

    def ask(request: StoreRequest, *, mints: int = 0) -> Any:  # noqa: ANN401 - of many kinds
        now_ms = SYSTEM.wall_ms()
        minted = tuple(minted_job() for _ in range(mints))
        asked = TenantRequest(tenant=TENANT, request_id=request_id(now_ms), request=request, minted=minted)
        return store.apply([asked], now_ms).done[0].reply

    ask(EnqueueJob(jobs=(JobSpec(command="make"),)), mints=1)
    leased: JobsLeased = ask(dequeue(1, 0))
    (lease,) = leased.leases
    packed = segments()
    index = 0
    for at in range(mb * 1_048_576 // (EVENTS * OUTPUT_BYTES_MAX)):
        events = packed[at % len(packed)]
        ask(PublishJobEvents(batches=(EventBatch(lease=lease.ref, first_index=index, count=EVENTS, events=events),)))
        index += EVENTS
    ask(CompleteJob(lease=lease.ref, event_count=index, result=Result(exit_code=0)))
    store.close()
    return lease.job_id


def segments() -> list[bytes]:
    """Make the segments that a log repeats."""
    text = build_log(PIECE_BYTES)
    pieces = [text[at : at + OUTPUT_BYTES_MAX] for at in range(0, len(text), OUTPUT_BYTES_MAX)]
    whole = [pieces[at : at + EVENTS] for at in range(0, len(pieces) - EVENTS + 1, EVENTS)]
    return [
        compressed(encode_bodies([Output(timestamp_ms=1, stream=Stream.STDOUT, data=piece) for piece in batch]))
        for batch in whole
    ]


def searched_mb_s(where: Cluster, job_id: str, pattern: str, kind: str) -> float:
    """Measure how fast a whole log is searched, in which nothing is found."""

    async def main() -> float:
        async with Client(where.requests, home=where.home, token=where.token) as client:
            began_s = time.perf_counter()
            found = [
                line
                async for line in client.search(
                    job_id, pattern, regex=kind == REGEX, from_line=10**9 if kind == LINE else 1
                )
            ]
            assert not found
            return LOG_MB * 1.048576 / (time.perf_counter() - began_s)

    return anyio.run(main)


def slowest_ms(where: Cluster, job_id: str, pattern: str, kind: str) -> float:
    """Measure the slowest of many requests for a job: beside a search of its log, or without a pattern alone."""

    async def main() -> float:
        slowest_s, over = 0.0, anyio.Event()

        async def search() -> None:
            async with Client(where.requests, home=where.home, token=where.token) as client:
                assert not [line async for line in client.search(job_id, pattern, regex=kind == REGEX)]
            over.set()

        async with (
            Client(where.requests, home=where.home, token=where.token) as client,
            anyio.create_task_group() as group,
        ):
            await client.get(job_id)
            until_s = time.perf_counter() + ALONE_S
            if pattern:
                group.start_soon(search)
            while not over.is_set() if pattern else time.perf_counter() < until_s:
                began_s = time.perf_counter()
                await client.get(job_id)
                slowest_s = max(slowest_s, time.perf_counter() - began_s)
                await anyio.sleep(PAUSE_S)
        return slowest_s * 1_000

    return anyio.run(main)


def alone_mb_s(packed: list[bytes], pattern: str) -> float:
    """Measure how fast segments are decompressed, their lines counted, and searched."""
    library: Any = re2
    options = library.Options()
    options.never_nl = True
    compiled = library.compile(f"(?m){pattern}", options)
    began_s = time.perf_counter()
    for segment in packed:
        text = decompressed(segment)
        assert text.replace(b"\n", b"")
        assert compiled.search(text) is None
    return len(packed) * EVENTS * OUTPUT_BYTES_MAX / 1e6 / (time.perf_counter() - began_s)


@contextmanager
def opened(product: Product) -> Generator[Round]:
    """Measure against one broker with one log."""
    packed = segments() * 8
    with filled_broker(product, fill_log, LOG_MB, requests_per_s=1_000) as (where, job_id):

        def measure() -> Sample:
            plain = product.call(searched_mb_s, where, job_id, MISSING, PLAIN)
            regex = product.call(searched_mb_s, where, job_id, MISSING_REGEX, REGEX)
            line = product.call(searched_mb_s, where, job_id, "", LINE)
            alone = product.call(slowest_ms, where, job_id, "", PLAIN)
            waited = product.call(slowest_ms, where, job_id, MISSING, PLAIN)
            waited_regex = product.call(slowest_ms, where, job_id, MISSING_REGEX, REGEX)
            return {
                PLAIN: Reading(plain, alone_mb_s(packed, MISSING)),
                REGEX: Reading(regex, alone_mb_s(packed, MISSING_REGEX)),
                LINE: Reading(line),
                WAIT: Reading(waited, alone),
                WAIT_REGEX: Reading(waited_regex, alone),
            }

        yield measure


GROUP: Final = Group("search", FIGURES, opened, table=False)
