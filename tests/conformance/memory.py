"""An engine of dicts: shows that the port is small, and passes the same laws as every other engine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from copy import copy

from airunner.broker.store.contract import JobFilter, Moved, Page, Waiting
from airunner.broker.store.embedded import Embedded
from airunner.broker.store.rows import (
    Changes,
    JobRow,
    Keys,
    Loaded,
    QueueCounts,
    QueueKey,
    QueueRow,
    Record,
    SecretRow,
    Segment,
    Usage,
)
from airunner.protocol.replies import QueueMode

ROW_BYTES = 500  # what a job and a segment take, besides their bytes


class Tables:
    """All that is stored. Rows are replaced and never changed, so a copy is as deep as its dicts."""

    def __init__(self) -> None:
        self.jobs: dict[int, JobRow] = {}
        self.numbers: dict[str, int] = {}  # by job id
        self.logs: dict[int, tuple[Segment, ...]] = {}
        self.left: dict[int, str] = {}  # removed jobs whose logs are still there, and their tenants
        self.facts: dict[int, frozenset[bytes]] = {}
        self.records: dict[tuple[str, bytes], Record] = {}
        self.modes: dict[QueueKey, QueueMode] = {}
        self.secrets: dict[tuple[str, str, str], SecretRow] = {}
        self.counts: dict[QueueKey, QueueCounts] = {}
        self.kinds: Counter[QueueKey] = Counter()
        self.usage: dict[str, Usage] = {}
        self.last_number = 0

    def copy(self) -> Tables:
        other = copy(self)
        for name, table in vars(self).items():
            if not isinstance(table, int):
                setattr(other, name, table.copy())
        return other


class MemoryEngine(Embedded):
    """See `Engine`."""

    batch_max = 256
    alone = False
    damage = (0, 0)

    def __init__(self, tables: Tables | None = None) -> None:
        self._saved = tables or Tables()
        self._now = self._saved
        self._aside: set[str] = set()
        self._work = 0

    def begin(self) -> None:
        self._now = self._saved.copy()

    def commit(self) -> None:
        self._saved = self._now

    def close(self) -> None:
        """Nothing is held."""

    def write_back(self) -> None:
        """There is no journal."""

    def work(self) -> int:
        return self._work

    def set_aside(self, job_id: str) -> None:
        self._aside.add(job_id)

    # --- a batch ---

    def load(self, keys: Keys) -> Loaded:
        t = self._now
        named = {t.numbers[job_id] for _, job_id in keys.jobs if job_id in t.numbers}
        granted = {job.number for job in t.jobs.values() if (job.tenant, job.lease_request) in keys.grants}
        jobs = [t.jobs[number] for number in sorted(named | granted)]
        keys.add_retried(jobs)
        known = self._known() if keys.queues else set()
        return Loaded(
            jobs=[copy(job) for job in jobs if (job.tenant, job.job_id) in keys.jobs or job.number in granted],
            records=[t.records[key] for key in keys.records if key in t.records],
            modes={queue: t.modes.get(queue, QueueMode.OPEN) for queue in keys.queues if queue in known},
            kinds={key: jobs for key, jobs in t.kinds.items() if key._replace(needs="") in keys.kinds},
            kinds_of={tenant: sum(key.tenant == tenant for key in t.kinds) for tenant in keys.tenants},
            usage={tenant: t.usage[tenant] for tenant in keys.tenants if tenant in t.usage},
            numbers=range(t.last_number + 1, 2**63),
            damaged=self._aside & {job.job_id for job in jobs},
        )

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        left = Counter(wanted)
        found: list[JobRow] = []
        for job in sorted(self._others(), key=lambda job: (-job.priority, job.number)):
            if not job.gate and left[job.key] > 0:
                left[job.key] -= 1
                found.append(copy(job))
        return Waiting(found)

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        leases = sorted((job.deadline_ms, job.number) for job in self._others() if job.deadline_ms is not None)
        delays = sorted((job.due_ms, job.number) for job in self._others() if job.due_ms is not None)
        over = [number for due in (leases, delays) for due_ms, number in due[:limit] if due_ms <= now_ms]
        return [copy(self._now.jobs[number]) for number in over]

    def next_due_ms(self) -> int | None:
        instants = [at for job in self._others() for at in (job.deadline_ms, job.due_ms) if at is not None]
        return min(instants, default=None)

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        return {row.name: row for row in self._now.secrets.values() if (row.tenant, row.queue) == (tenant, queue)}

    def _others(self) -> Iterable[JobRow]:
        return (job for job in self._now.jobs.values() if job.job_id not in self._aside)

    def save(self, changes: Changes) -> None:
        try:
            self.require_unmoved(changes)
        except Moved:
            self._now = self._saved
            raise
        t = self._now
        for job in (*changes.added, *(after for _, after in changes.changed)):
            t.jobs[job.number] = job
            t.numbers[job.job_id] = job.number
            t.last_number = max(t.last_number, job.number)
        for segment in changes.segments:
            t.logs[segment.number] = (*t.logs.get(segment.number, ()), segment)
        facts: defaultdict[int, set[bytes]] = defaultdict(set)
        for _, fact, number in changes.facts:
            facts[number].add(fact)
        t.facts |= {number: frozenset(some) for number, some in facts.items()}
        t.records |= {(record.tenant, record.request_id): record for record in changes.records}
        t.modes |= changes.modes
        t.secrets |= {(row.tenant, row.queue, row.name): row for row in changes.secrets}
        for name in changes.secrets_removed:
            t.secrets.pop(name, None)
        for job in changes.removed:
            del t.jobs[job.number], t.numbers[job.job_id]
            t.facts.pop(job.number, None)
            t.left[job.number] = job.tenant
        t.modes = {queue: mode for queue, mode in t.modes.items() if mode is not QueueMode.OPEN}
        self._count(changes)

    def require_unmoved(self, changes: Changes) -> None:
        t = self._now
        if any(job.number <= t.last_number for job in changes.added):
            raise Moved
        if any((record.tenant, record.request_id) in t.records for record in changes.records):
            raise Moved
        for before, _ in changes.changed:
            if before.number not in t.jobs or t.jobs[before.number].version != before.version:
                raise Moved

    def _count(self, changes: Changes) -> None:
        t = self._now
        for queue, added in changes.counts.items():
            before = t.counts.get(queue, QueueCounts())
            t.counts[queue] = QueueCounts(*(count + more for count, more in zip(before, added, strict=True)))
        t.counts = {queue: counts for queue, counts in t.counts.items() if any(counts)}
        t.kinds.update(changes.kinds)
        t.kinds = Counter({key: jobs for key, jobs in t.kinds.items() if jobs})
        for tenant, more in changes.usage.items():
            usage = t.usage.get(tenant, Usage())
            t.usage[tenant] = Usage(usage.size_bytes + more.size_bytes, usage.waiting + more.waiting)

    def renew_all(self, now_ms: int) -> None:
        for number, job in list(self._now.jobs.items()):
            other = self._now.jobs[number] = copy(job)
            if job.deadline_ms is not None and job.visibility_ms is not None:
                other.deadline_ms = now_ms + job.visibility_ms
            if job.due_ms is not None and job.pause_ms is not None:
                other.due_ms = min(job.due_ms, now_ms + job.pause_ms)

    # --- pages ---

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        page = Page(jobs=[])
        skipped = 0
        for looked, job in enumerate(self._newest(wanted.tenant, before), start=1):
            self._work += 1
            if self._fits(job, wanted) and skipped < skip:
                skipped += 1
            elif self._fits(job, wanted):
                page.jobs.append(copy(job))
            if len(page.jobs) == limit:
                break
            if looked == looked_max:
                return Page(jobs=page.jobs, stopped_at=job.job_id, skipped=skipped)
        return page

    def _newest(self, tenant: str, before: int | None) -> Iterator[JobRow]:
        for number in sorted(self._now.jobs, reverse=True):
            job = self._now.jobs[number]
            if job.tenant == tenant and (before is None or number < before):
                yield job

    def _fits(self, job: JobRow, wanted: JobFilter) -> bool:
        return (
            job.job_id.startswith(wanted.prefix or "")
            and wanted.queue in (None, job.queue)
            and job.state in (wanted.states or (job.state,))
            and wanted.owner in (None, job.owner)
            and (wanted.queues is None or job.queue in wanted.queues)
            and self._now.facts.get(job.number, frozenset()) >= set(wanted.facts)
        )

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        found = self.jobs(wanted, None, 0, limit + 1, looked_max)
        return min(len(found.jobs), limit), found.stopped_at is not None or len(found.jobs) > limit

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        there = {queue for owner, queue, _ in self._known() if owner == tenant and queue > after}
        within = sorted(queue for queue in there if names is None or queue in names)[:limit]
        self._work += len(within)
        oldest: dict[str, int] = {}
        for job in self._now.jobs.values():
            if not job.gate and job.tenant == tenant:
                oldest[job.queue] = min(job.submitted_ms, oldest.get(job.queue, job.submitted_ms))
        return [self._queue_row(QueueKey(tenant, queue), oldest.get(queue)) for queue in within]

    def _known(self) -> set[tuple[str, str, str]]:
        return {*self._now.modes, *((job.tenant, job.queue, "") for job in self._now.jobs.values())}

    def _queue_row(self, queue: QueueKey, oldest_ms: int | None) -> QueueRow:
        mode = self._now.modes.get(queue, QueueMode.OPEN)
        waiting, delayed, running = self._now.counts.get(queue, QueueCounts())
        return QueueRow(
            name=queue.queue, mode=mode, waiting=waiting, delayed=delayed, running=running, oldest_ms=oldest_ms
        )

    def ready(self, tenant: str, limit: int, counted_max: int) -> dict[QueueKey, int]:
        keys = sorted(QueueKey(*key) for key in {*self._known(), *self._now.kinds} if key[0] == tenant)
        counted = Counter(job.key for job in self._now.jobs.values() if not job.gate)
        return {key: min(counted[key], counted_max) for key in keys[:limit]}

    def totals(self, queues_max: int) -> QueueCounts:
        return QueueCounts(*map(sum, zip((0, 0, 0), *list(self._now.counts.values())[:queues_max], strict=True)))

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        rows = sorted(self._now.secrets.values(), key=lambda row: (row.queue, row.name))
        mine = [row for row in rows if row.tenant == tenant and (row.queue, row.name) > after]
        return [row for row in mine if queue in (None, row.queue) and (names is None or row.queue in names)][:limit]

    def leases(self, tenant: str) -> dict[str, int]:
        running = (job for job in self._now.jobs.values() if job.tenant == tenant and job.deadline_ms is not None)
        return Counter(job.agent for job in running if job.agent is not None)

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        del from_timestamp_ms
        for segment in sorted(self._now.logs.get(number, ()), key=lambda one: one.first_sequence):
            self._work += 1
            if segment.first_sequence + segment.count > sequence:
                yield segment

    # --- retention ---

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        ended = [job for job in self._others() if job.finished_ms is not None and job.finished_ms < before_ms]
        ended.sort(key=lambda job: job.finished_ms or 0)
        return [copy(job) for job in ended[:limit]]

    def finished_of(self, tenant: str) -> JobRow | None:
        return next((job for job in self.finished(2**62, len(self._now.jobs)) if job.tenant == tenant), None)

    def store_bytes(self) -> int:
        segments = [segment for log in self._now.logs.values() for segment in log]
        return ROW_BYTES * (len(self._now.jobs) + len(segments)) + sum(len(segment.events) for segment in segments)

    def usages(self) -> dict[str, Usage]:
        return dict(self._now.usage)

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        t = self._now
        if not t.left:
            return {}, False
        number, tenant = min(t.left.items())
        log = t.logs.get(number, ())
        size_bytes = gone = 0
        while gone < min(len(log), segments_max) and size_bytes < bytes_max:
            gone, size_bytes = gone + 1, size_bytes + len(log[gone].events)
        t.logs[number] = log[gone:]
        if not t.logs[number]:
            del t.logs[number], t.left[number]
        self._work += gone
        return {tenant: size_bytes}, True

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        records = self._now.records
        old = [key for key, record in records.items() if record.answered_ms < answered_before_ms][:limit]
        for key in old:
            del records[key]
        return Counter(tenant for tenant, _ in old)
