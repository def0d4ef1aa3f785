"""Commands that change or read the store, and their outcomes: a reply for the sender, news for the broker's actors."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

from airunner.broker.store.quotas import Quotas
from airunner.broker.store.room import Room
from airunner.broker.store.rows import BrokerRow, BrokerSeen, Changes, QueueKey, Segment
from airunner.certs.principal import QueueScope
from airunner.protocol.cacherequests import GetCache, ListCaches, PutCache, RemoveCaches
from airunner.protocol.caches import CacheScope
from airunner.protocol.events import EventSegment
from airunner.protocol.names import JobId, JobName, RequestId, WatchKey
from airunner.protocol.replies import JobEventsReplayed, JobsEnqueued, Reply
from airunner.protocol.requests import (
    EnqueueJob,
    EnqueueJobWithStdin,
    GetBlob,
    HaveBlobs,
    PutBlob,
    RetryJob,
    SearchLog,
    StoreRequest,
)
from airunner.protocol.treerequest import EnqueueJobWithTree

BlobRequest = HaveBlobs | PutBlob | GetBlob | EnqueueJobWithTree
CacheRequest = GetCache | PutCache | ListCaches | RemoveCaches
FOUND_MAX: Final = 64  # jobs that one FindGone looks up
EXPIRE_MAX: Final = 64  # leases, and as many delays, that one Expire ends in some ms; another Expire follows at once


class MintedJob(Struct, frozen=True):
    """Minted id and watch key for a new job: the Gateway draws them, because deciders draw no random numbers."""

    job_id: JobId
    watch_key: WatchKey


class TenantRequest(Struct, frozen=True, kw_only=True):
    """Request of a tenant; `minted` has an element for each new job of an EnqueueJob or RetryJob.

    `room`: below `Room.AMPLE` new jobs and settings are refused with `NoSpace`: the disk is reserved for running jobs.
    At `Room.ENDING` new leases are refused too, and all events except an attempt's last few. `quotas`: a request beyond
    them is refused with `Quota`. `queues`: for the sender, other queues and the jobs in them do not exist.
    `deadline_ms`: of a ReleaseJob by the Gateway, see `News`. `cache_labels`: labels of which jobs may save caches.
    `workspace_key`: of a DequeueJob, for the leases of jobs with caches.
    """

    tenant: str
    request_id: RequestId
    request: StoreRequest
    minted: tuple[MintedJob, ...] = ()
    room: Room = Room.AMPLE
    quotas: Quotas = Quotas()
    queues: QueueScope = None
    deadline_ms: int | None = None
    cache_labels: CacheScope = frozenset()
    workspace_key: bytes = b""


class Expire(Struct, frozen=True):
    """Expiry: ends the leases and delays that are due, at most `EXPIRE_MAX` of each."""


class RenewAll(Struct, frozen=True):
    """Renewal of all leases of this broker, each by a full visibility timeout.

    It follows the broker's start, a step of its clock, and an outage of the store.
    """


class Beat(Struct, frozen=True):
    """Beat of this broker, which shows others that it lives; it reads the rows of all brokers."""


class Adopt(Struct, frozen=True):
    """Adoption of a dead broker's jobs: this broker owns its leases and delays, and gives each a full period."""

    seen: BrokerSeen


class Retain(Struct, frozen=True, kw_only=True):
    """Retention step: removes the oldest finished jobs, with their logs and metadata.

    It removes jobs that finished before `finished_before_ms`. While the store is larger than `store_bytes_max`, it also
    removes jobs of tenants that use more than an equal share of `store_bytes_max`, the largest tenant first: so the
    output of one tenant's running jobs costs no other tenant its finished jobs. Idempotency records from before
    `finished_before_ms` are removed too, if they are at least a day old.
    """

    finished_before_ms: int
    store_bytes_max: int | None = None


class FindGone(Struct, frozen=True):
    """Search for jobs that exist no more, among at most `FOUND_MAX` jobs with claims to blobs; see `News.gone`."""

    tenant: str
    job_ids: tuple[JobId, ...]


class FollowEnd(Struct, frozen=True, kw_only=True):
    """Follow-up of a job's end: unblocks or skips these dependents of it; see `dependencies`."""

    tenant: str
    job_id: JobId
    dependents: tuple[JobId, ...]


class Attach(Struct, frozen=True, kw_only=True):
    """Attachment of a BLOCKED job to these jobs that it waits for; see `dependencies`."""

    tenant: str
    job_id: JobId
    awaited: tuple[JobName, ...]


FollowUp = FollowEnd | Attach
JanitorCommand = Retain | FindGone
Command = TenantRequest | Expire | RenewAll | JanitorCommand | Beat | Adopt | FollowUp


class Appended(Struct, frozen=True, gc=False):
    """Segment that was appended to a job's log, and the watch key that seals its live copy."""

    watch_key: WatchKey
    segment: EventSegment


class WatchKeyFound(Struct, frozen=True):
    """Watch key for the reply to a WatchJob, or for the `page` of a replay that requests it too.

    The Gateway adds the port at which live events are published.
    """

    watch_key: WatchKey
    page: JobEventsReplayed | None = None


class StreamsFound(Struct, frozen=True):
    """Queues for the reply to a WatchTenant, `""` for all together; the Gateway adds their change streams."""

    queues: tuple[str, ...]


class LogFound(Struct, frozen=True):
    """Part of a log for the reply to a SearchLog, which the Searcher makes: segments from the request's place on.

    `last_sequence`, `finished`: of the log, as a replay has them.
    """

    request: SearchLog
    last_sequence: int
    finished: bool
    segments: tuple[Segment, ...]

    @property
    def stored_bytes(self) -> int:
        """Bytes of the segments in memory."""
        return sum(len(segment.events) for segment in self.segments)


class BlobsAsked(Struct, frozen=True):
    """Blobs for the reply to a request about blobs, which the Blobkeeper makes: its lease, if it has one, is valid.

    `reply`: of a request that has made jobs, which may have trees. `queue`: of the job that gets or puts a cache.
    """

    request: BlobRequest | EnqueueJob | EnqueueJobWithStdin | RetryJob | CacheRequest
    reply: JobsEnqueued | None = None
    queue: str = ""


class LeasesCounted(Struct, frozen=True):
    """Lease counts for the reply to a ListAgents, by agent; the Gateway adds the rest from its Roster."""

    by_agent: dict[str, int]


class BrokersFound(Struct, frozen=True):
    """Rows of all brokers for the reply to a ListBrokers; the Gateway adds what the Fleet knows of them."""

    brokers: list[BrokerRow]


StoreReply = Reply | WatchKeyFound | StreamsFound | LogFound | BlobsAsked | LeasesCounted | BrokersFound


class News(Struct, kw_only=True):
    """News of one command for the broker's actors, published once the batch is on disk.

    `ready`: queues and needs with a job that may be leased now. `exhausted`: queues that have no further job for an
    agent with the sender's tags. `locked`: queues and needs of which another broker's batch had locked jobs. `nudged`:
    running jobs whose agents are to send a heartbeat at once. `follow_ups`: commands for one of the next batches.
    `more`: another retention step may remove something.
    `repeated`: there are several brokers, and the leases in the reply were granted before: the agent may have got them
    from another broker. `deadline_ms`: there are several brokers, and the leases in the reply were granted just now,
    until then; one that has another deadline later has reached its agent.
    `gone`: for a FindGone, those of its jobs that do not exist. `brokers`: for a Beat, all brokers. `adopted`: brokers
    whose jobs this one has adopted.
    """

    appended: list[Appended] = []
    ready: set[QueueKey] = set()
    exhausted: set[QueueKey] = set()
    locked: set[QueueKey] = set()
    nudged: list[JobId] = []
    follow_ups: list[FollowUp] = []
    more: bool = False
    repeated: bool = False
    deadline_ms: int | None = None
    gone: tuple[JobId, ...] = ()
    brokers: list[BrokerRow] = []
    adopted: set[str] = set()


class Done(Struct, frozen=True):
    """Outcome of a command: the `reply` to the sender (None: a command of the broker itself), and the news.

    `cost` is the command's work, in units of some 100 µs. It is computed from the rows that were touched, so that it
    does not depend on how busy the machine is.
    """

    reply: StoreReply | None
    news: News
    cost: int = 1


class Timings(Struct):
    """Timings of a batch, for /metrics.

    `waited_ms`: for each job that was leased for the first time, how long it could have been leased before. `ended`:
    for each job that ended and had been leased, its state, and the time since its first lease (ms).
    """

    waited_ms: list[int] = []
    ended: list[tuple[str, int]] = []


class Applied(Struct, frozen=True):
    """Outcomes of a batch's commands, and when the next lease or delay is due (ms since the epoch).

    `wrote`: there is something to commit; a batch of requests for jobs that are not there has nothing. `ready_seq`: see
    `contract.Engine.ready_seq`. `changes`: what it has saved; None: not known.
    """

    done: list[Done]
    next_due_ms: int | None
    wrote: bool = True
    ready_seq: int = 0
    timings: Timings = field(default_factory=Timings)
    changes: Changes | None = None
