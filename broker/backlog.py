"""Backlog of the queues, as /metrics shows it: how many jobs wait and run, and for how long the oldest has waited.

Its labels are names that tenants have chosen, and everybody who can reach /metrics can read them. So queues are named
only of the tenants that the operator lists; those of all other tenants are summed as `OTHER`. What is named, and what
is read for it, is bounded: no tenant can make the page long, or its reading slow. What is beyond is in `OTHER` too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from airunner.broker.store.contract import Engine
from airunner.broker.store.needs import is_tag
from airunner.broker.store.rows import QueueKey, QueueRow
from airunner.protocol.replies import QueueMode
from airunner.transport.metric import Metric, MetricKind, Samples

OTHER: Final = "(other)"  # no name of a tenant or queue, and no tag, has parentheses
QUEUES_MAX: Final = 96  # queues that are named: those with the most jobs among the queues that are read
QUEUES_READ_MAX: Final = 960  # queues that are read, the first by name, an equal share of each tenant, in some 10 ms
NEEDS_MAX: Final = 96  # queues and needs that are named: those with the most jobs among those that are read
NEEDS_READ_MAX: Final = 192  # queues and needs that are read, the first by name, an equal share of each tenant
READY_COUNTED_MAX: Final = 1_000  # jobs that are counted for a queue and needs: all of them in some 10 ms
TOTALLED_MAX: Final = 20_000  # queues of all tenants that are summed, in some 5 ms
NEEDS_CHARS_MAX: Final = 256  # length of needs that are named

QUEUE_JOBS: Final = Metric(
    "airunner_queue_jobs",
    MetricKind.GAUGE,
    "Jobs in a queue: ready to be leased, in a paused queue, delayed, or running.",
    ("tenant", "queue", "state"),
)
QUEUE_OLDEST: Final = Metric(
    "airunner_queue_oldest_seconds",
    MetricKind.GAUGE,
    "Time since the oldest job that is ready in a queue was submitted, in seconds; 0: no job is ready.",
    ("tenant", "queue"),
)
QUEUE_READY: Final = Metric(
    "airunner_queue_ready_jobs",
    MetricKind.GAUGE,
    f"Jobs that are ready, by the tags that they require of an agent; at most {READY_COUNTED_MAX} are counted of each.",
    ("tenant", "queue", "needs"),
)
STORE_BYTES: Final = Metric(
    "airunner_store_bytes", MetricKind.GAUGE, "Bytes of the store, without free space inside it."
)
METRICS: Final = (QUEUE_JOBS, QUEUE_OLDEST, QUEUE_READY, STORE_BYTES)

_Queue = tuple[str, QueueRow]  # with its tenant


def read_backlog(engine: Engine, tenants: Sequence[str], now_ms: int) -> dict[str, Samples]:
    """Read the values of `METRICS`, with names of the queues of these tenants; between two batches.

    Raises what the engine's pages raise.
    """
    queues: list[_Queue] = []
    ready: Counter[QueueKey] = Counter()
    with engine.reading():
        for tenant in tenants:
            queues += [(tenant, row) for row in engine.queues(tenant, "", None, QUEUES_READ_MAX // len(tenants))]
            ready.update(engine.ready(tenant, NEEDS_READ_MAX // len(tenants), READY_COUNTED_MAX))
        totals, store_bytes = engine.totals(TOTALLED_MAX), engine.store_bytes()
    queues.sort(key=lambda queue: -queue[1].waiting - queue[1].running)
    named = queues[:QUEUES_MAX]
    jobs = _jobs(named)
    rest = (totals.waiting - totals.delayed, totals.delayed, totals.running)
    for state, total in zip(("ready", "delayed", "running"), rest, strict=True):
        counted = ("ready", "paused") if state == "ready" else (state,)
        shown = sum(count for (*_, one), count in jobs.items() if one in counted)
        jobs[OTHER, OTHER, state] = max(0, total - shown)  # less than 0: not all could be summed
    return {
        QUEUE_JOBS.name: jobs,
        QUEUE_OLDEST.name: {(tenant, row.name): _age_s(row, now_ms) for tenant, row in named},
        QUEUE_READY.name: _ready(ready, queues, sum(count for (*_, one), count in jobs.items() if one == "ready")),
        STORE_BYTES.name: {(): store_bytes},
    }


def _jobs(queues: Sequence[_Queue]) -> dict[tuple[str, ...], int]:
    """Count the jobs of each queue by state; those that are ready are `paused` in a paused queue."""
    jobs: dict[tuple[str, ...], int] = {}
    for tenant, row in queues:
        ready = row.waiting - row.delayed
        paused = row.mode is QueueMode.PAUSED
        states = {"ready": 0 if paused else ready, "paused": ready if paused else 0}
        states |= {"delayed": row.delayed, "running": row.running}
        jobs.update({(tenant, row.name, state): count for state, count in states.items()})
    return jobs


def _ready(ready: Counter[QueueKey], queues: Sequence[_Queue], total: int) -> dict[tuple[str, ...], int]:
    """Count the jobs that are ready by their queue's name and needs; what is not named, of `total`, is `OTHER`."""
    paused = {(tenant, row.name) for tenant, row in queues if row.mode is QueueMode.PAUSED}
    found: Counter[tuple[str, ...]] = Counter()
    for key, count in ready.items():
        needs = ",".join(fact for fact in key.needs.split("\n") if is_tag(fact))
        if len(needs) <= NEEDS_CHARS_MAX:
            found[key.tenant, key.queue, needs] += 0 if key[:2] in paused else count
    named = dict(found.most_common(NEEDS_MAX))
    return {**named, (OTHER, OTHER, OTHER): max(0, total - sum(named.values()))}


def _age_s(row: QueueRow, now_ms: int) -> float:
    """Compute the age of a queue's oldest ready job; none is ready in a paused queue."""
    if row.oldest_ms is None or row.mode is QueueMode.PAUSED:
        return 0.0
    return max(0, now_ms - row.oldest_ms) / 1_000
