"""Engine port: what a database has to implement to store the queue and the event log. `batch.py` does the rest.

```
 commands ─► keys ─► Engine.load ─► rows ─► lifecycle (pure) ─► Changes ─► Engine.save ─► Engine.commit ─► replies, news
```

An engine loads rows and saves rows. It decides nothing: it knows no state, no event and no request, and reads no clock.

- `Keys` names all rows on which a batch may be decided. So an engine over a network loads all of them in one trip,
  in `load`, and answers `waiting`, `due`, `boxes`, `finished` and so on from what it has loaded. An engine in this
  process reads them when it is asked. Only rows that `Keys` names may be asked for between `load` and `save`.
- Everything between `begin` and `commit` is one transaction; nothing of it is stored before `commit` returns.
- For each changed job, `save` checks that its row is still as it was loaded (`JobRow.version`). If it is not, `save`
  raises `Moved`: then nothing of the batch is stored, and the batch is loaded and decided again.
- An engine finds ready, due and ended jobs by `gate`, `deadline_ms`, `due_ms` and `finished_ms` alone; see `JobRow`.
- Several brokers may use one database (`alone` is false). Then an engine serialises what their batches do to a job, a
  request, a queue's mode or secrets, as `Keys` says for each.
- An engine over a network (`remote`) raises `StoreAway`, `StoreUnsure` and `Fenced`; `reconnect` follows the first two.
- On a full disk any method may raise `NoSpace`, and nothing of the batch is stored.
- If its transactions are bounded (`rows_max`, `bytes_max`), a batch is divided into `portions`, and each is loaded,
  decided and saved by itself. `due` and `finished` then return only as many jobs as can end in one transaction.
- A row that is damaged is left out of the result, and its job's id is in `Loaded.damaged`: the job is out of use until
  a backup is restored. A write (`save`, `renew_all`, `remove_…`) that meets damage records the owner of the row, and
  raises `Moved`; any other method between `begin` and `commit` may do so too. A page that meets damage raises
  `CorruptLog`, and so does `boxes`. For an engine that detects no damage, `damaged` is always empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from airunner.broker.store.rows import (
    BrokerRow,
    Changes,
    JobRow,
    Keys,
    Loaded,
    OutboxEntry,
    QueueCounts,
    QueueKey,
    QueueRow,
    SecretRow,
    Segment,
    Usage,
)
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import JobId


class Waiting(NamedTuple):
    """Waiting jobs, as `Engine.waiting` finds them.

    `more`: queues and needs that may have more jobs, though fewer than wanted were found. `locked`: the same, but they
    are locked by another broker's batch: to ask again at once would find no more.
    """

    jobs: list[JobRow]
    more: frozenset[QueueKey] = frozenset()
    locked: frozenset[QueueKey] = frozenset()


class StoreAway(Exception):
    """Store that cannot be reached: nothing of the batch is stored. `reconnect`, and apply the batch again."""


class StoreUnsure(StoreAway):
    """Store that was lost during a commit: the batch is stored, or not. `reconnect`, and apply the batch again.

    Each request is idempotent, so those of a stored batch get their first replies; what the batch published is lost.
    """


class Fenced(OperatorError):
    """Broker that another broker has taken for dead: it may not go on, and is started again by its supervisor."""


class Moved(Exception):
    """Moved job: its row has changed since it was loaded, or is damaged. The batch is loaded and decided again."""


class Identity(Struct, frozen=True, kw_only=True):
    """Identity with which a broker opens a database of several brokers: its row there.

    `broker`: its id, see `broker.identity`. `fleet`: a hash of the public key that all brokers of the database share.
    `requests`, `events`: endpoints for other machines, with their real ports: both sockets are bound before.
    """

    broker: str
    fleet: str
    requests: str
    events: str


ABOVE_ALL_CHARACTERS: Final = "\U0010ffff"  # of the ids with a prefix, none is as high as the prefix and this


class JobFilter(Struct, frozen=True, kw_only=True):
    """Filter of a list of jobs: all conditions have to hold; None: any. `facts`: see `Changes.facts`.

    A `prefix` has at least `PREFIX_CHARS_MIN` characters of job ids, so that few jobs have it.
    """

    tenant: str
    prefix: str | None = None
    queue: str | None = None
    states: tuple[str, ...] = ()  # empty: any
    owner: str | None = None
    facts: tuple[bytes, ...] = ()
    queues: frozenset[str] | None = None


class Page(Struct, frozen=True, kw_only=True):
    """Page of a list of jobs, with their specs, newest first.

    If the engine stopped after `looked_max` jobs, the page may not be full: then `stopped_at` is the last job that it
    looked at, and `skipped` is how many matching jobs it has skipped.
    """

    jobs: list[JobRow]
    stopped_at: JobId | None = None
    skipped: int = 0


class Engine(Protocol):
    """Engine of a database. Lists are in the order that a docstring names; every `limit` is a number of rows."""

    @property
    def batch_max(self) -> int:
        """Maximum commands in a transaction."""
        ...

    @property
    def rows_max(self) -> int | None:
        """Maximum rows in a transaction, as `extents` counts them; None: any number."""
        ...

    @property
    def bytes_max(self) -> int | None:
        """Maximum bytes in a transaction, as `extents` counts them; None if and only if `rows_max` is."""
        ...

    @property
    def locked_ms(self) -> int:
        """For how long not to look again for jobs that the last `waiting` has reported as locked, at least."""
        ...

    @property
    def announces(self) -> bool:
        """Whether the engine publishes what happens to jobs: then it needs `Changes.lifecycle`."""
        ...

    def outbox(self, limit: int) -> list[OutboxEntry]:
        """Return events of `Changes.lifecycle` that are not `published`, the oldest first. Raises `StoreAway`.

        They include what an adopted broker has left, and those of a removed job without `events`. Another thread may
        apply a batch meanwhile, and during `published`.
        """
        ...

    def published(self, entries: Sequence[OutboxEntry]) -> None:
        """Note that entries were sent: `outbox` returns them no more, and they are dropped. Raises `StoreAway`."""
        ...

    @property
    def alone(self) -> bool:
        """Whether no other broker writes to the database: then rows may be kept from one batch to the next."""
        ...

    @property
    def remote(self) -> bool:
        """Whether the database is reached over a network: then batches and reads run outside of the event loop."""
        ...

    def steady_ms(self) -> int:
        """Read a clock that is never set, in ms: a batch is decided as much later than it was begun as this shows.

        If loading takes long, another broker may renew a lease meanwhile that this batch is to end or take over: its
        new deadline has to follow the renewal. Read only if transactions are bounded.
        """
        ...

    @property
    def broker(self) -> str:
        """Id of this broker, for `JobRow.broker`; "" for an engine that is `alone`."""
        ...

    def begin(self) -> None:
        """Begin a transaction; first undo everything since the last `commit`."""
        ...

    def load(self, keys: Keys) -> Loaded:
        """Load the rows for `keys`. Raises, with several brokers: `Fenced`, `StoreAway`, `Moved`."""
        ...

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        """Load jobs with `gate` 0, with their specs: for each queue and needs as many as are wanted, if there are.

        Those of a queue and needs are ordered by priority, the highest first, and then by number.
        """
        ...

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        """Load this broker's jobs whose `deadline_ms` or `due_ms` has come, with specs: up to `limit` of each.

        The earliest are first. If another broker's batch has locked a job, the engine may leave it out.
        """
        ...

    def next_due_ms(self) -> int | None:
        """Find the earliest `deadline_ms` or `due_ms` of this broker's jobs that are not set aside; None: none has one.

        If `remote`: as it was at the end of the last committed batch.
        """
        ...

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        """Load the sealed secrets of a queue, by name."""
        ...

    def save(self, changes: Changes) -> None:
        """Write the changes of a batch. Raises `Moved`: the transaction is undone, and pages show nothing of it."""
        ...

    def renew_all(self, now_ms: int) -> None:
        """Renew all of this broker's leases: set `deadline_ms` to `now_ms` + `visibility_ms`, unless that is None.

        Also lower the `due_ms` of each job with a `pause_ms` to `now_ms` + `pause_ms`, if it is later.
        """
        ...

    def commit(self) -> None:
        """End the transaction; all of it is on disk when this returns.

        Raises, if `remote`: `Moved`; `StoreUnsure`: whether it is on disk is not known.
        """
        ...

    @property
    def ready_seq(self) -> int:
        """Number of the last committed batch of this broker with `Changes.ready`; 0 for an engine that is `alone`."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What of the database's settings may lose acknowledged work, as it was when the brokers were last loaded."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes of the store as `store_bytes` counts them; 0 if it is embedded.

        They are of a beat in the past; reading this has the next beat count them again.
        """
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Begin and end reads of pages; what they show is not lost afterwards, even if the database fails over."""
        ...

    def reconnect(self) -> None:
        """Connect again after `StoreAway`. Raises `StoreAway`, `Fenced`, `OperatorError`."""
        ...

    def forget_places(self, keys: Collection[QueueKey] | None) -> None:
        """Look for waiting jobs from the head of these queues and needs again (None: of all): others made some ready.

        An engine may remember up to where no job waits. It may be called while another thread applies a batch.
        """
        ...

    def retire(self) -> None:
        """Mark this broker as dead, because it ends: others adopt its jobs at once. Raises `StoreAway`."""
        ...

    # --- pages, within `reading` ---

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        """List matching jobs with a number below `before`, newest first, without the first `skip`."""
        ...

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        """Count the matching jobs, up to `limit`; return the count, and whether there may be more."""
        ...

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        """List queues by name."""
        ...

    def ready(self, tenant: str, limit: int, counted_max: int) -> dict[QueueKey, int]:
        """Count the jobs with `gate` 0, up to `counted_max` each, of `limit` queues and needs, the first by name.

        They are queues (without needs) that are stored, and queues and needs with a job that has not ended.
        """
        ...

    def totals(self, queues_max: int) -> QueueCounts:
        """Sum the counts of all queues of all tenants; if there are more than `queues_max`, only of so many."""
        ...

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        """List secrets by queue and name; the engine may leave out their boxes."""
        ...

    def leases(self, tenant: str) -> dict[str, int]:
        """Count the leased jobs (with a `deadline_ms` and an `agent`) of each agent."""
        ...

    def brokers(self, tenant: str, queues: frozenset[str] | None) -> list[BrokerRow]:
        """List all brokers by id, each with how many leases of this tenant's jobs (in these queues) it owns."""
        ...

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        """Read a job's log lazily, from the segment with event `sequence` on: most readers need only some segments.

        If an instant is given, `events` may be b"" in segments whose last event is older.

        Raises `CorruptLog`.
        """
        ...

    # --- retention, as `Keys.sweep` says ---

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        """List jobs whose `finished_ms` is below `before_ms`, the earliest first, with their specs."""
        ...

    def finished_of(self, tenant: str) -> JobRow | None:
        """Find the tenant's job that ended first, with its spec; None: no job has ended."""
        ...

    def store_bytes(self) -> int:
        """Measure the bytes that the store uses, without free space inside it."""
        ...

    def usages(self) -> dict[str, Usage]:
        """Load the usage of each tenant."""
        ...

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        """Delete a part of removed jobs' logs; return the bytes freed by tenant, and whether there was such a log."""
        ...

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        """Remove old idempotency records; return how many were removed, by tenant.

        Also remove dead brokers that were opened as long ago and own nothing, up to `limit` of them.
        """
        ...

    def work(self) -> int:
        """Count the work since the engine was opened, in rows searched, read or written."""
        ...

    @property
    def damage(self) -> tuple[int, int]:
        """Damage since the database was opened: how many errors were met, and how many jobs are set aside."""
        ...

    def set_aside(self, job_id: str, /) -> None:
        """Set aside a job whose row was loaded but cannot be decoded: from now on its id is in `Loaded.damaged`."""
        ...

    def write_back(self) -> None:
        """Write the journal back, as far as there is room, to reuse its disk space; only between two batches."""
        ...

    def close(self) -> None:
        """Close the database; it can be opened again."""
        ...
