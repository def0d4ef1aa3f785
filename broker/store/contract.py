"""Engine port: what a database has to do to keep the queue and the event log. `batch.py` does the rest.

```
 commands ─► keys ─► Engine.load ─► rows ─► lifecycle (pure) ─► Changes ─► Engine.save ─► Engine.commit ─► replies, news
```

An engine loads rows and saves rows. It decides nothing: it knows no state, no event and no request, and reads no clock.

- Between `begin` and `commit` all is one transaction; nothing of it is stored before `commit` returns.
- `save` checks, for each job that is changed, that its row is as it was loaded (`JobRow.version`), and raises `Moved`
  where it is not; then nothing of the batch is stored, and the batch is decided again.
- What an engine may assume of a row is in the fields of `JobRow` that say so: `gate`, `deadline_ms`, `due_ms`,
  `finished_ms`.
- A full disk raises `NoSpace`, from any method, and nothing of the batch is stored.
- A row that cannot be read for damage is left out of the result, and its job is named in `damaged`: the job is out of
  use until a backup is restored. A write (`save`, `resume`, `remove_…`) that meets damage raises `Moved`, once the
  engine has recorded whose row it is; so may any other method between `begin` and `commit`. A page, or `boxes`, that
  meets damage raises `CorruptLog`. Engines that cannot be damaged never name any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct

from airunner.protocol.names import JobId, RequestId, WatchKey
from airunner.protocol.replies import QueueMode


class QueueKey(NamedTuple):
    """Key of a tenant's queue; or, with `needs`, of its jobs with these needs: see `needs`."""

    tenant: str
    queue: str
    needs: str = ""


class Version(NamedTuple):
    """Version of a job's row when it was loaded; every change that a decision depends on changes one of its fields."""

    state: str
    attempt: int
    next_index: int
    last_sequence: int


class JobRow(Struct, kw_only=True, array_like=True, gc=False):
    """Row of a job; the fields are the columns, in this order. Instants are in ms since the epoch.

    An engine may leave out the last field where `Keys.specs` does not ask for it: then it is b"".
    """

    number: int  # the order of submission, given once; 0 until the job is saved
    job_id: JobId
    tenant: str
    queue: str
    needs: str  # the tags that the job requires of its agent, as one text
    gate: int  # how many reasons there are not to lease it; 0: it may be leased
    state: str
    priority: int
    owner: str
    watch_key: WatchKey
    submitted_ms: int
    due_ms: int | None = None  # when a delay ends; None: there is none
    pause_ms: int | None = None  # how long the pause before a retry is
    started_ms: int | None = None
    finished_ms: int | None = None  # None: it has not ended
    deadline_ms: int | None = None  # when the lease ends; None: it is not leased
    visibility_ms: int | None = None
    attempt: int = 0
    retries: int = 0
    agents_lost: int = 0
    max_attempts: int
    last_sequence: int = 0  # of the log
    next_index: int = 0  # of the attempt's own events
    agent: str | None = None
    token_hash: bytes | None = None
    lease_request: RequestId | None = None  # that the last attempt was granted to
    settled: str | None = None  # how the last attempt ended
    cancel_requested_ms: int | None = None
    origin: JobId | None = None
    result: bytes | None = None
    spec: bytes = b""

    @property
    def version(self) -> Version:
        """Version, which `save` compares."""
        return Version(self.state, self.attempt, self.next_index, self.last_sequence)

    @property
    def key(self) -> QueueKey:
        """Key of the job's queue and needs."""
        return QueueKey(self.tenant, self.queue, self.needs)


class Segment(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Segment of a job's log: `count` events of one attempt, from `first_sequence` on, as a MessagePack array."""

    number: int  # of the job
    first_sequence: int
    count: int
    attempt: int
    last_timestamp_ms: int
    events: bytes


class Record(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Idempotency record: the jobs of a request's answer, and a hash of its body."""

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
    """Usage of a tenant: bytes in the store, and jobs that have not begun."""

    size_bytes: int = 0
    waiting: int = 0


class QueueCounts(NamedTuple):
    """Counts of a queue's jobs: waiting (including the delayed), delayed, and running."""

    waiting: int = 0
    delayed: int = 0
    running: int = 0


class QueueRow(Struct, frozen=True, kw_only=True, array_like=True):
    """Row of a queue that has jobs or is not open. `oldest_ms`: when its oldest ready job was submitted."""

    name: str
    mode: QueueMode
    waiting: int
    delayed: int
    running: int
    oldest_ms: int | None


class Keys(Struct):
    """Keys of the rows that a batch is decided on."""

    jobs: set[tuple[str, str]] = set()  # tenant, job id
    specs: set[tuple[str, str]] = set()  # those of them whose spec is needed too
    records: set[tuple[str, RequestId]] = set()
    grants: set[tuple[str, RequestId]] = set()  # the jobs last granted to these, with their specs
    queues: set[QueueKey] = set()  # the mode of each, without needs
    kinds: set[QueueKey] = set()  # every need of the jobs in each that have not ended
    tenants: set[str] = set()  # usage, and how many kinds in all queues

    def add_job(self, tenant: str, job_id: str, *, spec: bool = False) -> None:
        """Add a job's row."""
        self.jobs.add((tenant, job_id))
        if spec:
            self.specs.add((tenant, job_id))

    def add_queue(self, tenant: str, queue: str, *, needing: bool) -> None:
        """Add a queue's mode; and the kinds of its jobs, where a job is added or each kind is looked at."""
        self.queues.add(QueueKey(tenant, queue))
        if needing:
            self.kinds.add(QueueKey(tenant, queue))
            self.tenants.add(tenant)


class Loaded(Struct):
    """Loaded rows; rows that do not exist are missing."""

    jobs: list[JobRow] = []  # also those that were found by their grants
    records: list[Record] = []
    modes: dict[QueueKey, QueueMode] = {}  # of queues that are known
    kinds: dict[QueueKey, int] = {}  # with needs, and how many jobs of each have not ended
    kinds_of: dict[str, int] = {}  # how many kinds each tenant has
    usage: dict[str, Usage] = {}
    next_number: int = 1  # of the first new job; the others follow
    damaged: set[str] = set()  # ids of jobs that are set aside, new ones and unasked ones too
    unreadable: set[tuple[str, RequestId]] = set()  # requests whose record or grants are damaged


class Changes(Struct):
    """Changes of a batch, saved all or none."""

    added: list[JobRow] = []
    changed: list[tuple[JobRow, JobRow]] = []  # as it was loaded, and as it is to be
    removed: list[JobRow] = []  # their logs are to be removed later: see `remove_logs`
    segments: list[Segment] = []
    facts: list[tuple[str, bytes, int]] = []  # tenant, fact of metadata, number of the job
    records: list[Record] = []
    modes: dict[QueueKey, QueueMode] = {}
    secrets: list[SecretRow] = []
    secrets_removed: list[tuple[str, str, str]] = []  # tenant, queue, name
    counts: dict[QueueKey, QueueCounts] = {}  # without needs; added to each, 0 to new ones too
    kinds: dict[QueueKey, int] = {}  # with needs; what is added to each
    usage: dict[str, Usage] = {}  # what is added to each


class Moved(Exception):
    """Moved job: its row is not as it was loaded, so the batch has to be loaded and decided again."""


class JobFilter(Struct, frozen=True, kw_only=True):
    """Filter of a list of jobs: all conditions have to hold. `facts`: of metadata; `queues` None: any."""

    tenant: str
    queue: str | None = None
    state: str | None = None
    owner: str | None = None
    facts: tuple[bytes, ...] = ()
    queues: frozenset[str] | None = None


class Page(Struct, frozen=True, kw_only=True):
    """Page of a list of jobs, with their specs, newest first.

    `stopped_at` and `skipped`: where the engine stopped after `looked_max` jobs and the page may not be full, the last
    job it looked at, and how many matching jobs it has skipped.
    """

    jobs: list[JobRow]
    stopped_at: JobId | None = None
    skipped: int = 0


class Oldest(NamedTuple):
    """Oldest job that has ended."""

    number: int
    tenant: str
    job_id: JobId


class Engine(Protocol):
    """Engine of a database. Every list is in the order that is named; every `limit` is a number of rows."""

    @property
    def batch_max(self) -> int:
        """Maximum commands in a transaction."""
        ...

    def begin(self) -> None:
        """Begin a transaction; undo everything since the last `commit`."""
        ...

    def load(self, keys: Keys) -> Loaded:
        """Load the rows for `keys`."""
        ...

    def waiting(self, wanted: Mapping[QueueKey, int]) -> list[JobRow]:
        """Load jobs with `gate` 0, with their specs: of each queue and need as many as are wanted, or all there are.

        They are ordered by priority, the highest first, and then by number.
        """
        ...

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        """Load jobs whose `deadline_ms` or `due_ms` has come, with their specs: up to `limit` of each, oldest first."""
        ...

    def next_due_ms(self) -> int | None:
        """Find the earliest `deadline_ms` or `due_ms` of all; None: there is none."""
        ...

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        """Load the sealed secrets of a queue, by name."""
        ...

    def save(self, changes: Changes) -> None:
        """Write a batch. Raises `Moved`: then the transaction is undone, and pages show nothing of it."""
        ...

    def resume(self, now_ms: int) -> None:
        """Set each `deadline_ms` to `now_ms` + `visibility_ms`.

        And each `due_ms` of a job with a `pause_ms` to at most `now_ms` + `pause_ms`.
        """
        ...

    def commit(self) -> None:
        """End the transaction; all of it is on disk when this returns."""
        ...

    # --- pages: no transaction is needed ---

    def jobs(self, wanted: JobFilter, before: int | None, skip: int, limit: int, looked_max: int) -> Page:
        """List jobs with a number below `before`, newest first, without the first `skip`."""
        ...

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        """Count the matching jobs, up to `limit`, and tell whether there may be more."""
        ...

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        """List queues by name."""
        ...

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        """List secrets by queue and name; the boxes may be left out."""
        ...

    def leases(self, tenant: str) -> dict[str, int]:
        """Count the jobs with a `deadline_ms` of each agent."""
        ...

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        """Read a job's log lazily, from the segment that holds `sequence`: a page ends long before a long log does.

        Where an instant is given, the events of segments whose last event is older may be left out: then they are b"".

        Raises `CorruptLog`.
        """
        ...

    # --- retention ---

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        """List jobs whose `finished_ms` is before that instant, oldest first, with their specs."""
        ...

    def finished_of(self, tenant: str) -> JobRow | None:
        """Find the tenant's job that ended first, with its spec."""
        ...

    def store_bytes(self) -> int:
        """Measure the size of the store."""
        ...

    def usages(self) -> dict[str, Usage]:
        """Load the usage of each tenant."""
        ...

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        """Remove part of removed jobs' logs; return bytes freed by tenant, and whether there was anything to remove."""
        ...

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        """Remove old idempotency records; return how many, by tenant."""
        ...

    def work(self) -> int:
        """Work since the engine was opened: rows looked at, read or written; a page costs the difference."""
        ...

    @property
    def damage(self) -> tuple[int, int]:
        """Damage since the database was opened: how often it was met, and how many jobs are set aside."""
        ...

    def set_aside(self, job_id: str, /) -> None:
        """Set a job aside whose row was loaded but cannot be decoded: from now on it is named in `damaged`."""
        ...

    def write_back(self) -> None:
        """Write the journal back, as far as there is room, to free its disk space; between two batches."""
        ...

    def close(self) -> None:
        """Close the database; it can be opened again."""
        ...
