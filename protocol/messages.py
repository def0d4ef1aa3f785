"""Every message that crosses the wire, as one closed union each way.

A message is one MessagePack map; `type` names it. Unknown fields are ignored, so a newer peer may say
more; missing or ill-typed ones are a `bad-request`. Every request is idempotent: sent again under the
same request id, it is answered as it was the first time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Generic, TypeVar, get_args

from msgspec import Meta, Struct

from airunner.protocol.events import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, KIND_CHARS_MAX, EventRun
from airunner.protocol.fields import JobSpec, Tags
from airunner.protocol.frames import FIRST
from airunner.protocol.job import Job, JobState, JobSummary, Result, check_new
from airunner.protocol.names import (
    NAME_CHARS_MAX,
    Argument,
    JobId,
    JobName,
    Label,
    Name,
    Natural,
    Positive,
    Seed,
    Text,
    Token,
    Variable,
)
from airunner.protocol.queues import QueueMode, QueueSummary

ENQUEUE_MAX: Final = 64
ENQUEUE_METADATA_MAX: Final = 1_024  # of all jobs in one request: each piece is a row of an index
QUEUES_MAX: Final = 64
SLOTS_MAX: Final = 16  # leases in one reply; with SPEC_BYTES_MAX they fit one frame
LEASES_MAX: Final = 1_024
BATCHES_MAX: Final = 64
BOX_BYTES_MAX: Final = 33_280  # of one sealed secret: 32 KiB of value, its names and its seal
BOXES_BYTES_MAX: Final = 49_152  # of all in one queue: what 16 leases carry fits one frame, with their jobs
COMPLETIONS_MAX: Final = 64
LAST_BYTES_MAX: Final = 65_536  # of events that come together with their attempt's end: taken when little else is
AGENT_SLOTS_MAX: Final = 1_024
PAGE_SIZE_MAX: Final = 100
PAGE_MAX: Final = 10_000
FILTERS_MAX: Final = 8  # pieces of metadata asked for at once
REPLAY_BYTES_MAX: Final = 1_048_576  # a page stops before the run that goes beyond this, or less where that is asked
KINDS_MAX: Final = 32  # asked for at once; there are fewer
REPLAY_RUNS_MAX: Final = 1_024  # runs in a page: their own fields take room too
WAIT_MS_MAX: Final = 30_000
VISIBILITY_MS_MIN: Final = 1_000
VISIBILITY_MS_MAX: Final = 43_200_000  # 12 hours

AgentSlots = Annotated[int, Meta(ge=1, le=AGENT_SLOTS_MAX)]
Version = Annotated[str, Meta(max_length=NAME_CHARS_MAX, pattern=r"^[ -~]*\Z")]  # it is shown to people
EventKind = Annotated[str, Meta(min_length=1, max_length=KIND_CHARS_MAX)]
VisibilityMs = Annotated[int, Meta(ge=VISIBILITY_MS_MIN, le=VISIBILITY_MS_MAX)]


class Message(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What every message is; its tag is its class's name."""


class LeaseRef(Struct, frozen=True, kw_only=True):
    """A lease reference: one attempt, and the proof that it is the sender's."""

    job_id: JobName
    attempt: Positive
    task_token: Token


# --- replies ------------------------------------------------------------------------------------------


class Pong(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The broker is there, and serves these revisions of the protocol; brokers of the first do not say so."""

    revisions: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (FIRST,)


class JobsEnqueued(Message, frozen=True, kw_only=True):
    """The jobs are on disk, in the order in which they were asked for."""

    job_ids: tuple[JobId, ...]


class JobLease(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attempt is yours until `visibility_ms` from when you asked.

    `sealed` has the boxes of the secrets that the job names and the queue has; those in its environment excepted.
    """

    job_id: JobId
    attempt: Positive
    task_token: Token
    visibility_ms: VisibilityMs
    spec: JobSpec
    sealed: dict[str, bytes] = {}

    @property
    def ref(self) -> LeaseRef:
        """The lease reference that requests about this attempt carry."""
        return LeaseRef(job_id=self.job_id, attempt=self.attempt, task_token=self.task_token)


class JobsLeased(Message, frozen=True, kw_only=True):
    """What was granted; nothing, when the wait ended first."""

    leases: tuple[JobLease, ...] = ()


class Verdict(StrEnum):
    """What became of a lease. `cancel`: it is kept, for its holder to end the job and to say so."""

    KEPT = "kept"
    LOST = "lost"
    CANCEL = "cancel"


class LeaseVerdict(Struct, frozen=True, kw_only=True):
    """What became of one lease named in an UpdateJob."""

    job_id: JobId
    attempt: Positive
    verdict: Verdict


class JobsUpdated(Message, frozen=True, kw_only=True):
    """One verdict for each lease, in the order asked."""

    leases: tuple[LeaseVerdict, ...]


class BatchStored(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`next_index` events of the attempt are stored; `code` says why a batch was refused."""

    job_id: JobId
    attempt: Positive
    next_index: Natural = 0
    code: str | None = None


class JobCompleted(Message, frozen=True, kw_only=True):
    """The job has ended in `state`; SCHEDULED where its retry policy will have it run again."""

    state: JobState


class JobEventsPublished(Message, frozen=True, kw_only=True):
    """One outcome for each batch, and one for each completion, in the order sent."""

    batches: tuple[BatchStored, ...] = ()
    completions: tuple[JobCompleted | Refused, ...] = ()


class JobReleasedReply(Message, frozen=True, kw_only=True, tag="JobReleased"):
    """The job waits again."""


class JobCancelled(Message, frozen=True, kw_only=True):
    """How the job stands now: CANCELLED; RUNNING until its agent has ended it; or as it had ended before."""

    state: JobState


class QueueUpdated(Message, frozen=True, kw_only=True):
    """The queue is in this mode."""

    queue: str
    mode: QueueMode


class SecretSet(Message, frozen=True, kw_only=True):
    """The sealed value is on disk; leases from here on bring it."""


class SecretRemoved(Message, frozen=True, kw_only=True):
    """The sealed value is there no more; running jobs keep what they were given."""


class SecretSummary(Struct, frozen=True, kw_only=True):
    """One sealed secret; `set_ms` is when, by the broker's clock, in ms since the epoch."""

    queue: str
    name: str
    set_ms: Natural


class SecretsListed(Message, frozen=True, kw_only=True):
    """A page of sealed secrets; `more` says whether another follows."""

    secrets: tuple[SecretSummary, ...]
    more: bool = False


class QueuesListed(Message, frozen=True, kw_only=True):
    """A page of queues; `more` says whether another follows."""

    queues: tuple[QueueSummary, ...]
    more: bool = False


class AgentSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One agent as the broker knows it: `leases` jobs run on its `slots`.

    `seen_ms` is when it was last heard of, in ms since the epoch; 0: before the broker started. `trouble`: why it can
    run no jobs now.
    """

    name: str
    slots: Natural
    leases: Natural
    seen_ms: Natural
    version: str = ""
    tags: dict[str, str] = {}
    trouble: str = ""


class AgentsListed(Message, frozen=True, kw_only=True):
    """A page of agents; `more` says whether another follows."""

    agents: tuple[AgentSummary, ...]
    more: bool = False


class ListPlace(Struct, frozen=True, kw_only=True):
    """Where the broker stopped looking: ask for the rest of the page, from `before` on and without `skip` of them."""

    before: JobId
    skip: Natural


class JobsListed(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A page of jobs; `more` says whether another follows.

    With `going_on` the broker has looked through as many jobs as it does for one request, and the page may not be full.
    `total`, where that was asked for: so many jobs there are on all pages, or `beyond` it more, which were not counted.
    """

    jobs: tuple[JobSummary, ...]
    more: bool
    going_on: ListPlace | None = None
    total: Natural | None = None
    beyond: bool = False


class JobFound(Message, frozen=True, kw_only=True):
    """The job that was asked for."""

    job: Job


class JobEventsReplayed(Message, frozen=True, kw_only=True):
    """A stretch of the log, in order and without a hole; ask again from `next_sequence`.

    `last_sequence` is the newest event there is; after a `finished` job's last no other will come.
    """

    runs: tuple[EventRun, ...]
    next_sequence: Positive
    last_sequence: Natural
    finished: bool


class JobWatched(Message, frozen=True, kw_only=True):
    """Live events come on `events_port` of the broker's host, sealed with `watch_key`."""

    watch_key: Token
    events_port: Annotated[int, Meta(ge=1, le=65_535)]


class Nudge(Message, frozen=True, kw_only=True):
    """Heartbeat now: there is news of one of your leases. Sent unasked, under a request id of zeros; only a hint."""


class Refused(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The request was not met, and why. After `retry_ms`, where that is said, the same may be asked again."""

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
    | JobCancelled
    | QueueUpdated
    | SecretSet
    | SecretRemoved
    | SecretsListed
    | QueuesListed
    | AgentsListed
    | JobsListed
    | JobFound
    | JobEventsReplayed
    | JobWatched
    | Nudge
    | Refused
)

# --- requests -----------------------------------------------------------------------------------------


_Reply_co = TypeVar("_Reply_co", bound=Message, covariant=True)


class Asking(Message, Generic[_Reply_co], frozen=True, kw_only=True):
    """A request that is answered with a `_Reply_co`, or `Refused`."""


def reply_type(request: type[Asking[_Reply_co]]) -> type[_Reply_co]:
    """The class of the reply to requests of this class."""
    (base,) = vars(request)["__orig_bases__"]
    reply: type[_Reply_co] = get_args(base)[0]
    return reply


class Ping(Asking[Pong], frozen=True, kw_only=True):
    """Are you there? Answered at once, whoever asks, however busy the queue is."""


class EnqueueJob(Asking[JobsEnqueued], frozen=True, kw_only=True):
    """Submit jobs, all or none. Needs the role `submit`."""

    jobs: Annotated[tuple[JobSpec, ...], Meta(min_length=1, max_length=ENQUEUE_MAX)]

    def __post_init__(self) -> None:
        """Raises `ValueError`: more metadata than is looked after, or a repository whose password could be shown."""
        for job in self.jobs:
            check_new(job)
        if sum(len(job.metadata) for job in self.jobs) > ENQUEUE_METADATA_MAX:
            raise ValueError(f"jobs that are submitted together have up to {ENQUEUE_METADATA_MAX} pieces of metadata")


class DequeueJob(Asking[JobsLeased], frozen=True, kw_only=True):
    """Lease up to `slots` jobs from `queues`, in order of preference; wait for the first. Role `work`.

    `agent_slots` and `version` describe the agent to whoever lists agents. Only jobs are leased that require
    nothing but `tags`.
    """

    agent: Name
    agent_slots: AgentSlots = 1
    version: Version = ""
    tags: Tags = {}
    queues: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=QUEUES_MAX)]
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 1
    visibility_ms: VisibilityMs
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] = 0
    token_seed: Seed


class UpdateJob(Asking[JobsUpdated], frozen=True, kw_only=True):
    """The heartbeat: every lease named here lives `visibility_ms` from now. Role `work`.

    It may come from an agent without a lease, to say only that it is there, or why it runs no jobs now (`trouble`).
    """

    agent: Name | None = None
    agent_slots: AgentSlots = 1
    version: Version = ""
    tags: Tags = {}
    trouble: Text = ""
    leases: Annotated[tuple[LeaseRef, ...], Meta(max_length=LEASES_MAX)]
    visibility_ms: VisibilityMs


class EventBatch(Struct, frozen=True, kw_only=True):
    """Events of one attempt, the first of them numbered `first_index` by its agent."""

    lease: LeaseRef
    first_index: Natural
    count: Annotated[int, Meta(ge=1, le=BATCH_EVENTS_MAX)]
    events: Annotated[bytes, Meta(min_length=1, max_length=BATCH_BYTES_MAX)]


class CompleteJob(Asking[JobCompleted], frozen=True, kw_only=True):
    """The attempt has ended and published `event_count` events in all. Role `work`.

    It may also travel with its last events, and with other completions: see `PublishJobEvents`.
    """

    lease: LeaseRef
    event_count: Natural
    result: Result

    def __post_init__(self) -> None:
        """Raises `ValueError`: the reason is none that there is."""
        if not self.result.known:
            raise ValueError(f"{self.result.reason!r} is no reason for an end")


class PublishJobEvents(Asking[JobEventsPublished], frozen=True, kw_only=True):
    """Store events, then end attempts whose events are all stored with that. Role `work`.

    Each batch and each completion is judged by itself; what one request brings is one transaction.
    """

    batches: Annotated[tuple[EventBatch, ...], Meta(max_length=BATCHES_MAX)] = ()
    completions: Annotated[tuple[CompleteJob, ...], Meta(max_length=COMPLETIONS_MAX)] = ()

    def __post_init__(self) -> None:
        """Raises `ValueError`: there is nothing in it."""
        if not self.batches and not self.completions:
            raise ValueError("there are no batches and no completions")


class ReleaseJob(Asking[JobReleasedReply], frozen=True, kw_only=True):
    """Give an attempt back; the job waits in its old place. Role `work`.

    `lost`: its agent died, and another speaks for it; that counts as if the lease had expired.
    """

    lease: LeaseRef
    lost: bool = False


class CancelJob(Asking[JobCancelled], frozen=True, kw_only=True):
    """End a job. One that waits is CANCELLED at once; one that runs is ended by its agent. Role `submit`.

    Once this is answered the job is never leased again. Asked again, or of a job that has ended, it changes
    nothing.
    """

    job_id: JobName


class RetryJob(Asking[JobsEnqueued], frozen=True, kw_only=True):
    """Submit an ended job anew, as it was; the new one names it as its origin. Role `submit`."""

    job_id: JobName


class UpdateQueue(Asking[QueueUpdated], frozen=True, kw_only=True):
    """Open, pause or drain a queue. Role `admin`."""

    queue: Name
    mode: QueueMode


class ListQueues(Asking[QueuesListed], frozen=True, kw_only=True):
    """A page of the queues that have jobs or are not open, by name; `after` is the last one before. Role `read`."""

    after: Name | None = None


class ListAgents(Asking[AgentsListed], frozen=True, kw_only=True):
    """A page of the agents that were heard of lately, by name; `after` is as for `ListQueues`. Role `read`."""

    after: Name | None = None


class ListJobs(Asking[JobsListed], frozen=True, kw_only=True):
    """A page of jobs, newest first; with `metadata` only those that have all of these. Role `read`.

    `page` counts from 1. For a walk that new jobs do not shift, give `before`, the last id of the page
    before, and leave `page` alone. `skip` leaves out so many more that would be listed: see `ListPlace`.
    """

    queue: Name | None = None
    state: JobState | None = None
    owner: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)] | None = None
    metadata: Annotated[dict[Label, Argument], Meta(max_length=FILTERS_MAX)] = {}
    before: JobName | None = None
    page: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 1
    page_size: Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX)] = 20
    skip: Annotated[int, Meta(ge=0, le=PAGE_MAX * PAGE_SIZE_MAX)] = 0
    count: bool = False


class GetJob(Asking[JobFound], frozen=True, kw_only=True):
    """One job. Role `read`."""

    job_id: JobName


class ReplayJobEvents(Asking[JobEventsReplayed], frozen=True, kw_only=True):
    """Stored events from a sequence on, or from the first that is not older than an instant. Role `read`.

    A page stops before the run that goes beyond `bytes_max` of events, and has one run at the least. With `kinds`,
    runs that hold no event of these may come without their events.
    """

    job_id: JobName
    from_sequence: Positive = 1
    from_timestamp_ms: Natural | None = None
    bytes_max: Annotated[int, Meta(ge=1, le=REPLAY_BYTES_MAX)] = REPLAY_BYTES_MAX
    kinds: Annotated[tuple[EventKind, ...], Meta(max_length=KINDS_MAX)] = ()


class WatchJob(Asking[JobWatched], frozen=True, kw_only=True):
    """The key to a job's live events. Role `read`."""

    job_id: JobName


class SetSecret(Asking[SecretSet], frozen=True, kw_only=True):
    """Keep a sealed value for the jobs of a queue, in the place of one of that name. Role `admin`.

    Only agents that hold the queue's key can open the `box`; see `certs/queuekeys.py`.
    """

    queue: Name
    name: Variable
    box: Annotated[bytes, Meta(min_length=1, max_length=BOX_BYTES_MAX)]


class RemoveSecret(Asking[SecretRemoved], frozen=True, kw_only=True):
    """Forget a sealed value. Role `admin`."""

    queue: Name
    name: Variable


class ListSecrets(Asking[SecretsListed], frozen=True, kw_only=True):
    """A page of the names of sealed secrets, by queue and name; `after` is the last one before. Role `read`."""

    queue: Name | None = None
    after: tuple[Name, Variable] | None = None


StoreRequest = (
    EnqueueJob
    | DequeueJob
    | UpdateJob
    | PublishJobEvents
    | CompleteJob
    | ReleaseJob
    | CancelJob
    | RetryJob
    | UpdateQueue
    | SetSecret
    | RemoveSecret
    | ListQueues
    | ListAgents
    | ListJobs
    | ListSecrets
    | GetJob
    | ReplayJobEvents
    | WatchJob
)
"""What is asked of the queue and the event log."""

Request = Ping | StoreRequest
