"""The engine port: what a database has to do to keep the queue and the event log. `batch.py` does the rest.

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
- A row that cannot be read for damage is left out of what is returned, and its job is named in `damaged`: it is then as
  good as gone, until a backup is put back. What is to be written (`save`, `resume`, `remove_…`) and meets damage raises
  `Moved`, once it is noted whose row it is; so may any other method between `begin` and `commit`. A page, or `boxes`,
  that meets damage raises `CorruptLog`. Engines that cannot be damaged never name any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct

from airunner.protocol.names import JobId, RequestId, WatchKey
from airunner.protocol.queues import QueueMode


class QueueKey(NamedTuple):
    """One queue of one tenant; or, with `needs`, those of its jobs that need so much of their agent: see `needs`."""

    tenant: str
    queue: str
    needs: str = ""


class Version(NamedTuple):
    """What a job's row was when it was loaded; every change of a job that a decision rests on moves one of these."""

    state: str
    attempt: int
    next_index: int
    last_sequence: int


class JobRow(Struct, kw_only=True, array_like=True, gc=False):
    """One job as it is stored; the fields are the columns, in this order. Instants are in ms since the epoch.

    The last field may be left out by an engine where `Keys.specs` does not ask for it: then it is b"".
    """

    number: int  # the order of submission, given once; 0 until the job is saved
    job_id: JobId
    tenant: str
    queue: str
    needs: str  # what the job requires of its agent, as one text
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
    deadline_ms: int | None = None  # when the lease ends; None: nobody holds it
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
        """What `save` compares."""
        return Version(self.state, self.attempt, self.next_index, self.last_sequence)

    @property
    def key(self) -> QueueKey:
        """The queue, and what the job needs."""
        return QueueKey(self.tenant, self.queue, self.needs)


class Segment(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A stretch of a job's log: `count` events of one attempt, from `first_sequence` on, as a MessagePack array."""

    number: int  # of the job
    first_sequence: int
    count: int
    attempt: int
    last_timestamp_ms: int
    events: bytes


class Record(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An idempotency record: the jobs that a request was answered with, and a hash of what it asked."""

    tenant: str
    request_id: RequestId
    body_hash: bytes
    answered_ms: int
    job_ids: str  # separated by spaces


class SecretRow(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A sealed secret of a queue."""

    tenant: str
    queue: str
    name: str
    box: bytes
    set_ms: int


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """What a tenant takes: bytes of the store, and jobs that have not begun."""

    size_bytes: int = 0
    waiting: int = 0


class QueueCounts(NamedTuple):
    """Jobs of a queue: those that wait (the delayed ones among them), those that are delayed, and those that run."""

    waiting: int = 0
    delayed: int = 0
    running: int = 0


class QueueRow(Struct, frozen=True, kw_only=True, array_like=True):
    """A queue that has jobs or is not open. `oldest_ms`: when the longest waiting of those that may be leased came."""

    name: str
    mode: QueueMode
    waiting: int
    delayed: int
    running: int
    oldest_ms: int | None


class Keys(Struct):
    """The rows that a batch is decided on."""

    jobs: set[tuple[str, str]] = set()  # tenant, job id
    specs: set[tuple[str, str]] = set()  # those of them whose spec is needed too
    records: set[tuple[str, RequestId]] = set()
    grants: set[tuple[str, RequestId]] = set()  # the jobs last granted to these, with their specs
    queues: set[QueueKey] = set()  # the mode of each, without needs
    kinds: set[QueueKey] = set()  # every need of the jobs in each that have not ended
    tenants: set[str] = set()  # usage, and how many kinds in all queues
    new_jobs: int = 0


class Loaded(Struct):
    """What was found; what is not there is missing."""

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
    """What a batch changes, all of it or nothing."""

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
    """A job's row is not as it was loaded: the batch is to be decided again. `Engine.load` will show how it is."""


class JobFilter(Struct, frozen=True, kw_only=True):
    """The jobs of a tenant that a list has: all that is given has to fit. `facts`: of metadata; `queues` None: any."""

    tenant: str
    queue: str | None = None
    state: str | None = None
    owner: str | None = None
    facts: tuple[bytes, ...] = ()
    queues: frozenset[str] | None = None


class Page(Struct, frozen=True, kw_only=True):
    """Jobs of a list, with their specs, newest first.

    `stopped_at` and `skipped`: where the engine has looked through `looked_max` jobs and the page may not be full, the
    last job it looked at, and how many that fit it has left out.
    """

    jobs: list[JobRow]
    stopped_at: JobId | None = None
    skipped: int = 0


class Oldest(NamedTuple):
    """A job that has ended."""

    number: int
    tenant: str
    job_id: JobId


class Engine(Protocol):
    """A database. Every list is in the order that is named; every `limit` is a number of rows."""

    @property
    def batch_max(self) -> int:
        """How many commands one transaction may hold."""
        ...

    def begin(self) -> None:
        """Begin a transaction; whatever was done since the last `commit` is undone."""
        ...

    def load(self, keys: Keys) -> Loaded:
        """The rows for `keys`."""
        ...

    def waiting(self, wanted: Mapping[QueueKey, int]) -> list[JobRow]:
        """Jobs with `gate` 0, with their specs: of each queue and need as many as are wanted, or all there are.

        By priority, the highest first, and then by number.
        """
        ...

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        """Jobs whose `deadline_ms` or `due_ms` has come, with their specs: up to `limit` of each, oldest first."""
        ...

    def next_due_ms(self) -> int | None:
        """The earliest `deadline_ms` or `due_ms` of all; None: there is none."""
        ...

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        """The sealed secrets of a queue, by name."""
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
        """Jobs with a number below `before`, newest first, without the first `skip`."""
        ...

    def count(self, wanted: JobFilter, limit: int, looked_max: int) -> tuple[int, bool]:
        """How many jobs fit, up to `limit`, and whether there may be more."""
        ...

    def queues(self, tenant: str, after: str, names: frozenset[str] | None, limit: int) -> list[QueueRow]:
        """Queues by name."""
        ...

    def secrets(
        self, tenant: str, queue: str | None, after: tuple[str, str], names: frozenset[str] | None, limit: int
    ) -> list[SecretRow]:
        """Secrets by queue and name; the boxes may be left out."""
        ...

    def leases(self, tenant: str) -> dict[str, int]:
        """How many jobs with a `deadline_ms` each agent has."""
        ...

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        """A job's log, from the segment on that holds `sequence`; one by one: a page ends long before a long log does.

        Where an instant is given, the events of segments whose last event is older may be left out: then they are b"".

        Raises `CorruptLog`.
        """
        ...

    # --- retention ---

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        """Jobs whose `finished_ms` is before that instant, oldest first, with their specs."""
        ...

    def finished_of(self, tenant: str) -> JobRow | None:
        """The tenant's job that ended first, with its spec."""
        ...

    def store_bytes(self) -> int:
        """What the store takes."""
        ...

    def usages(self) -> dict[str, Usage]:
        """What each tenant takes."""
        ...

    def remove_logs(self, segments_max: int, bytes_max: int) -> tuple[dict[str, int], bool]:
        """Remove some of the logs of removed jobs: bytes freed by tenant, and whether there was anything to remove."""
        ...

    def remove_records(self, answered_before_ms: int, limit: int) -> dict[str, int]:
        """Remove old idempotency records: how many by tenant."""
        ...

    def work(self) -> int:
        """How many rows the engine has looked at, read or written since it was opened; a page costs the difference."""
        ...

    @property
    def damage(self) -> tuple[int, int]:
        """How often damage was met since the database was opened, and how many jobs are set aside for it."""
        ...

    def set_aside(self, job_id: str, /) -> None:
        """Note that a job's row was loaded and cannot be decoded: from now on its job is named in `damaged`."""
        ...

    def write_back(self) -> None:
        """Give back what a journal takes of the disk, as far as there is room for that; between two batches."""
        ...

    def close(self) -> None:
        """Let go of the database; it can be opened again."""
        ...
