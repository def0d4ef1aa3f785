"""Rows of a store, as all engines load and save them; what a batch loads (`Keys`), and what it saves (`Changes`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

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
    """Version of a job's row: a renewal, a size of the terminal, a delay's end and `awaits` change none of these."""

    state: str
    attempt: int
    next_index: int
    last_sequence: int
    unmet: int
    dependents: bytes


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
    due_ms: int | None = None  # when the job's delay ends, or a follow-up is made again; None: neither
    pause_ms: int | None = None  # length of the delay, if it is a pause before a retry or a follow-up
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
    terminal: bytes | None = None  # size that the attempt's terminal is to have (TerminalSize); None: its first one
    origin: JobId | None = None
    broker: str = ""  # the broker that ends the job's lease or delay when it is due; "" with an engine that is `alone`
    unmet: int = 0  # how many of the jobs that it waits for have not ended yet
    awaits: bytes = b""  # those that it is not attached to yet, see `lifecycle.dependencies`; b"" for none
    unblocked_ms: int | None = None  # when there was none left; None: it waits, or has waited for none
    dependents: bytes = b""  # jobs that wait for this one, see `lifecycle.dependencies`; b"" for none
    result: bytes | None = None
    spec: bytes = b""

    @property
    def version(self) -> Version:
        """Version of this row, which `save` compares with the stored one."""
        return Version(self.state, self.attempt, self.next_index, self.last_sequence, self.unmet, self.dependents)

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


class BrokerRow(Struct, frozen=True, kw_only=True, array_like=True):
    """Row of a broker that uses the database.

    `leases`: how many leases it owns, in a list of brokers. In `Loaded.brokers`: more than 0 if the broker is dead and
    still owns a job (a lease, a delay or an expiry) or counts, because nobody has adopted it; 0 for live brokers.
    """

    broker: str
    epoch: int  # rises each time that this broker opens the database
    beat: int  # rises with each of its batches
    ready_seq: int  # number of its batches after which jobs may be leased: see `Changes.ready`
    requests: str  # endpoint of its requests, for other machines
    events: str  # endpoint of its live events, for other machines
    version: str
    dead: bool  # it has ended, or another broker has adopted its jobs
    leases: int = 0


class BrokerSeen(NamedTuple):
    """Sight of a broker: it is adopted only if its row is still like this; a dead one may still own jobs."""

    broker: str
    epoch: int
    beat: int


class Wanted(NamedTuple):
    """Waiting jobs that a request may lease or report as ready, of a queue and of any needs that `facts` meet.

    `facts`: see the module `needs`; None: jobs with any needs.
    """

    tenant: str
    queue: str
    facts: frozenset[str] | None
    jobs: int


class Sweep(NamedTuple):
    """Retention step, as far as an engine prepares it: see the methods under "retention" for the fields."""

    finished_before_ms: int
    jobs_max: int
    segments_max: int  # of all logs in the step
    bytes_max: int
    records_before_ms: int
    records_max: int
    measured: bool  # whether `store_bytes`, `usages` and `finished_of` are needed


class Keys(Struct):
    """Keys of the rows that a batch is decided on, with what is to be loaded for each.

    An engine that several brokers use locks what is said to be locked until the end of the transaction, and waits for
    what another transaction has locked. All do so in one order: records, grants, queues, then jobs by their numbers.
    """

    now_ms: int = 0  # instant of the batch
    jobs: set[tuple[str, str]] = set()  # tenants and job ids: the jobs' rows. Locked
    specs: set[tuple[str, str]] = set()  # those of `jobs` whose spec is to be loaded too
    # Tenants and requests: idempotency records. Locked, also if there is none yet. The function makes the record that
    # is saved if the request is answered now, so that an engine may store it at once and remove it if it is not. Of
    # copies of one request it is the first one's; if that is refused, another one's may be saved instead.
    records: dict[tuple[str, RequestId], Callable[[], Record]] = {}
    grants: set[tuple[str, RequestId]] = set()  # tenants and requests: jobs whose last lease these got. Locked too
    queues: set[QueueKey] = set()  # queues (without needs): their modes. Locked against a change by others
    opened: set[QueueKey] = set()  # those of `queues` to which jobs may be added
    updated: set[QueueKey] = set()  # queues (without needs) whose mode or secrets may be changed: locked for that
    kinds: set[QueueKey] = set()  # queues (without needs): the needs of their jobs that have not ended
    tenants: set[str] = set()  # tenants: their usage, and how many kinds of jobs they have in all queues
    retried: set[tuple[str, str]] = set()  # those of `jobs` whose `stdin` and queue (as in `opened`) are needed too
    boxes: set[QueueKey] = set()  # queues (without needs) whose `boxes` may be asked for
    wanted: list[Wanted] = []  # jobs that may be asked for by `waiting`
    due: int = 0  # most jobs, of each kind, that may be asked for by `due`; 0: it is not asked
    ended: int = (
        0  # further jobs that may end in the batch; each, and each due one, may be first in a queue of `wanted`
    )
    new_jobs: int = 0  # how many jobs the batch may add
    sweep: Sweep | None = None  # the retention step in the batch
    fleet: bool = False  # whether the rows of all brokers are needed
    adopted: set[BrokerSeen] = set()  # brokers to mark as dead, and whose leases and delays this one is to own

    def add_job(self, tenant: str, job_id: str, *, spec: bool = False) -> None:
        """Add a job's row."""
        self.jobs.add((tenant, job_id))
        if spec:
            self.specs.add((tenant, job_id))

    def add_queue(self, tenant: str, queue: str, *, needing: bool) -> None:
        """Add a queue that jobs may be added to; `needing`: also the needs of its jobs, and the tenant's usage."""
        key = QueueKey(tenant, queue)
        self.queues.add(key)
        self.opened.add(key)
        if needing:
            self.kinds.add(key)
            self.tenants.add(tenant)

    def add_retried(self, jobs: list[JobRow]) -> None:
        """Add the queues of those of these loaded jobs that are in `retried`."""
        for job in jobs if self.retried else ():
            if (job.tenant, job.job_id) in self.retried:
                self.add_queue(job.tenant, job.queue, needing=bool(job.needs))


class Loaded(Struct):
    """Loaded rows; rows that do not exist are missing."""

    jobs: list[JobRow] = []  # for `Keys.jobs` and `Keys.grants`
    records: list[Record] = []
    modes: dict[QueueKey, QueueMode] = {}  # by queue (without needs), if the queue is stored
    kinds: dict[QueueKey, int] = {}  # by queue and needs (not empty): how many jobs have not ended
    kinds_of: dict[str, int] = {}  # by tenant: how many kinds it has
    usage: dict[str, Usage] = {}  # by tenant
    numbers: Sequence[int] = ()  # for new jobs, rising; there are at least `Keys.new_jobs`
    damaged: set[str] = set()  # ids of all jobs that are set aside, whether `Keys` names them or not
    unreadable: set[tuple[str, RequestId]] = set()  # requests whose record or grants are damaged
    brokers: list[BrokerRow] = []  # for `Keys.fleet`
    adopted: set[str] = set()  # those of `Keys.adopted` whose row was as seen: they are dead, and own no job now


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
    ready: bool = False  # whether jobs may be leased after the batch: with several brokers, raises `ready_seq`
    lifecycle: list[tuple[int, int]] = []  # numbers of jobs and sequences: events of the broker, if `Engine.announces`


class OutboxEntry(Struct, frozen=True, kw_only=True, array_like=True):
    """Entry of an engine's outbox: events of the broker, from `first_sequence` on, as a segment of the log has them."""

    tenant: str
    job_id: JobId
    queue: str
    first_sequence: int
    events: bytes
