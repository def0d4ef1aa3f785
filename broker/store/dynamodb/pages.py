"""Pages of lists and logs of a DynamoDB store.

Lists of jobs follow the index `listed`, newest first, and each job is read again from the table and compared with the
filter; what this broker has added a moment ago is listed though the index does not show it yet. Queues are listed from
the tallies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, Final

from msgspec.structs import replace

from airunner.broker.store.contract import JobFilter, Page
from airunner.broker.store.dynamodb.adopting import broker_items, read_broker, tenants_of
from airunner.broker.store.dynamodb.batches import Batch
from airunner.broker.store.dynamodb.items import JobItem, read_secret
from airunner.broker.store.dynamodb.logs import LogReader
from airunner.broker.store.dynamodb.owned import LATE_S, indexed
from airunner.broker.store.dynamodb.saving import WORDS_MAX, read_tallies
from airunner.broker.store.dynamodb.schema import (
    JOB,
    LISTED,
    SHARDS,
    SPEC,
    WAITING,
    job_of_pk,
    job_pk,
    listed_partition,
    needs_key,
    place_of,
    waiting_partition,
    waiting_place,
    words_key,
)
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.dynamodb.tallies import QueueTally, TenantTallies
from airunner.broker.store.rows import (
    BrokerRow,
    JobRow,
    Keys,
    QueueCounts,
    QueueKey,
    QueueRow,
    SecretRow,
)
from airunner.protocol.names import JobId
from airunner.protocol.replies import QueueMode

CHUNK: Final = 50  # jobs that are read at once for a list
COUNTED_MAX: Final = 1_000  # jobs that are read to count a list; beyond that "or more" is said
NEW_MAX: Final = 10_000  # jobs that are remembered as new
PLACES_MAX: Final = 256  # priorities, all there can be
_ABOVE_ALL: Final = 2**63 - 1
_NONE: Final = QueueTally()


class NewJobs:
    """Jobs that this broker has added so lately that the index may not show them."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, tuple[float, int]]] = {}  # by tenant, and by partition key: until when, number
        self._count = 0

    def add(self, row: JobRow, now_s: float) -> None:
        """Remember a job."""
        if self._count >= NEW_MAX:
            self._jobs = {tenant: left for tenant, own in self._jobs.items() if (left := _still(own, now_s))}
            self._count = sum(map(len, self._jobs.values()))
            if self._count >= NEW_MAX:
                self._jobs.clear()
                self._count = 0
        self._jobs.setdefault(row.tenant, {})[job_pk(row.tenant, row.job_id)] = (now_s + LATE_S, row.number)
        self._count += 1

    def of(self, tenant: str, now_s: float) -> dict[str, int]:
        """Return the numbers of a tenant's new jobs by their partition keys."""
        return {pk: number for pk, (_, number) in _still(self._jobs.get(tenant, {}), now_s).items()}


def _still(jobs: Mapping[str, tuple[float, int]], now_s: float) -> dict[str, tuple[float, int]]:
    return {pk: entry for pk, entry in jobs.items() if entry[0] > now_s}


class PageReader(LogReader):
    """Reader of pages; see `contract.Engine`."""

    broker: str

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._new = NewJobs()
        self._words: dict[tuple[str, bytes], str] = {}  # texts of needs, by tenant and key

    @contextmanager
    def reading(self) -> Generator[None]:
        self._reading = True
        self._batch = Batch()
        try:
            yield
        finally:
            self._reading = False

    # --- jobs ---

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        page = Page(jobs=[])
        skipped = looked = 0
        entries = self._listed(wanted.tenant, before)
        while chunk := list(islice(entries, min(CHUNK, looked_max - looked))):
            looked += len(chunk)
            matching = self._matching(wanted, [pk for _, pk in chunk])
            for _, pk in chunk:
                if pk not in matching:
                    continue
                if skipped < skip:
                    skipped += 1
                    continue
                page.jobs.append(matching[pk])
                if len(page.jobs) == limit:
                    return self._with_specs(page)
            if looked >= looked_max:
                last = JobId(job_of_pk(chunk[-1][1])[1])
                return self._with_specs(Page(jobs=page.jobs, stopped_at=last, skipped=skipped))
        return self._with_specs(page)

    def _listed(self, tenant: str, before: int | None) -> Iterator[tuple[int, str]]:
        """List the numbers and partition keys of a tenant's jobs, newest first."""
        below = _ABOVE_ALL if before is None else before

        def of_shard(shard: int) -> Iterator[tuple[int, str]]:
            values = {":l": {"S": listed_partition(tenant, shard)}, ":n": {"N": str(below)}}
            for item in self.table.query("l = :l AND n < :n", values, index=LISTED, descending=True):
                yield int(item["n"]["N"]), item["pk"]["S"]

        new = self._new.of(tenant, self.table.edges.steady_s())
        own = sorted(((number, pk) for pk, number in new.items() if number < below), reverse=True)
        last = ""
        for number, pk in merge(own, *map(of_shard, range(SHARDS)), reverse=True):
            if pk != last:  # a new job may be in the index too
                last = pk
                yield number, pk

    def _matching(self, wanted: JobFilter, pks: Iterable[str]) -> dict[str, JobRow]:
        prefix = job_pk(wanted.tenant, wanted.prefix or "")
        items = self.table.get((pk, JOB) for pk in pks if pk.startswith(prefix))
        jobs = self.table.read_jobs(items)
        return {job.key[0]: self._see(job).row for job in jobs if _fits(job, wanted)}

    def _with_specs(self, page: Page) -> Page:
        apart = [row for row in page.jobs if not self._seen[row.number].spec_inside]
        items = self.table.get((job_pk(row.tenant, row.job_id), SPEC) for row in apart)
        for row in apart:
            if (item := items.get((job_pk(row.tenant, row.job_id), SPEC))) is not None:
                row.spec = item["s"]["B"]
        return page

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        if not (wanted.prefix or wanted.states or wanted.owner or wanted.facts):
            tallies = read_tallies(self.table, wanted.tenant)
            within = [name for name in tallies.queues if wanted.queue in (None, name)]
            within = [name for name in within if wanted.queues is None or name in wanted.queues]
            jobs = sum(tallies.queues[name].jobs for name in within)
            return min(jobs, limit), jobs > limit
        jobs = looked = 0
        entries = self._listed(wanted.tenant, None)
        bound = min(COUNTED_MAX, looked_max)
        while jobs <= limit and (chunk := list(islice(entries, min(CHUNK, bound - looked)))):
            looked += len(chunk)
            jobs += len(self._matching(wanted, [pk for _, pk in chunk]))
        return min(jobs, limit), looked >= bound or jobs > limit

    def _named(self, keys: Keys) -> list[JobRow]:
        pks = [job_pk(*key) for key in keys.jobs]
        wanted = [*((pk, JOB) for pk in pks), *((job_pk(*key), SPEC) for key in keys.specs)]
        items = self.table.get(wanted)
        jobs = self.table.read_jobs(items)
        for job in jobs:
            self._see(job)
            if (spec := items.get((job.key[0], SPEC))) is not None:
                job.row.spec = spec["s"]["B"]
        return [job.row for job in jobs]

    # --- queues ---

    def _all_tallies(self) -> list[TenantTallies]:
        calls = [partial(read_tallies, self.table, tenant) for tenant in tenants_of(self.table)]
        return self.table.edges.run_all(calls) if calls else []

    def _kinds_of_queues(self, keys: Keys) -> dict[QueueKey, int]:
        tenants = {key.tenant for key in keys.kinds}
        return self._kinds(keys, {tenant: read_tallies(self.table, tenant) for tenant in tenants})

    def _kinds(self, keys: Keys, tenants: Mapping[str, TenantTallies]) -> dict[QueueKey, int]:
        found: dict[QueueKey, int] = {}
        for tenant, queue, _ in keys.kinds:
            for needs, jobs in tenants[tenant].queues.get(queue, _NONE).kinds.items():
                if jobs > 0:
                    found[QueueKey(tenant, queue, self._text(tenant, queue, needs))] = jobs
        return found

    def _text(self, tenant: str, queue: str, needs: bytes) -> str:
        """Return the text of needs by their key."""
        known = self._words.get((tenant, needs))
        if known is None:
            key = words_key(tenant, needs)
            item = self.table.get([key]).get(key)
            known = item["words"]["S"] if item else self._text_of_a_job(tenant, queue, needs)
            if len(self._words) >= WORDS_MAX:
                self._words.clear()
            self._words[tenant, needs] = known
        return known

    def _text_of_a_job(self, tenant: str, queue: str, needs: bytes) -> str:
        """Return the text of needs from a living job, if it was not kept for so long."""
        for _, pk in self._listed(tenant, None):
            for job in self.table.read_jobs(self.table.get([(pk, JOB)])):
                if job.row.queue == queue and needs_key(job.row.needs) == needs:
                    return job.row.needs
        return ""

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        tallies = read_tallies(self.table, tenant)
        within = sorted(name for name in tallies.names() if name > after and (names is None or name in names))[:limit]
        oldest = (
            self.table.edges.run_all([partial(self._oldest_ms, tallies, name) for name in within]) if within else []
        )
        rows: list[QueueRow] = []
        for name, oldest_ms in zip(within, oldest, strict=True):
            waiting, delayed, running = tallies.counts(name)
            mode = tallies.stored_modes.get(name, QueueMode.OPEN)
            rows.append(
                QueueRow(name=name, mode=mode, waiting=waiting, delayed=delayed, running=running, oldest_ms=oldest_ms)
            )
        return rows

    def _kinds_in(self, tallies: TenantTallies, queue: str) -> list[QueueKey]:
        """List a queue, and its needs with living jobs."""
        kinds = tallies.queues[queue].kinds if queue in tallies.queues else {}
        texts = [self._text(tallies.tenant, queue, needs) for needs, jobs in kinds.items() if jobs > 0]
        return [QueueKey(tallies.tenant, queue), *(QueueKey(tallies.tenant, queue, text) for text in texts)]

    def _oldest_ms(self, tallies: TenantTallies, queue: str) -> int | None:
        """Find when the oldest job of a queue that may be leased was submitted."""
        waiting, delayed, _ = tallies.counts(queue)
        if waiting <= delayed:
            return None
        heads: list[tuple[int, str]] = []
        for key in self._kinds_in(tallies, queue):
            for shard in range(SHARDS):
                heads += self._heads(key, shard)
        for _, pk in sorted(heads):
            for job in self.table.read_jobs(self.table.get([(pk, JOB)])):
                if not job.row.gate:
                    return job.row.submitted_ms
        return None

    def _heads(self, key: QueueKey, shard: int) -> list[tuple[int, str]]:
        """Find the number and partition key of the first waiting job of each priority."""
        values: dict[str, dict[str, Any]] = {":w": {"S": waiting_partition(key, shard)}}
        condition = "w = :w"
        heads: list[tuple[int, str]] = []
        for _ in range(PLACES_MAX):
            item = next(iter(self.table.query(condition, values, index=WAITING, limit=1)), None)
            if item is None:
                break
            place, number = place_of(item["wp"]["B"])
            heads.append((number, item["pk"]["S"]))
            values[":p"] = {"B": waiting_place(-place, _ABOVE_ALL)}
            condition = "w = :w AND wp > :p"
        return heads

    def ready(self, tenant: str, limit: int, counted_max: int) -> dict[QueueKey, int]:
        tallies = read_tallies(self.table, tenant)
        named = {QueueKey(tenant, name) for name in tallies.names()}
        kinds = {key for name in tallies.queues for key in self._kinds_in(tallies, name) if key.needs}
        keys = sorted(named | kinds)[:limit]
        counts = self.table.edges.run_all([partial(self._count_ready, tallies, key, counted_max) for key in keys])
        return dict(zip(keys, counts, strict=True))

    def _count_ready(self, tallies: TenantTallies, key: QueueKey, counted_max: int) -> int:
        waiting, delayed, _ = tallies.counts(key.queue)
        left = counted_max if waiting > delayed else 0
        for shard in range(SHARDS):
            if left > 0:
                values = {":w": {"S": waiting_partition(key, shard)}}
                left -= self.table.count("w = :w", values, index=WAITING, limit=left)
        return (counted_max if waiting > delayed else 0) - left

    def totals(self, queues_max: int) -> QueueCounts:
        counts = [tenant.counts(name) for tenant in self._all_tallies() for name in sorted(tenant.queues)][:queues_max]
        return QueueCounts(*(sum(column) for column in zip((0, 0, 0), *counts, strict=True)))

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        rows = self._boxes(tenant, queue)
        within = [row for row in rows if (row.queue, row.name) > after and (names is None or row.queue in names)]
        return sorted(within, key=lambda row: (row.queue, row.name))[:limit]

    def _boxes(self, tenant: str, queue: str | None) -> list[SecretRow]:
        values: dict[str, dict[str, Any]] = {":pk": {"S": f"X#{tenant}"}}
        condition = "pk = :pk"
        if queue is not None:
            values[":sk"] = {"S": f"{queue}#"}
            condition += " AND begins_with(sk, :sk)"
        return [row for item in self.table.query(condition, values) if (row := read_secret(item)) is not None]

    # --- leases and brokers ---

    def _leased(self, tenant: str) -> list[JobRow]:
        """Read the leased jobs of a tenant, of all brokers."""
        brokers = [item["sk"]["S"] for item in broker_items(self.table)]
        found = self.table.edges.run_all([partial(indexed, self.table, broker) for broker in brokers])
        prefix = job_pk(tenant, "")
        pks = {pk for some in [*found, self._own_pks()] for pk in some if pk.startswith(prefix)}
        rows = [job.row for job in self.table.read_jobs(self.table.get((pk, JOB) for pk in pks))]
        return [
            row for row in rows if row.deadline_ms is not None and row.agent is not None and row.finished_ms is None
        ]

    def _own_pks(self) -> Iterable[str]:
        """List the partition keys of jobs that this broker owns."""
        return ()

    def leases(self, tenant: str) -> dict[str, int]:
        return Counter(str(row.agent) for row in self._leased(tenant))

    def brokers(self, tenant: str, queues: frozenset[str] | None) -> list[BrokerRow]:
        owners = Counter(row.broker for row in self._leased(tenant) if queues is None or row.queue in queues)
        rows = [read_broker(item) for item in broker_items(self.table)]
        return [replace(row, leases=owners[row.broker]) for row in rows]


def _fits(job: JobItem, wanted: JobFilter) -> bool:
    row = job.row
    return (
        wanted.queue in (None, row.queue)
        and row.state in (wanted.states or (row.state,))
        and wanted.owner in (None, row.owner)
        and (wanted.queues is None or row.queue in wanted.queues)
        and set(wanted.facts) <= set(job.facts)
    )
