"""Engine port: what a database has to implement to store the queue and the event log. `batch.py` does the rest.

```
 commands ─► keys ─► Engine.load ─► rows ─► lifecycle (pure) ─► Changes ─► Engine.save ─► Engine.commit ─► replies, news
```

An engine loads rows and saves rows. It decides nothing: it knows no state, no event and no request, and reads no clock.

- Everything between `begin` and `commit` is one transaction; nothing of it is stored before `commit` returns.
- For each changed job, `save` checks that its row is still as it was loaded (`JobRow.version`). If it is not, `save`
  raises `Moved`: then nothing of the batch is stored, and the batch is loaded and decided again.
- An engine finds ready, due and ended jobs by `gate`, `deadline_ms`, `due_ms` and `finished_ms` alone; see `JobRow`.
- On a full disk any method may raise `NoSpace`, and nothing of the batch is stored.
- A row that is damaged is left out of the result, and its job's id is in `Loaded.damaged`: the job is out of use until
  a backup is restored. A write (`save`, `renew_all`, `remove_…`) that meets damage records the owner of the row, and
  raises `Moved`; any other method between `begin` and `commit` may do so too. A page that meets damage raises
  `CorruptLog`, and so does `boxes`. For an engine that detects no damage, `damaged` is always empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from airunner.protocol.names import JobId, RequestId, WatchKey
from airunner.protocol.replies import QueueMode

STDIN_SEQUENCE: Final = 0
"""Sequence of the segment with a job's standard input, if the job has one: it stands before event 1 of the log.

Its `events` are the input itself. So it is saved with its job in one transaction, counted, copied and removed as the
log is, and found by `segments` from this sequence on; a replay begins at event 1 and never meets it.
"""


class QueueKey(NamedTuple):
    """Key of a tenant's queue; or, with `needs`, of the queue's jobs with these needs: see the module `needs`."""

    tenant: str
    queue: str
    needs: str = ""


class Version(NamedTuple):
    """Version of a job's row: only a renewal and the end of a delay change none of these fields."""

    state: str
    attempt: int
    next_index: int
    last_sequence: int


class JobRow(Struct, kw_only=True, array_like=True, gc=False):
    """Row of a job; the fields are the columns, in this order. Instants are in ms since the epoch.

    `Engine.load` may omit the `spec` of a job that is not in `Keys.specs`: then it is b"".
    """

    number: int  # order of submission, unique and never changed; 0 until the job is added to a batch
    job_id: JobId
    tenant: str
    queue: str
    needs: str  # tags that the job requires of its agent, as one text
    gate: int  # number of reasons not to lease the job; 0: it may be leased
    state: str
    priority: int
    owner: str
    watch_key: WatchKey
    submitted_ms: int
    due_ms: int | None = None  # when the job's delay ends; None: it is not delayed
    pause_ms: int | None = None  # length of the delay, if it is a pause before a retry
    started_ms: int | None = None  # when the job was first leased
    finished_ms: int | None = None  # when the job ended; None: it has not ended
    deadline_ms: int | None = None  # when the lease ends, or when a job that was never leased expires; None: never
    visibility_ms: int | None = None  # of the last lease; None: the job was never leased
    attempt: int = 0
    retries: int = 0
    agents_lost: int = 0
    max_attempts: int
    last_sequence: int = 0  # sequence of the last event in the job's log
    next_index: int = 0  # index of the attempt's next event
    agent: str | None = None
    token_hash: bytes | None = None
    lease_request: RequestId | None = None  # the DequeueJob that was granted the last attempt
    settled: str | None = None  # how the last attempt ended (`ending.Settled`); None: it has not ended
    cancel_requested_ms: int | None = None
    origin: JobId | None = None
    result: bytes | None = None
    spec: bytes = b""

    @property
    def version(self) -> Version:
        """Version of this row, which `save` compares with the stored one."""
        return Version(self.state, self.attempt, self.next_index, self.last_sequence)

    @property
    def key(self) -> QueueKey:
        """Key of the job's queue and needs."""
        return QueueKey(self.tenant, self.queue, self.needs)


class Segment(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Segment of a job's log: `count` events of one attempt, from `first_sequence` on, as a MessagePack array."""

    number: int  # the job's number
    first_sequence: int
    count: int
    attempt: int
    last_timestamp_ms: int
    events: bytes


class Record(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Idempotency record of an answered request: the job ids in its reply, and a hash of its body."""

    tenant: str
    request_id: RequestId
    body_hash: bytes
    answered_ms: int
    job_ids: str  # separated by spaces


class SecretRow(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Row of a queue's sealed secret."""

    tenant: str
    queue: str
    name: str
    box: bytes
    set_ms: int


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """Usage of a tenant: bytes in the store, and waiting jobs (including delayed ones)."""

    size_bytes: int = 0
    waiting: int = 0


class QueueCounts(NamedTuple):
    """Counts of a queue's jobs: waiting (including delayed ones), delayed, and running."""

    waiting: int = 0
    delayed: int = 0
    running: int = 0


class QueueRow(Struct, frozen=True, kw_only=True, array_like=True):
    """Row of a queue that has jobs or is not open; `oldest_ms`: when its oldest ready job was submitted."""

    name: str
    mode: QueueMode
    waiting: int
    delayed: int
    running: int
    oldest_ms: int | None


class Keys(Struct):
    """Keys of the rows that a batch is decided on, with what is to be loaded for each."""

    jobs: set[tuple[str, str]] = set()  # tenants and job ids: the jobs' rows
    specs: set[tuple[str, str]] = set()  # those of `jobs` whose spec is to be loaded too
    records: set[tuple[str, RequestId]] = set()  # tenants and requests: idempotency records
    grants: set[tuple[str, RequestId]] = set()  # tenants and requests: jobs whose last lease these requests got
    queues: set[QueueKey] = set()  # queues (without needs): their modes
    kinds: set[QueueKey] = set()  # queues (without needs): the needs of their jobs that have not ended
    tenants: set[str] = set()  # tenants: their usage, and how many kinds of jobs they have in all queues

    def add_job(self, tenant: str, job_id: str, *, spec: bool = False) -> None:
        """Add a job's row."""
        self.jobs.add((tenant, job_id))
        if spec:
            self.specs.add((tenant, job_id))

    def add_queue(self, tenant: str, queue: str, *, needing: bool) -> None:
        """Add a queue's mode; `needing`: also the needs of its jobs, and the tenant's usage."""
        self.queues.add(QueueKey(tenant, queue))
        if needing:
            self.kinds.add(QueueKey(tenant, queue))
            self.tenants.add(tenant)


class Loaded(Struct):
    """Loaded rows; rows that do not exist are missing."""

    jobs: list[JobRow] = []  # for `Keys.jobs` and `Keys.grants`
    records: list[Record] = []
    modes: dict[QueueKey, QueueMode] = {}  # by queue (without needs), if the queue is stored
    kinds: dict[QueueKey, int] = {}  # by queue and needs (not empty): how many jobs have not ended
    kinds_of: dict[str, int] = {}  # by tenant: how many kinds it has
    usage: dict[str, Usage] = {}  # by tenant
    next_number: int = 1  # number for the batch's first new job; further jobs get the following numbers
    damaged: set[str] = set()  # ids of all jobs that are set aside, whether `Keys` names them or not
    unreadable: set[tuple[str, RequestId]] = set()  # requests whose record or grants are damaged


class Changes(Struct):
    """Changes of a batch, saved all or none."""

    added: list[JobRow] = []
    changed: list[tuple[JobRow, JobRow]] = []  # each row as it was loaded, and as it is to be saved
    removed: list[JobRow] = []  # jobs whose logs `remove_logs` will remove later
    segments: list[Segment] = []
    facts: list[tuple[str, bytes, int]] = []  # tenant, fact (hash of a pair of metadata), number of the job
    records: list[Record] = []
    modes: dict[QueueKey, QueueMode] = {}
    secrets: list[SecretRow] = []
    secrets_removed: list[tuple[str, str, str]] = []  # tenant, queue, name
    counts: dict[QueueKey, QueueCounts] = {}  # by queue (without needs): what is added; creates the queue's row
    kinds: dict[QueueKey, int] = {}  # by queue and needs (not empty): how many jobs are added
    usage: dict[str, Usage] = {}  # by tenant: what is added


class Moved(Exception):
    """Moved job: its row has changed since it was loaded, or is damaged. The batch is loaded and decided again."""


class JobFilter(Struct, frozen=True, kw_only=True):
    """Filter of a list of jobs: all conditions have to hold; None: any. `facts`: see `Changes.facts`."""

    tenant: str
    queue: str | None = None
    state: str | None = None
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
    def alone(self) -> bool:
        """Whether no other broker writes to the database: then rows may be kept from one batch to the next."""
        ...

    def begin(self) -> None:
        """Begin a transaction; first undo everything since the last `commit`."""
        ...

    def load(self, keys: Keys) -> Loaded:
        """Load the rows for `keys`."""
        ...

    def waiting(self, wanted: Mapping[QueueKey, int]) -> list[JobRow]:
        """Load jobs with `gate` 0, with their specs: for each queue and needs as many as are wanted, if there are.

        Those of a queue and needs are ordered by priority, the highest first, and then by number.
        """
        ...

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        """Load jobs whose `deadline_ms` or `due_ms` has come, with specs: up to `limit` of each, earliest first."""
        ...

    def next_due_ms(self) -> int | None:
        """Find the earliest `deadline_ms` or `due_ms` of all jobs that are not set aside; None: none has one."""
        ...

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        """Load the sealed secrets of a queue, by name."""
        ...

    def save(self, changes: Changes) -> None:
        """Write the changes of a batch. Raises `Moved`: the transaction is undone, and pages show nothing of it."""
        ...

    def renew_all(self, now_ms: int) -> None:
        """Renew all leases: set each `deadline_ms` to `now_ms` + `visibility_ms`, unless that is None.

        Also lower the `due_ms` of each job with a `pause_ms` to `now_ms` + `pause_ms`, if it is later.
        """
        ...

    def commit(self) -> None:
        """End the transaction; all of it is on disk when this returns."""
        ...

    # --- pages: no transaction is needed ---

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        """List matching jobs with a number below `before`, newest first, without the first `skip`."""
        ...

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        """Count the matching jobs, up to `limit`; return the count, and whether there may be more."""
        ...

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        """List queues by name."""
        ...

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        """List secrets by queue and name; the engine may leave out their boxes."""
        ...

    def leases(self, tenant: str) -> dict[str, int]:
        """Count the leased jobs (with a `deadline_ms` and an `agent`) of each agent."""
        ...

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        """Read a job's log lazily, from the segment with event `sequence` on: most readers need only some segments.

        If an instant is given, `events` may be b"" in segments whose last event is older.

        Raises `CorruptLog`.
        """
        ...

    # --- retention ---

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
        """Delete a part of a removed job's log; return the bytes freed by tenant, and whether there was such a log."""
        ...

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        """Remove old idempotency records; return how many were removed, by tenant."""
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
