"""Replies of the broker: every message from a broker.

A message is one MessagePack map; `type` names its class. Unknown fields are ignored, so a newer broker may add fields;
a message with missing or ill-typed fields cannot be decoded.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from airunner.protocol.blobs import Blob
from airunner.protocol.caches import CacheEntry, CacheSummary
from airunner.protocol.events import EventSegment
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.frames import FIRST
from airunner.protocol.job import Job, JobState, JobSummary
from airunner.protocol.logsearch import LogLine, SearchPlace
from airunner.protocol.message import LeaseRef, Message
from airunner.protocol.names import JobId, Natural, Positive, Text, Token

VISIBILITY_MS_MIN: Final = 1_000
VISIBILITY_MS_MAX: Final = 43_200_000  # 12 hours
VisibilityMs = Annotated[int, Meta(ge=VISIBILITY_MS_MIN, le=VISIBILITY_MS_MAX)]


class Pong(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The broker's reply to a Ping, with the revisions that it serves; a broker of the first revision omits them."""

    revisions: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (FIRST,)
    ready: bool = True  # false: its store is away, so another broker may answer sooner


class JobsEnqueued(Message, frozen=True, kw_only=True):
    """The ids of the submitted jobs, in the order of the request; the jobs are on disk."""

    job_ids: tuple[JobId, ...]


WorkspaceKey = Annotated[bytes, Meta(max_length=64)]
"""Key of a tenant from which its agents make names of workspaces, so that all agents give the same names."""


class JobLease(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Lease of one attempt, which ends `visibility_ms` after its request was sent, unless it is renewed."""

    job_id: JobId
    attempt: Positive
    task_token: Token
    visibility_ms: VisibilityMs
    spec: JobSpec
    sealed: dict[str, bytes] = {}  # the queue's sealed secrets that the job names, unless its environment sets them
    zstd: bool = False  # whether the broker accepts compressed batches of events
    signed: bool = False  # whether it accepts LOG_SIGNED
    workspace_key: WorkspaceKey = b""  # of a job with caches: the name of its workspace is made with it

    @property
    def ref(self) -> LeaseRef:
        """The lease reference that requests about this attempt carry."""
        return LeaseRef(job_id=self.job_id, attempt=self.attempt, task_token=self.task_token)


class JobsLeased(Message, frozen=True, kw_only=True):
    """The granted leases; none if the wait ended first."""

    leases: tuple[JobLease, ...] = ()
    queued: bool = False  # whether the jobs had waited in their queue, and the request was not parked until they came


class Verdict(StrEnum):
    """State of a lease after a heartbeat. `cancel`: the lease is kept, and its agent ends the job and completes it."""

    KEPT = "kept"
    LOST = "lost"
    CANCEL = "cancel"


class LeaseVerdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Verdict on one lease named in an UpdateJob; `terminal`: the size that its terminal is to have, if sent."""

    job_id: JobId
    attempt: Positive
    verdict: Verdict
    terminal: TerminalSize | None = None


class JobsUpdated(Message, frozen=True, kw_only=True):
    """The verdicts on all leases, in the order of the request."""

    leases: tuple[LeaseVerdict, ...]


class BatchStored(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outcome of a batch: `next_index` events are stored, if known; `code` says why the batch was refused."""

    job_id: JobId
    attempt: Positive
    next_index: Natural = 0
    code: str | None = None


class JobCompleted(Message, frozen=True, kw_only=True):
    """The job's state after the completion; SCHEDULED when its retry policy runs it again."""

    state: JobState


class JobEventsPublished(Message, frozen=True, kw_only=True):
    """Outcomes of all batches and of all completions, in the order of the request."""

    batches: tuple[BatchStored, ...] = ()
    completions: tuple[JobCompleted | Refused, ...] = ()


class JobReleasedReply(Message, frozen=True, kw_only=True, tag="JobReleased"):
    """The job waits in its queue again, unless the release ended it: see `ReleaseJob`."""


class JobStdinRead(Message, frozen=True, kw_only=True):
    """Bytes of the standard input; none at its end, which is after `stdin_bytes` of the job's spec."""

    data: bytes


class InputSent(Message, frozen=True, kw_only=True):
    """The job's state; unless it is RUNNING, the input was ignored."""

    state: JobState


class JobCancelled(Message, frozen=True, kw_only=True):
    """The job's state: CANCELLED; RUNNING until its agent has ended it; or the final state that it had before."""

    state: JobState


class QueueMode(StrEnum):
    """Mode of a queue. Running jobs continue in every mode."""

    OPEN = "open"
    PAUSED = "paused"  # accepts jobs, and leases none
    DRAINING = "draining"  # leases jobs, and accepts none


class QueueSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Queue in a list, with the numbers of its waiting and running jobs."""

    queue: str
    mode: QueueMode
    waiting: Natural
    running: Natural
    delayed: Natural = 0  # waiting jobs that are not due yet
    oldest_ms: Natural | None = None  # when the oldest waiting job that is due was submitted; None: no such job
    suitable: Natural | None = None  # jobs, waiting or running, for agents with the request's tags; None: not requested


class QueueUpdated(Message, frozen=True, kw_only=True):
    """The queue's new mode."""

    queue: str
    mode: QueueMode


class SecretSet(Message, frozen=True, kw_only=True):
    """The sealed secret is on disk; later leases of jobs that name it carry it."""


class SecretRemoved(Message, frozen=True, kw_only=True):
    """The sealed secret is removed; running jobs keep its value."""


class SecretSummary(Struct, frozen=True, kw_only=True):
    """Sealed secret in a list; `set_ms` is when it was set, by the broker's clock, in ms since the epoch."""

    queue: str
    name: str
    set_ms: Natural


class Page(Message, frozen=True, kw_only=True):
    """Page of a list; `more` says whether another follows."""

    more: bool = False


class SecretsListed(Page, frozen=True, kw_only=True):
    """A page of sealed secrets."""

    secrets: tuple[SecretSummary, ...]


class QueuesListed(Page, frozen=True, kw_only=True):
    """A page of queues."""

    queues: tuple[QueueSummary, ...]


class AgentSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Agent in a list: it has `slots`, and `leases` jobs run on them."""

    name: str
    slots: Natural
    leases: Natural
    seen_ms: Natural  # its last sign of life, in ms since the epoch; 0: before the broker started
    silent_ms: Natural | None = None  # time since then, by the broker's clock
    version: str = ""
    tags: dict[str, str] = {}
    trouble: str = ""  # why the agent cannot run jobs now
    queues: tuple[str, ...] = ()  # queues from which it takes jobs, as far as the reader may see them; none: not known
    stdin: bool = False  # whether it gives jobs their standard input, as it last stated in a DequeueJob
    knows: tuple[str, ...] = ()  # fields of `MUST_KNOW` that it knows, likewise


class AgentsListed(Page, frozen=True, kw_only=True):
    """A page of agents."""

    agents: tuple[AgentSummary, ...]


class BrokerSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Broker in a list; `leases` counts those of the sender's jobs that it owns."""

    id: str
    endpoint: str  # for requests
    leases: Natural
    version: str = ""
    dead: bool = False  # it has ended, or another broker has adopted its jobs
    asked: bool = False  # the broker that answers
    still_ms: Natural | None = None  # time since its last beat, as the broker that answers has seen it; None: not known
    missed: Natural | None = None  # its batches of which that broker has heard no hint; None: not known


class BrokersListed(Message, frozen=True, kw_only=True):
    """All brokers of the store."""

    brokers: tuple[BrokerSummary, ...]


class ListPlace(Struct, frozen=True, kw_only=True):
    """Position in a list where the broker stopped: request the rest of the page with this `before` and `skip`."""

    before: JobId
    skip: Natural


class JobsListed(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A page of jobs; `more` says whether another follows."""

    jobs: tuple[JobSummary, ...]
    more: bool
    going_on: ListPlace | None = None  # if set, the page may not be full: one request examines a bounded number of jobs
    total: Natural | None = None  # number of the jobs on all pages, if requested
    beyond: bool = False  # whether there are more than `total` jobs, because counting stopped there


class JobFound(Message, frozen=True, kw_only=True):
    """The requested job."""

    job: Job


class JobWatched(Message, frozen=True, kw_only=True):
    """The key that seals a job's live events, and the port of the broker's host that sends them."""

    watch_key: Token
    events_port: Annotated[int, Meta(ge=1, le=65_535)]


class ChangeStream(Struct, frozen=True, kw_only=True):
    """Change stream of the jobs of a queue, or of all queues (`""`): the key that seals its messages."""

    queue: str
    watch_key: Token


class TenantWatched(Message, frozen=True, kw_only=True):
    """Change streams of the tenant's jobs: all jobs in one, or, for a sender bound to queues, one for each queue.

    The keys are served for `valid_ms` at least; new ones follow them.
    """

    streams: tuple[ChangeStream, ...]
    events_port: Annotated[int, Meta(ge=1, le=65_535)]
    valid_ms: Positive


class JobEventsReplayed(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A page of the log: segments in order and without a gap; the next page begins at `next_sequence`."""

    runs: tuple[EventSegment, ...]
    next_sequence: Positive
    last_sequence: Natural  # sequence of the newest event
    finished: bool  # the job has finished: nothing follows its last event
    watched: JobWatched | None = None  # if it was requested; None: a WatchJob says why not


class LogSearched(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Lines that a search has found; with a `place`, the next request goes on there; without, the log ends here.

    At the end of the log of a job that has not finished, unfinished lines are searched too, and `end` is a place before
    them, at which a later request goes on.
    """

    hits: tuple[LogLine, ...] = ()
    place: SearchPlace | None = None
    lines: Natural  # lines counted so far, from the beginning of the log
    finished: bool = False  # the job has finished: nothing follows the end of its log
    end: SearchPlace | None = None


class BlobsMissing(Message, frozen=True, kw_only=True):
    """The blobs are claimed; the broker does not have those at these places in the request's `ids`."""

    missing: tuple[Natural, ...]


class BlobsPut(Message, frozen=True, kw_only=True):
    """The blobs are stored."""


class BlobsGot(Message, frozen=True, kw_only=True):
    """Blobs for the first of the requested ids, at least one."""

    blobs: tuple[Blob, ...]


class CacheFound(Message, frozen=True, kw_only=True):
    """Version of a cache that the job restores; None: there is none, or the job restores no such cache."""

    entry: CacheEntry | None = None


class CachePut(Message, frozen=True, kw_only=True):
    """The version of the cache is stored."""


class CachesListed(Page, frozen=True, kw_only=True):
    """A page of versions of caches."""

    caches: tuple[CacheSummary, ...]


class CachesRemoved(Message, frozen=True, kw_only=True):
    """So many versions of caches were removed."""

    count: Natural


class Nudge(Message, frozen=True, kw_only=True):
    """Hint to send a heartbeat, because a leased job was cancelled; sent without a request, under the id of zeros."""


class Refused(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The request was refused, with the reason; after `retry_ms`, if set, it may be sent again."""

    code: str
    message: Text
    expected_index: Natural | None = None
    retry_ms: Natural | None = None


Reply = (
    Pong
    | JobsEnqueued
    | JobsLeased
    | JobsUpdated
    | JobEventsPublished
    | JobCompleted
    | JobReleasedReply
    | JobStdinRead
    | InputSent
    | JobCancelled
    | QueueUpdated
    | SecretSet
    | SecretRemoved
    | SecretsListed
    | QueuesListed
    | AgentsListed
    | BrokersListed
    | JobsListed
    | JobFound
    | JobEventsReplayed
    | LogSearched
    | JobWatched
    | TenantWatched
    | BlobsMissing
    | BlobsPut
    | BlobsGot
    | CacheFound
    | CachePut
    | CachesListed
    | CachesRemoved
    | Nudge
    | Refused
)
