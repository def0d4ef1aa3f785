"""A simulated PostgreSQL server that several brokers share: tables of dicts, row locks, a log, and a standby behind it.

A transaction is two trips, as `contract.Engine` is used over a network: `first` takes the locks that `Keys` names and
answers with a copy of all that is committed; `second` does again, on what is committed now, what was decided on that
copy. Between the two, other brokers' trips run. A trip is a generator that yields while it has to wait for others.

```
 first ─► locks, rows ─► decided by the broker ─► second ─► log ─► standby has it ─► visible, unlocked, answered
                                                          └── crash: it is visible though the standby has it not
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from airunner.broker.store.contract import Fenced, Identity, Moved
from airunner.broker.store.needs import meets
from airunner.broker.store.rows import BrokerSeen, Changes, Keys, QueueKey
from tests.simulation.sharedrows import Deed, Rows, SharedTables

T = TypeVar("T")
Trip = Generator[None, None, T]
Lock = tuple[str, object]


class Transaction:
    """What one session has begun and not ended."""

    def __init__(self, broker: str, epoch: int) -> None:
        self.broker = broker
        self.epoch = epoch
        self.open = True
        self.logged: int | None = None  # its place in the log: then nothing but a failover undoes it
        self.deeds: list[tuple[Deed, object]] = []  # with what each came to on the copy
        self.changes = Changes()  # for those that watch, as the two that follow
        self.adopted: frozenset[str] = frozenset()
        self.opens = False


class Answer(NamedTuple):
    """What the first trip brings back: a copy of all tables, and which rows are locked."""

    tables: SharedTables
    numbers: Sequence[int] = ()
    due: Sequence[int] = ()
    waiting: Mapping[QueueKey, Sequence[int]] = MappingProxyType({})
    locked: frozenset[QueueKey] = frozenset()
    adopted: frozenset[str] = frozenset()


class Done(NamedTuple):
    """What the second trip brings back."""

    ready_seq: int
    next_due_ms: int | None
    epoch: int


class Server:
    """The primary and its standby. `synchronous`: a commit is answered when the standby has it."""

    synchronous = True

    def __init__(self) -> None:
        self.tables = SharedTables()
        self.on_log: Callable[[], None] = self.replicate  # something waits for the standby
        self.on_commit: Callable[[int, Transaction], None] = lambda _place, _transaction: None
        self._standby = SharedTables()
        self._standby_has = 0
        self._log: list[Transaction] = []
        self._numbers = count(1)
        self._locks: dict[Lock, dict[Transaction, bool]] = {}  # who holds it, and whether alone
        self._blocked: list[tuple[Transaction, Trip[Any], Callable[[Any], None]]] = []
        self._stepping = False

    # --- sessions -------------------------------------------------------------------------------------

    def run(self, transaction: Transaction, trip: Trip[T], answer: Callable[[T | Exception], None]) -> None:
        """Run a trip, now and whenever it may go on; `answer` gets its result, or what it raised."""
        self._blocked.append((transaction, trip, answer))
        self._go_on()

    def _go_on(self) -> None:
        """Step what waits, the first first, until nothing moves."""
        if self._stepping:
            return
        self._stepping = True
        moves = True
        while moves:
            moves = False
            for entry in list(self._blocked):
                if entry in self._blocked and self._step(*entry):
                    self._blocked.remove(entry)
                    moves = True
        self._stepping = False

    def _step(self, transaction: Transaction, trip: Trip[T], answer: Callable[[T | Exception], None]) -> bool:
        """Step a trip; whether it has ended."""
        try:
            next(trip)
        except StopIteration as end:
            answer(end.value)
        except (Moved, Fenced) as error:
            self._end(transaction)
            answer(error)
        else:
            return False
        return True

    def abort(self, transaction: Transaction) -> None:
        """Roll back what a session has begun, and not logged: it is gone, or has done nothing for long."""
        if transaction.open and transaction.logged is None:
            self._blocked = [entry for entry in self._blocked if entry[0] is not transaction]
            self._end(transaction)
            self._go_on()

    def _end(self, transaction: Transaction) -> None:
        transaction.open = False
        for lock in [lock for lock, holders in self._locks.items() if transaction in holders]:
            del self._locks[lock][transaction]
            if not self._locks[lock]:
                del self._locks[lock]

    def _free(self, transaction: Transaction, lock: Lock, *, alone: bool) -> bool:
        """Take a lock, if others let it."""
        holders = self._locks.setdefault(lock, {})
        if any(alone or theirs for other, theirs in holders.items() if other is not transaction):
            return False
        holders[transaction] = alone or holders.get(transaction, False)
        return True

    def _take(self, transaction: Transaction, lock: Lock, *, alone: bool = True) -> Trip[None]:
        while not self._free(transaction, lock, alone=alone):
            yield

    # --- the first trip -------------------------------------------------------------------------------

    def first(self, transaction: Transaction, keys: Keys, *, renews: bool) -> Trip[Answer]:
        """Begin, write the own row, lock and load. Raises `Fenced`."""
        yield from self._take(transaction, ("broker", transaction.broker))
        self.require_unfenced(transaction)
        for key in self.claimed(keys):
            yield from self._take(transaction, key)
        for queue in sorted({*keys.queues, *keys.updated, *self._retried(keys)}):
            if queue in keys.updated or self.reads_modes_locked():
                yield from self._take(transaction, ("queue", queue), alone=queue in keys.updated)
        seen = [seen for seen in sorted(keys.adopted) if self._as_seen(transaction, seen)]
        owners = {*(broker for broker, _, _ in seen), *([transaction.broker] if renews else [])}
        while True:
            numbers = self._named(keys, owners)
            for number in sorted(numbers):
                yield from self._take(transaction, ("job", number))
            if self._named(keys, owners) <= numbers:
                break
        return self._loaded(transaction, keys, seen, renews=renews)

    def require_unfenced(self, transaction: Transaction) -> None:
        row = self.tables.brokers.get(transaction.broker)
        if row is None or row.dead or row.epoch != transaction.epoch:
            raise Fenced(f"broker {transaction.broker} was taken for dead")

    def claimed(self, keys: Keys) -> list[Lock]:
        """Requests that are locked, whether or not there is a row of them."""
        return [*(("record", key) for key in sorted(keys.records)), *(("grant", key) for key in sorted(keys.grants))]

    def reads_modes_locked(self) -> bool:
        """Whether a queue's mode is read under a lock that keeps it."""
        return True

    def _retried(self, keys: Keys) -> set[QueueKey]:
        """Queues of jobs that are to be submitted again; a job never changes its queue."""
        t = self.tables
        jobs = [t.jobs[t.numbers[job_id]] for _, job_id in keys.retried if job_id in t.numbers]
        return {QueueKey(job.tenant, job.queue) for job in jobs}

    def _as_seen(self, transaction: Transaction, seen: BrokerSeen) -> bool:
        """Whether a broker may be adopted: its row is as it was seen, and nobody works on it."""
        row = self.tables.brokers.get(seen.broker)
        as_seen = row is not None and (row.epoch, row.beat) == (seen.epoch, seen.beat)
        return as_seen and self._free(transaction, ("broker", seen.broker), alone=True)

    def _named(self, keys: Keys, owners: set[str]) -> set[int]:
        """Numbers of the jobs that are locked, also by other transactions."""
        t = self.tables
        named = {t.numbers[job_id] for _, job_id in keys.jobs if job_id in t.numbers}
        granted = {job.number for job in t.jobs.values() if (job.tenant, job.lease_request) in keys.grants}
        owned = {job.number for owner in owners for job in Rows(t).of_broker(owner)}
        return named | granted | owned

    def _loaded(self, transaction: Transaction, keys: Keys, seen: list[BrokerSeen], *, renews: bool) -> Answer:
        rows = Rows(self.tables.copy())
        do = Doing(rows, transaction)
        do(Rows.beat, transaction.broker)
        transaction.adopted = frozenset(broker for broker, _, _ in seen)
        for broker in sorted(transaction.adopted):
            do(Rows.adopt, broker, transaction.broker, keys.now_ms)
        if renews:
            do(Rows.renew, transaction.broker, keys.now_ms)
        due = rows.due_of(transaction.broker, keys.now_ms, keys.due) if keys.due else []
        due = [number for number in due if self._free(transaction, ("job", number), alone=True)]
        if keys.sweep is not None:
            ended = [job.number for job in self.tables.jobs.values() if job.finished_ms is not None]
            for number in ended:
                if not self._free(transaction, ("job", number), alone=True):
                    del rows.tables.jobs[number]  # nobody looks at what another works on
        waiting, locked = self._waiting(transaction, keys, len(due))
        return Answer(
            tables=rows.tables,
            numbers=[next(self._numbers) for _ in range(keys.new_jobs)],
            due=due,
            waiting=waiting,
            locked=locked,
            adopted=transaction.adopted,
        )

    def _waiting(
        self, transaction: Transaction, keys: Keys, due: int
    ) -> tuple[dict[QueueKey, list[int]], frozenset[QueueKey]]:
        """Lock waiting jobs that nobody else has locked, as many as may be asked for."""
        wanted: Counter[QueueKey] = Counter()
        for tenant, queue, facts, jobs in keys.wanted:
            kinds = (key for key in self.tables.kinds if key[:2] == (tenant, queue))
            wanted[QueueKey(tenant, queue)] += jobs
            wanted.update({key: jobs for key in kinds if facts is None or meets(facts, key.needs)})
        found: dict[QueueKey, list[int]] = {key: [] for key in wanted}
        locked: set[QueueKey] = set()
        ready = (job for job in self.tables.jobs.values() if not job.gate and job.key in wanted)
        for job in sorted(ready, key=lambda job: (-job.priority, job.number)):
            if len(found[job.key]) == wanted[job.key] + keys.ended + due:
                continue
            if self._free(transaction, ("job", job.number), alone=True):
                found[job.key].append(job.number)
            else:
                locked.add(job.key)
        return found, frozenset(locked)

    # --- the second trip ------------------------------------------------------------------------------

    def second(self, transaction: Transaction, deeds: list[tuple[Deed, object]], changes: Changes) -> Trip[Done]:
        """Write and commit. Raises `Moved`: something is not as it was decided on."""
        assert transaction.open, "an answer to a transaction that has ended"
        tried = Rows(self.tables.copy())
        transaction.deeds += deeds
        transaction.changes = changes
        for deed, came_to in transaction.deeds:
            if deed(tried) != came_to:
                raise Moved
        if self.writes_always() or any(came_to for _, came_to in transaction.deeds):
            self._log.append(transaction)
            transaction.logged = len(self._log)
            self.on_log()
            while self.synchronous and self._standby_has < transaction.logged:
                yield
        self._commit(transaction)
        row = self.tables.brokers[transaction.broker]
        return Done(row.ready_seq, Rows(self.tables).next_due_of(transaction.broker), row.epoch)

    def writes_always(self) -> bool:
        """Whether the opening write makes a commit of a batch that changes nothing else."""
        return True

    def register(self, transaction: Transaction, identity: Identity) -> Trip[Done]:
        """Open the database for a broker."""
        yield from self._take(transaction, ("broker", identity.broker))
        do = Doing(Rows(self.tables.copy()), transaction)
        do(Rows.register, identity)
        transaction.opens = True
        do(Rows.beat, identity.broker)
        return (yield from self.second(transaction, [], Changes()))

    def retire(self, transaction: Transaction) -> Trip[Done]:
        """Mark a broker as dead that ends by itself."""
        yield from self._take(transaction, ("broker", transaction.broker))
        self.require_unfenced(transaction)
        do = Doing(Rows(self.tables.copy()), transaction)
        do(Rows.beat, transaction.broker)
        do(Rows.mark_dead, transaction.broker)
        return (yield from self.second(transaction, [], Changes()))

    def _commit(self, transaction: Transaction) -> None:
        """Show all what was done."""
        _redo(self.tables, transaction)
        self._end(transaction)
        self.on_commit(transaction.logged or 0, transaction)

    # --- what becomes of it ---------------------------------------------------------------------------

    @property
    def behind(self) -> int:
        """How many transactions the standby has not got."""
        return len(self._log) - self._standby_has

    def replicate(self) -> None:
        """The standby gets all that is in the log."""
        for transaction in self._log[self._standby_has :]:
            _redo(self._standby, transaction)
        self._standby_has = len(self._log)
        self._go_on()

    def crash(self) -> None:
        """Every session ends; what is in the log is committed, and what is not is undone."""
        self._blocked.clear()
        self._locks.clear()
        for transaction in self._log:
            if transaction.open:
                self._commit(transaction)

    def fail_over(self) -> int:
        """The standby is the primary now; returns the place in the log behind which all is gone."""
        self._blocked.clear()
        self._locks.clear()
        for transaction in self._log:
            transaction.open = False
        self.tables, self._standby = self._standby, self._standby.copy()  # and has a new standby
        del self._log[self._standby_has :]
        return self._standby_has


class Doing:
    """Does something to the copy of a transaction, and has it done again when that commits."""

    def __init__(self, rows: Rows, transaction: Transaction) -> None:
        self._rows = rows
        self._transaction = transaction

    def __call__(self, deed: Callable[..., T], *given: Any) -> T:
        came_to = deed(self._rows, *given)
        self._transaction.deeds.append((lambda rows: deed(rows, *given), came_to))
        return came_to


def _redo(tables: SharedTables, transaction: Transaction) -> None:
    rows = Rows(tables)
    for deed, _ in transaction.deeds:
        deed(rows)
