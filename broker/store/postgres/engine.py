"""PostgreSQL engine: transactions of two round trips, one that locks and loads, one that saves and commits.

```
 begin, renew_all, load ──► BEGIN, opening write, locks, rows      (loading)
 waiting, due, boxes …  ◄── answered from what was loaded
 save, commit           ──► changes, next due instant, COMMIT      (saving)
```
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from airunner.broker.store.contract import Fenced, Identity, Moved, Waiting
from airunner.broker.store.embedded import Unbounded
from airunner.broker.store.postgres import loading, saving
from airunner.broker.store.postgres.batches import Batch, Memory
from airunner.broker.store.postgres.connecting import Link
from airunner.broker.store.postgres.durability import warnings_from
from airunner.broker.store.postgres.opening import open_link
from airunner.broker.store.postgres.pages import PageReader
from airunner.broker.store.postgres.saving import Removals
from airunner.broker.store.postgres.trips import BEGIN_READING, FENCED, Trips
from airunner.broker.store.rows import Changes, JobRow, Keys, Loaded, QueueKey, SecretRow, Usage

ROW_BYTES: Final = 1_024  # bytes that a job and a segment take beside their contents, with their index entries
RETIRE: Final = "UPDATE airunner.broker SET dead = true WHERE broker = %b AND epoch = %b"
NEVER_MS: Final = 2**62  # an instant after all others


def open_postgres(url: str, identity: Identity, now_ms: Callable[[], int]) -> PostgresEngine:
    """Open the store at a URL for a broker. Raises `OperatorError`."""
    link, epoch, ready_seq = open_link(url, identity, now_ms)
    return PostgresEngine(link, identity.broker, epoch, ready_seq)


class PostgresEngine(PageReader, Unbounded):
    """Engine of the broker `broker`, which has opened the store for the `epoch`-th time; see `contract.Engine`."""

    batch_max = 256  # commands in one transaction, which share two round trips
    alone = False
    remote = True

    def __init__(self, link: Link, broker: str, epoch: int, ready_seq: int = 0) -> None:
        super().__init__(Trips(link, broker, epoch))
        self.broker = broker
        self._epoch = epoch
        self.ready_seq = ready_seq
        self.warnings = link.warnings
        self._size_bytes, self._sized = 0, False
        self._memory = Memory()
        self._reading = False
        self._removals = Removals()
        self._changes = Changes()
        self._renewed_ms: int | None = None
        self._next_due_ms: int | None = None
        self._met = 0
        self._forgotten: deque[Collection[QueueKey] | None] = deque()

    # --- a batch ---

    def begin(self) -> None:
        self._batch, self._removals, self._renewed_ms = Batch(), Removals(), None
        self._trips.begin()
        self._memory.tries += 1

    def renew_all(self, now_ms: int) -> None:
        self._renewed_ms = now_ms

    def load(self, keys: Keys) -> Loaded:
        memory = self._memory
        if self._reading:
            return Loaded(jobs=self._named(keys), kinds=self._kinds(keys), damaged=set(memory.aside))
        while self._forgotten:
            memory.places.forget(self._forgotten.popleft())
        if self._renewed_ms is not None or keys.adopted:
            memory.due_from_ms = 0
        loading.ask(self._trips, keys, memory, self._renewed_ms)
        if keys.fleet and self._sized:
            self._trips.add("size", loading.SIZE)
        self._batch = batch = Batch(keys, self._trips.send())
        try:
            found = loading.loaded(batch, memory.aside)
        except BaseException:
            self._trips.undo()
            raise
        self.ready_seq = batch.rows["opening"][0][0]
        for row in batch.rows.get("durability", ()):
            self.warnings = warnings_from(*row)
        for logs_bytes, rows in batch.rows.get("size", ()):
            self._size_bytes, self._sized = logs_bytes + ROW_BYTES * rows, False
        return found

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        return self._batch.waiting(wanted)

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        assert (now_ms, limit) == (self._batch.keys.now_ms, self._batch.keys.due), "other keys were loaded"
        return self._batch.read("expired", list[JobRow]) + self._batch.read("delayed", list[JobRow])

    def next_due_ms(self) -> int | None:
        return self._next_due_ms

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        boxes = self._batch.read("boxes", list[SecretRow]) if self._batch.rows else self._boxes(tenant, queue)
        return {row.name: row for row in boxes if (row.tenant, row.queue) == (tenant, queue)}

    def save(self, changes: Changes) -> None:
        self._changes = changes
        saving.ask(self._trips, changes, self._batch, self._removals)

    def commit(self) -> None:
        changes, memory = self._changes, self._memory
        instants = saving.instants_of(changes)
        memory.due_from_ms = min([memory.due_from_ms, *instants])
        saving.ask_end(self._trips, memory, ready=changes.ready)
        rows = self._trips.send(committing=True)
        self.ready_seq += changes.ready
        self._next_due_ms = min((due_ms for (due_ms,) in rows["next_due"]), default=None)
        memory.due_from_ms = NEVER_MS if self._next_due_ms is None else self._next_due_ms
        memory.tries = 0
        ready, unready = saving.moved(changes)
        self._batch.remember(memory.places, {job.number for job in unready})
        memory.places.lower(ready)
        self._batch = Batch()

    def reconnect(self) -> None:
        self._memory = Memory(aside=self._memory.aside)
        self._trips.reconnect()

    def forget_places(self, keys: Collection[QueueKey] | None) -> None:
        """Search from their head again in these queues and needs (None: in all), where others have made jobs ready.

        It may be called in another thread than the rest.
        """
        self._forgotten.append(keys)

    def retire(self) -> None:
        self._trips.undo()
        self._trips.add("retire", RETIRE, self.broker, self._epoch)
        self._trips.send()

    # --- pages ---

    @contextmanager
    def reading(self) -> Generator[None]:
        self._batch = Batch()
        self._trips.begin(BEGIN_READING)
        self._reading = True
        try:
            yield
            self._trips.add("commit", "COMMIT")
            self._trips.send(committing=True)
        except Moved as moved:  # the reads see one instant, since when only another broker can have changed our row
            raise Fenced(FENCED) from moved
        finally:
            self._reading = False
            self._trips.undo()

    # --- retention ---

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        del before_ms, limit  # as in the keys
        return self._batch.read("finished", list[JobRow])

    def finished_of(self, tenant: str) -> JobRow | None:
        return next((job for job in self._batch.read("finished_of", list[JobRow]) if job.tenant == tenant), None)

    def store_bytes(self) -> int:
        rows: int
        ((rows,),) = self._batch.rows["row_count"] if self._batch.rows else self._rows(loading.ROW_COUNT)
        return ROW_BYTES * rows + sum(usage.size_bytes for usage in self.usages().values())

    def usages(self) -> dict[str, Usage]:
        rows = self._batch.rows["usages"] if self._batch.rows else self._rows(loading.USAGES)
        return {tenant: Usage(*usage) for tenant, *usage in rows}

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        return self._removals.remove_logs(self._batch.logs, segments_max, bytes_max)

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        del answered_before_ms, limit  # as in the keys
        self._removals.brokers = [broker for (broker,) in self._batch.rows.get("old_brokers", ())]
        self._removals.records = [(tenant, request) for tenant, request in self._batch.rows.get("old_records", ())]
        return Counter(tenant for tenant, _ in self._removals.records)

    # --- the rest ---

    @property
    def size_bytes(self) -> int:
        self._sized = True
        return self._size_bytes

    def work(self) -> int:
        return self._trips.rows

    @property
    def damage(self) -> tuple[int, int]:
        return self._met, len(self._memory.aside)

    def set_aside(self, job_id: str) -> None:
        self._met += 1
        self._memory.aside.add(job_id)

    def write_back(self) -> None:
        """Do nothing: the server writes its journal back by itself."""

    def close(self) -> None:
        self._trips.link.close()
