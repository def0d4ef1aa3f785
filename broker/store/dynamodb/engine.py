"""DynamoDB engine: batches of a broker, each one transaction under the conditions of what it was decided on.

```
 begin, renew_all, load ──► items by their keys, tallies of tenants       (nothing is locked)
 waiting, due, …        ──► what memory and indexes show, read again
 save                   ──► items with the next revisions                 (saving)
 commit                 ──► TransactWriteItems, with a token; `Moved` if a revision is not as it was loaded
```

Nothing is locked, so any row may have changed by the time of the commit; then the batch is loaded and decided again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from airunner.broker.store.contract import Moved, Waiting
from airunner.broker.store.dynamodb import saving, sweeping
from airunner.broker.store.dynamodb.adopting import Adoption, OwnRow, broker_items, read_broker, tenants_of
from airunner.broker.store.dynamodb.batches import Batch
from airunner.broker.store.dynamodb.items import Item, JobItem, read_record
from airunner.broker.store.dynamodb.outbox import Outbox
from airunner.broker.store.dynamodb.owned import SEARCHED_S, Owned, indexed, is_owned, overdue, take_over
from airunner.broker.store.dynamodb.pages import PageReader
from airunner.broker.store.dynamodb.schema import (
    BROKERS,
    JOB,
    SPEC,
    Key,
    Numbers,
    bucket_of,
    grant_key,
    job_pk,
    record_key,
)
from airunner.broker.store.dynamodb.table import ROWS_MAX, Table, new_token
from airunner.broker.store.dynamodb.tallies import Bucket
from airunner.broker.store.dynamodb.waiting import Recent, find_waiting
from airunner.broker.store.rows import Changes, JobRow, Keys, Loaded, OutboxEntry, QueueKey, SecretRow, Usage

LEASE_ROWS: Final = 3  # of a lease that ends: its job and two events
DELAY_ROWS: Final = 1  # of a delay that ends: its job
ROW_BYTES: Final = 1_024  # bytes that a job takes beside its spec and log, with its index entries
BUCKETS_KEPT_MAX: Final = 4_096  # of this broker's tally buckets that are kept in memory
BYTES_MAX: Final = 2_500_000  # of a batch's contents in one transaction


class DynamoEngine(PageReader):
    """Engine of the broker `broker`, which has opened the store for the `epoch`-th time; see `contract.Engine`.

    `wall_ms` reads the wall clock: numbers of jobs and the removal of records follow it.
    """

    batch_max = 64  # commands in one batch; each of its transactions takes a round trip
    rows_max: int | None = ROWS_MAX
    bytes_max: int | None = BYTES_MAX
    alone = False
    remote = True
    warnings: tuple[str, ...] = ()
    locked_ms = 0

    def __init__(self, table: Table, own: OwnRow, wall_ms: Callable[[], int], *, announces: bool = False) -> None:
        super().__init__(table)
        table.is_open = True
        self.broker = own.broker
        self.announces = announces
        self.ready_seq = own.ready_seq
        self._own = own
        self._wall_ms = wall_ms
        self._numbers = Numbers(own.slot)
        self._owned = Owned()
        self._recent = Recent()
        self._forgotten: deque[Collection[QueueKey] | None] = deque()  # hints that came since the last load
        self._actions: list[Any] = []
        self._changes = Changes()
        self._saving: saving.Saving | None = None
        self._kept: dict[tuple[str, int], Bucket] = {}  # see `Batch.kept`
        self._known_words: dict[tuple[str, bytes], int] = {}  # texts of needs: when each was stored, in s
        self._searched_s: float | None = None  # when the index was last searched for overdue jobs,
        self._search_ends: dict[int, int] = {}  # and where that ended, by shard
        self._size_bytes, self._sized = 0, False  # as the last beat has counted; whether it was read since
        self._next_due_ms: int | None = None  # as of the last commit
        self._outbox = Outbox(table, own.broker)
        self._adoption = Adoption(table, self._owned, self._outbox, own.broker)

    # --- a batch ---

    def steady_ms(self) -> int:
        return int(self.table.edges.steady_s() * 1_000)

    def begin(self) -> None:
        self._batch = Batch()
        self._actions, self._changes, self._saving = [], Changes(), None

    def renew_all(self, now_ms: int) -> None:
        for pk, at in indexed(self.table, self.broker).items():
            if pk not in self._owned:
                self._owned.note_at(pk, at)
        take_over(self.table, self._owned, self._owned.all(), self.broker, self.broker, now_ms)
        self._next_due_ms = self._owned.next_ms()
        self._searched_s = self.table.edges.steady_s()
        for tallies in self._all_tallies() if self.announces else ():  # what was stored before, or in an outage
            for bucket in tallies.buckets:
                if bucket.broker == self.broker:
                    self._outbox.adopt(bucket)

    def load(self, keys: Keys) -> Loaded:
        if self._reading:
            return Loaded(jobs=self._named(keys), kinds=self._kinds_of_queues(keys), damaged=set(self.table.aside))
        now_s = self.table.edges.steady_s()
        self._seen.clear()
        while self._forgotten:
            self._recent.hint(self._forgotten.popleft(), now_s)
        if keys.fleet or keys.adopted:
            self._kept.clear()  # an outbox is flushed, and what another broker has counted is added
        batch = self._batch = Batch(keys=keys, kept=self._kept)
        if keys.fleet:
            self._beat(now_s, keys.now_ms)
        adopted = {seen.broker for seen in keys.adopted if self._adoption.adopt(seen, keys.now_ms)}
        self._load_items(keys)
        found = self._found(keys)
        found.adopted = adopted
        if keys.fleet:
            found.brokers = [read_broker(item) for item in broker_items(self.table)]
        if keys.sweep is not None:
            batch.notes = sweeping.find_notes(self.table, keys.sweep)
        return found

    def _beat(self, now_s: float, now_ms: int) -> None:
        """Show that this broker lives; store what is known only here; and look for overdue jobs from time to time."""
        self._own.beat(self.table, self.ready_seq)
        self._outbox.flush()
        if self._sized:
            self._size_bytes, self._sized = self.store_bytes(), False
        if self._searched_s is None or self._searched_s + SEARCHED_S <= now_s:
            self._searched_s = now_s
            late = [*overdue(self.table, self._owned, self.broker, now_ms, self._search_ends)]
            take_over(self.table, self._owned, late, self.broker, self.broker, now_ms)
            self._adoption.look_for_late()

    def _load_items(self, keys: Keys) -> None:
        batch, own_key = self._batch, (BROKERS, self.broker)
        jobs = [job_pk(*key) for key in keys.jobs]
        wanted = [own_key, *((pk, JOB) for pk in jobs), *((job_pk(*key), SPEC) for key in keys.specs)]
        wanted += [record_key(*key) for key in keys.records]
        wanted += [grant_key(*key) for key in keys.grants]
        wanted += [(f"X#{tenant}", f"{queue}#") for tenant, queue, _ in keys.boxes & keys.updated]
        changed = {key.tenant for key in keys.updated}
        tenants = {key.tenant for key in keys.queues | keys.opened | keys.kinds} | changed | keys.tenants
        tenants |= {tenant for tenant, _ in keys.retried | keys.records.keys()}
        for tenant in sorted(changed):
            batch.tenant_revs[tenant] = saving.read_tenant_rev(self.table, tenant)  # before the modes are read
        calls: list[Callable[[], Any]] = [partial(self.table.get, wanted)]
        calls += [partial(saving.read_tallies, self.table, tenant) for tenant in sorted(tenants)]
        items, *tallies = self.table.edges.run_all(calls)
        self._own.require_alive(items.get(own_key))
        batch.tenants = {tenant.tenant: tenant for tenant in tallies}
        for key in keys.records:
            if (item := items.get(record_key(*key))) is not None:
                record = read_record(item)
                if batch.tenants[key[0]].remembers(record.answered_ms, keys.now_ms):
                    batch.records[key] = record
                else:
                    batch.old_records[key] = record.answered_ms
        for tenant, queue, _ in keys.boxes & keys.updated:
            rev = items.get((f"X#{tenant}", f"{queue}#"))
            batch.secret_revs[tenant, queue] = int(rev["rev"]["N"]) if rev else 0
        granted: list[str] = []
        for key in keys.grants:
            if (item := items.get(grant_key(*key))) is not None:
                batch.grants[key] = item
                granted += [job_pk(key[0], job_id) for job_id in saving.granted_jobs(item)]
        further = [pk for pk in granted if (pk, JOB) not in items]
        if granted:
            items |= self.table.get([*((pk, JOB) for pk in further), *((pk, SPEC) for pk in granted)])
        with_specs = {job_pk(*key) for key in keys.specs}.union(granted)
        wanted_jobs = [((pk, JOB), items[pk, JOB]) for pk in dict.fromkeys([*jobs, *further]) if (pk, JOB) in items]
        read = self.table.read_jobs(dict(wanted_jobs))
        self._renew_unknown(read)
        for job in read:
            self._remember(job, items if job.key[0] in with_specs else None)

    def _renew_unknown(self, jobs: Iterable[JobItem]) -> None:
        """Renew leases of this broker that this process has not granted or renewed. Raises `Moved`: there were some.

        The process before it has, so lately that no index showed them at the start; the deadlines are of its clock.
        """
        unknown = [job.key[0] for job in jobs if is_owned(job.row, self.broker) and job.key[0] not in self._owned]
        if unknown:
            take_over(self.table, self._owned, unknown, self.broker, self.broker, self._batch.keys.now_ms)
            raise Moved

    def _remember(self, job: JobItem, items: Mapping[Key, Item] | None) -> JobItem:
        """Remember a job that was read for the batch, with its spec from these items. Raises `Moved`."""
        if items is not None and not (job.spec_inside or job.row.spec):
            if (spec := items.get((job.key[0], SPEC))) is None:
                raise Moved  # it was removed between the two reads
            job.row.spec = spec["s"]["B"]
        self._batch.jobs[job.row.number] = job
        self._owned.note(job.key[0], job.row, self.broker)
        return job

    def _found(self, keys: Keys) -> Loaded:
        batch = self._batch
        rows = [job.row for _, job in sorted(batch.jobs.items())]
        named = [row for row in rows if (row.tenant, row.job_id) in keys.jobs]
        granted = [row for row in rows if (row.tenant, row.lease_request) in keys.grants and row not in named]
        keys.add_retried(named)
        found = Loaded(jobs=[*named, *granted], records=list(batch.records.values()), damaged=set(self.table.aside))
        for key in keys.queues:
            tallies = batch.tenants[key.tenant]
            own = tallies.bucket(bucket_of(key.queue), self.broker)
            if key.queue in tallies.names() or (own is not None and key.queue in own.modes):
                found.modes[key] = tallies.mode(key.queue, own)
        found.kinds = self._kinds(keys, batch.tenants)
        for tenant in keys.tenants:
            tallies = batch.tenants[tenant]
            found.kinds_of[tenant] = len(tallies.kinds())
            found.usage[tenant] = Usage(tallies.size_bytes, tallies.waiting)
        found.numbers = self._numbers.draw(self._wall_ms(), keys.new_jobs)
        return found

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        empty = {key for key in wanted if not self._batch.tenants[key.tenant].may_be_ready(key, self.broker)}
        search = find_waiting(self.table, self._recent, wanted, self.table.aside, empty, self._batch.keys)
        self.locked_ms = math.ceil(search.again_s * 1_000)
        known = {job.key[0]: job for job in self._batch.jobs.values()}
        found = {pk: known.get(pk, job) for pk, job in search.jobs.items()}
        apart = [pk for pk, job in found.items() if not (job.spec_inside or job.row.spec)]
        specs = self.table.get((pk, SPEC) for pk in apart) if apart else {}
        for job in found.values():
            self._remember(job, specs)
        pks = [job_pk(row.tenant, row.job_id) for row in search.waiting.jobs]
        return search.waiting._replace(jobs=[found[pk].row for pk in pks])

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        pks = self._owned.due(now_ms, limit, self.table.aside)
        jobs = self._read(pks)
        for pk in pks:
            if pk not in jobs:
                self._owned.forget(pk)
        rows = [job.row for job in jobs.values() if job.row.broker == self.broker]
        expired = [row for row in rows if row.deadline_ms is not None and row.deadline_ms <= now_ms]
        delayed = [row for row in rows if row.due_ms is not None and row.due_ms <= now_ms]
        expired.sort(key=lambda row: row.deadline_ms or 0)
        delayed.sort(key=lambda row: row.due_ms or 0)
        fitting: list[JobRow] = []
        counters: set[tuple[str, int | None]] = set()  # buckets, and tenants whose revision may rise
        rows_taken = 0
        for row in expired + [row for row in delayed if row not in expired]:
            counters |= {(row.tenant, bucket_of(row.queue)), (row.tenant, None)}
            rows_taken += LEASE_ROWS if row in expired else DELAY_ROWS
            if rows_taken + len(counters) > ROWS_MAX:
                break
            fitting.append(row)
        return fitting

    def _read(self, pks: Iterable[str]) -> dict[str, JobItem]:
        """Read jobs for the batch, with their specs, unless they are read already."""
        known = {job.key[0]: job for job in self._batch.jobs.values()}
        wanted = list(pks)
        items = self.table.get([(pk, part) for pk in wanted for part in (JOB, SPEC)])
        read = {job.key[0]: job for job in self.table.read_jobs(items)}
        self._renew_unknown(read.values())
        found = {pk: known.get(pk) or read.get(pk) for pk in wanted}
        return {pk: self._remember(job, items) for pk, job in found.items() if job is not None}

    def next_due_ms(self) -> int | None:
        return self._next_due_ms

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        return {row.name: row for row in self._boxes(tenant, queue)}

    def save(self, changes: Changes) -> None:
        wall_s = self._wall_ms() // 1_000
        saving.keep_words(self.table, changes, self._known_words, wall_s)
        transaction = saving.Saving(self.table, self._batch, self.broker, wall_s)
        transaction.drop_records(self._batch.dropped)
        transaction.save(changes, self._outbox.acknowledged)
        self.table.edges.run_all([partial(self.table.put, spec) for spec in transaction.specs])
        transaction.actions += sweeping.actions_for(self.table, self._batch.notes)
        self._actions, self._changes, self._saving = transaction.actions, changes, transaction

    def commit(self) -> None:
        kept, self._kept = self._kept, {}  # they are read again, if the transaction fails
        if self._actions:
            self.table.transact(self._actions, new_token(self.table.edges))
        self._kept = kept
        changes, now_s = self._changes, self.table.edges.steady_s()
        self.ready_seq += changes.ready
        for row in (*changes.added, *(row for _, row in changes.changed)):
            self._owned.note(job_pk(row.tenant, row.job_id), row, self.broker)
            if row.gate:
                self._recent.remove(row, now_s)
            else:
                self._recent.add(row, now_s)
        self._recent.search_again(changes.modes)
        for row in changes.added:
            self._new.add(row, now_s)
        for row in changes.removed:
            self._owned.forget(job_pk(row.tenant, row.job_id))
        if self._saving is not None:
            self._outbox.committed(self._saving.buckets.values(), changes, self._saving.parcels)
            self._keep(self._saving.buckets.values())
        self._next_due_ms = self._owned.next_ms()
        self._actions, self._changes, self._saving, self._batch = [], Changes(), None, Batch()

    def _keep(self, buckets: Iterable[Bucket]) -> None:
        """Keep this broker's tally buckets as they were written: a batch that needs no others' reads none."""
        for bucket in buckets:
            bucket.rev += 1
            self._kept[bucket.tenant, bucket.number] = bucket
        if len(self._kept) > BUCKETS_KEPT_MAX:
            self._kept.clear()

    def reconnect(self) -> None:
        self.ready_seq += 1  # the batch before may be stored, with jobs that are ready
        self._own.require_alive(self.table.get([(BROKERS, self.broker)]).get((BROKERS, self.broker)))

    def forget_places(self, keys: Collection[QueueKey] | None) -> None:
        """Search for jobs that others have made ready in these queues and needs (None: in all) until they must show.

        It may be called in another thread than the rest.
        """
        self._forgotten.append(keys)

    def retire(self) -> None:
        self._own.retire(self.table)

    # --- retention ---

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        pks = sweeping.find_finished(self.table, tenants_of(self.table), before_ms, limit, self.table.aside)
        jobs = self._read(pks).values()
        ended = [job.row for job in jobs if job.row.finished_ms is not None and job.row.finished_ms < before_ms]
        return sweeping.fitting(ended)

    def finished_of(self, tenant: str) -> JobRow | None:
        pks = [pk for _, pk in sweeping.finished_of(self.table, tenant, 1, None, self.table.aside)]
        return next((job.row for job in self._read(pks).values() if job.row.finished_ms is not None), None)

    def store_bytes(self) -> int:
        tallies = self._all_tallies()
        return sum(tenant.size_bytes + ROW_BYTES * tenant.jobs for tenant in tallies)

    def usages(self) -> dict[str, Usage]:
        found = {each.tenant: Usage(each.size_bytes, each.waiting) for each in self._all_tallies()}
        return {tenant: usage for tenant, usage in found.items() if usage.size_bytes or usage.waiting}

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        return sweeping.remove_logs(self.table, self._batch.notes, segments_max, bytes_max)

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        every = self._all_tallies()
        owners = {bucket.broker for tallies in every for bucket in tallies.buckets}
        self._adoption.remove_brokers(answered_before_ms, owners)
        removed, self._batch.dropped = sweeping.old_records(every, answered_before_ms, limit)
        for tallies in every:
            if tallies.tenant in removed:
                self._batch.tenants.setdefault(tallies.tenant, tallies)
        return removed

    # --- the rest ---

    @property
    def size_bytes(self) -> int:
        self._sized = True
        return self._size_bytes

    def work(self) -> int:
        return self.table.rows

    @property
    def damage(self) -> tuple[int, int]:
        return self.table.damage_met, len(self.table.aside)

    def set_aside(self, job_id: str, /) -> None:
        self.table.set_aside(job_id)

    def outbox(self, limit: int) -> list[OutboxEntry]:
        """List lifecycle events that are stored and not yet announced; it may be called in another thread."""
        return self._outbox.take(limit)

    def published(self, entries: Sequence[OutboxEntry]) -> None:
        """Note that lifecycle events were announced; it may be called in another thread."""
        self._outbox.acknowledge(entries)

    def _own_pks(self) -> Iterable[str]:
        return self._owned.all()

    def write_back(self) -> None:
        """Do nothing: the service keeps its own journal."""

    def close(self) -> None:
        self.table.edges.close()
