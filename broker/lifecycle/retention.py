"""Retention: removes finished jobs, the oldest first, in steps too small to delay requests.

While the store is too large, jobs of the tenants that use more than their share are removed. A job disappears at once,
with its log; the log's segments, which may be many, are deleted step by step afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from airunner.broker.lifecycle.commands import Retain
from airunner.broker.lifecycle.world import RECORD_BYTES, WRITE_POINTS, World
from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import JobRow, Sweep, Usage

JOBS_PER_STEP: Final = 64  # jobs removed because they are old; to shrink the store, a step removes a single job
PAIRS_PER_STEP: Final = 1_024  # pairs of metadata removed; a step ends with the job that reaches this number
PIECES_PER_STEP: Final = 32  # pieces of logs deleted, of one log or of several
SEGMENTS_PER_PIECE: Final = 8  # segments deleted: few jobs have more
BYTES_PER_STEP: Final = 8 * 1_048_576  # bytes of logs deleted, which takes some milliseconds
RECORDS_PER_STEP: Final = 256  # idempotency records removed
RECORDS_KEPT_MS: Final = 86_400_000  # least age of a removed idempotency record, even if jobs are removed earlier


def sweep_of(command: Retain, now_ms: int) -> Sweep:
    """List what an engine has to prepare for a step of retention."""
    return Sweep(
        finished_before_ms=command.finished_before_ms,
        jobs_max=JOBS_PER_STEP,
        segments_max=PIECES_PER_STEP * SEGMENTS_PER_PIECE,
        bytes_max=BYTES_PER_STEP,
        records_before_ms=min(command.finished_before_ms, now_ms - RECORDS_KEPT_MS),
        records_max=RECORDS_PER_STEP,
        measured=command.store_bytes_max is not None,
    )


def retain(world: World, engine: Engine, command: Retain) -> None:
    """Do a step of retention; `more` in the news: the next step may remove something too."""
    if _remove_logs(world, engine):
        world.news.more = True
        return
    removed = _remove(world, engine.finished(command.finished_before_ms, JOBS_PER_STEP))
    if not removed and command.store_bytes_max is not None:
        store_bytes = engine.store_bytes()
        if store_bytes > command.store_bytes_max:
            removed = _remove(world, _oldest_of_the_largest(engine, command.store_bytes_max / store_bytes))
    forgotten = engine.remove_records(min(command.finished_before_ms, world.now_ms - RECORDS_KEPT_MS), RECORDS_PER_STEP)
    for tenant, records in forgotten.items():
        world.account(tenant, -records * RECORD_BYTES)
    world.news.more = removed or sum(forgotten.values()) == RECORDS_PER_STEP


def _remove_logs(world: World, engine: Engine) -> bool:
    """Delete pieces of removed jobs' logs; False: there is none."""
    left_bytes = BYTES_PER_STEP
    for piece in range(PIECES_PER_STEP):
        freed, found = engine.remove_logs(SEGMENTS_PER_PIECE, left_bytes)
        for tenant, size_bytes in freed.items():
            world.account(tenant, -size_bytes)
        left_bytes -= sum(freed.values())
        if not found or left_bytes <= 0:
            return found or piece > 0
    return True


def larger_than_their_share(usages: Mapping[str, Usage], kept: float) -> list[str]:
    """List tenants that use more than an equal share, if the fraction `kept` of all bytes may stay; largest first."""
    taken = {tenant: usage.size_bytes for tenant, usage in usages.items() if usage.size_bytes > 0}
    if not taken:
        return []
    share_bytes = int(kept * sum(taken.values()) / len(taken))
    large = [tenant for tenant, size_bytes in taken.items() if size_bytes > share_bytes]
    return sorted(large, key=lambda tenant: (-taken[tenant], tenant))


def _oldest_of_the_largest(engine: Engine, kept: float) -> list[JobRow]:
    """Find the next job to remove, if only the fraction `kept` of all stored bytes may stay.

    Tenants within their share lose no jobs, even while all jobs of the larger tenants still run.
    """
    for tenant in larger_than_their_share(engine.usages(), kept):
        oldest = engine.finished_of(tenant)
        if oldest is not None:
            return [oldest]
    return []


def _remove(world: World, jobs: Iterable[JobRow]) -> bool:
    pairs = 0
    removed = False
    for job in jobs:
        if job.dependents:
            continue  # they have not followed its end yet
        removed |= world.remove_job(job)
        spec = world.spec(job)
        facts = len(spec.metadata) + bool(spec.name)
        world.add_work(WRITE_POINTS * facts)
        pairs += facts
        if pairs >= PAIRS_PER_STEP:
            break
    return removed
