"""Requests to a broker: every message to a broker, with the class of its reply.

A message is one MessagePack map; `type` names its class. Unknown fields are ignored, so a newer client may add fields;
missing or ill-typed fields are a `bad-request`. Every request is idempotent: a repeat under the same request id has
no effect of its own.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from airunner.protocol import replies
from airunner.protocol.blobs import IDS_MAX, Blob, UploadId, WireId
from airunner.protocol.cacherequests import GetCache, ListCaches, PutCache, RemoveCaches
from airunner.protocol.compression import BATCH_BYTES_MAX
from airunner.protocol.events import BATCH_EVENTS_MAX, KIND_CHARS_MAX
from airunner.protocol.fields import STDIN_BYTES_MAX, JobSpec, TerminalSize
from airunner.protocol.fieldtypes import AGENT_SLOTS_MAX, Known, Tags
from airunner.protocol.job import JobState, Result, check_new
from airunner.protocol.logsearch import LIMIT_MAX, PATTERN_CHARS_MAX, Context, SearchPlace
from airunner.protocol.message import Asking, LeaseRef
from airunner.protocol.names import (
    NAME_CHARS_MAX,
    Argument,
    JobName,
    Label,
    Name,
    Natural,
    Positive,
    Seed,
    Text,
    Variable,
)
from airunner.protocol.treerequest import EnqueueJobWithTree

ENQUEUE_MAX: Final = 64  # jobs in one request
AWAITED_MAX: Final = 1_024  # jobs that those of one request wait for: all of these are loaded
ENQUEUE_METADATA_MAX: Final = 1_024  # metadata entries of all jobs in one request; each is a row of an index
QUEUES_MAX: Final = 64  # queues that an agent serves
SLOTS_MAX: Final = 16  # leases in one reply; with jobs of SPEC_BYTES_MAX they fit in one frame
LEASES_MAX: Final = 1_024  # leases in one heartbeat
BATCHES_MAX: Final = 64  # in one PublishJobEvents
BOX_BYTES_MAX: Final = 33_280  # of one sealed secret: a value of 32 KiB, its names and its seal
BOXES_BYTES_MAX: Final = 49_152  # of all sealed secrets of a queue: 16 jobs with such secrets fit in one frame
COMPLETIONS_MAX: Final = 64  # in one PublishJobEvents
LAST_BYTES_MAX: Final = 65_536  # of last events that are stored with their completion even on a nearly full disk
PAGE_SIZE_MAX: Final = 100  # jobs on one page of a list
PAGE_MAX: Final = 10_000
PREFIX_CHARS_MIN: Final = 4  # of a job's id: one job in 65,536 has these
FILTERS_MAX: Final = 8  # metadata entries in one filter
REPLAY_BYTES_MAX: Final = 1_048_576  # of events on a page, which ends before a further segment would exceed it
CONTENT_BYTES_MAX: Final = 2 * REPLAY_BYTES_MAX  # of a page's events, decompressed: memory of its reader
KINDS_MAX: Final = 32  # kinds of events in one filter; fewer exist
REPLAY_SEGMENTS_MAX: Final = 1_024  # segments in a page, because the fields of a segment take space too
WAIT_MS_MAX: Final = 30_000  # for which a DequeueJob may be parked

AgentSlots = Annotated[int, Meta(ge=1, le=AGENT_SLOTS_MAX)]
Version = Annotated[str, Meta(max_length=NAME_CHARS_MAX, pattern=r"^[ -~]*\Z")]  # shown to users
EventKind = Annotated[str, Meta(min_length=1, max_length=KIND_CHARS_MAX)]


class Ping(Asking[replies.Pong], frozen=True, kw_only=True):
    """Check whether the broker is alive. A Ping needs no token, and is answered at once however busy the queue is."""


class EnqueueJob(Asking[replies.JobsEnqueued], frozen=True, kw_only=True):
    """Submit jobs, all or none. Needs the role `submit`."""

    jobs: Annotated[tuple[JobSpec, ...], Meta(min_length=1, max_length=ENQUEUE_MAX)]

    def __post_init__(self) -> None:
        """Check the rules of new jobs; raises `ValueError`: too much metadata, or what `check_new` refuses."""
        metadata = waits = 0
        for job in self.jobs:
            check_new(job)
            if job.stdin_bytes is not None:
                raise ValueError("stdin_bytes: the standard input is missing; submit it too, or retry the job")
            metadata += len(job.metadata)
            waits += len(job.after) if job.after else 0
        if metadata > ENQUEUE_METADATA_MAX or waits > AWAITED_MAX:
            bounds = f"{ENQUEUE_METADATA_MAX} metadata entries, and wait for up to {AWAITED_MAX} jobs"
            raise ValueError(f"jobs that are submitted together have up to {bounds}")


class EnqueueJobWithStdin(Asking[replies.JobsEnqueued], frozen=True, kw_only=True):
    """Submit a job with its standard input. Needs the role `submit`.

    It is not a field of EnqueueJob: a broker that does not know it would ignore it, and run the job without its input.
    """

    job: JobSpec
    stdin: Annotated[bytes, Meta(min_length=1, max_length=STDIN_BYTES_MAX)]

    def __post_init__(self) -> None:
        """Check the rules of new jobs; raises `ValueError`: what `check_new` refuses, or `stdin_bytes` is wrong."""
        check_new(self.job)
        if self.job.stdin_bytes != len(self.stdin):
            raise ValueError(f"stdin_bytes: expected {len(self.stdin)}, the size of the standard input")

    @property
    def jobs(self) -> tuple[JobSpec]:
        """The job, as EnqueueJob has its jobs."""
        return (self.job,)


class DequeueJob(Asking[replies.JobsLeased], frozen=True, kw_only=True):
    """Lease up to `slots` jobs from `queues`, in order of preference; wait `wait_ms` for the first. Role `work`."""

    agent: Name
    agent_slots: AgentSlots = 1  # shown in lists of agents, as is `version`
    version: Version = ""
    tags: Tags = {}  # of the agent, which leases only jobs whose required tags are all among these
    queues: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=QUEUES_MAX)]
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 1
    visibility_ms: replies.VisibilityMs
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] = 0
    token_seed: Seed
    stdin: bool = False  # whether the agent gives jobs their standard input; otherwise it leases no job that has one
    knows: Known = ()  # fields of `MUST_KNOW` that the agent knows; it leases no job that has another


class UpdateJob(Asking[replies.JobsUpdated], frozen=True, kw_only=True):
    """Send a heartbeat: the agent is alive, and its `leases` are renewed for `visibility_ms` from now. Role `work`."""

    agent: Name | None = None
    agent_slots: AgentSlots = 1
    version: Version = ""
    tags: Tags = {}
    trouble: Text = ""  # why the agent cannot run jobs now
    leases: Annotated[tuple[LeaseRef, ...], Meta(max_length=LEASES_MAX)]
    visibility_ms: replies.VisibilityMs


class EventBatch(Struct, frozen=True, kw_only=True):
    """Batch of events of one attempt; `first_index` is the index of its first event."""

    lease: LeaseRef
    first_index: Natural
    count: Annotated[int, Meta(ge=1, le=BATCH_EVENTS_MAX)]
    events: Annotated[bytes, Meta(min_length=1, max_length=BATCH_BYTES_MAX)]


class CompleteJob(Asking[replies.JobCompleted], frozen=True, kw_only=True):
    """Complete an attempt, alone or in a `PublishJobEvents` with its last events. Role `work`."""

    lease: LeaseRef
    event_count: Natural  # number of all events that the attempt has published
    result: Result

    def __post_init__(self) -> None:
        """Check the reason; raises `ValueError`: it is unknown."""
        if not self.result.known or self.result.state is JobState.SKIPPED:
            raise ValueError(f"{self.result.reason!r} is not a known reason")


class PublishJobEvents(Asking[replies.JobEventsPublished], frozen=True, kw_only=True):
    """Publish events, and complete attempts whose events are all stored then. Role `work`.

    Each batch and each completion is accepted or refused by itself; those of one job are one transaction.
    """

    batches: Annotated[tuple[EventBatch, ...], Meta(max_length=BATCHES_MAX)] = ()
    completions: Annotated[tuple[CompleteJob, ...], Meta(max_length=COMPLETIONS_MAX)] = ()

    def __post_init__(self) -> None:
        """Check the lists; raises `ValueError`: both are empty."""
        if not self.batches and not self.completions:
            raise ValueError("there are no batches and no completions")


class ReleaseJob(Asking[replies.JobReleasedReply], frozen=True, kw_only=True):
    """Release an attempt: the job waits again, or ends if it was cancelled or has lost too many agents. Role `work`."""

    lease: LeaseRef
    lost: bool = False  # the attempt counts towards `max_attempts`, for example because its agent has died


class ReadJobStdin(Asking[replies.JobStdinRead], frozen=True, kw_only=True):
    """Read the standard input of a leased job, from byte `offset` on. Role `work`."""

    lease: LeaseRef
    offset: Natural = 0
    bytes_max: Annotated[int, Meta(ge=1, le=STDIN_BYTES_MAX)] = STDIN_BYTES_MAX


class GetJobStdin(Asking[replies.JobStdinRead], frozen=True, kw_only=True):
    """Read the standard input of a job, to run it again, as its agent reads it. Needs the role `submit`."""

    job_id: JobName
    offset: Natural = 0
    bytes_max: Annotated[int, Meta(ge=1, le=STDIN_BYTES_MAX)] = STDIN_BYTES_MAX


class HaveBlobs(Asking[replies.BlobsMissing], frozen=True, kw_only=True):
    """Claim blobs for the job of a lease or for an upload, and get those that the broker does not have.

    A claimed blob is kept as long as the job, or for a day; put the missing ones then. Role `work` or `submit`.
    """

    lease: LeaseRef | None = None
    upload: UploadId | None = None  # instead of a lease
    ids: Annotated[tuple[WireId, ...], Meta(min_length=1, max_length=IDS_MAX)]


class PutBlob(Asking[replies.BlobsPut], frozen=True, kw_only=True):
    """Store claimed blobs: all or none. Role `work` or `submit`."""

    lease: LeaseRef | None = None  # if a job has claimed them
    blobs: Annotated[tuple[Blob, ...], Meta(min_length=1, max_length=IDS_MAX)]


class GetBlob(Asking[replies.BlobsGot], frozen=True, kw_only=True):
    """Get blobs of the tenant, the first of `ids` and as many of the next as fit in a reply. Role `read` or `work`."""

    ids: Annotated[tuple[WireId, ...], Meta(min_length=1, max_length=IDS_MAX)]


class CancelJob(Asking[replies.JobCancelled], frozen=True, kw_only=True):
    """Cancel a job. A waiting job is CANCELLED at once; a running job is ended by its agent. Role `submit`.

    After the reply the job is never leased again. A repeat, or a cancel of a finished job, changes nothing.
    """

    job_id: JobName


class SendInput(Asking[replies.InputSent], frozen=True, kw_only=True):
    """Send input to the terminal of a running job: its new size. Role `submit`.

    The last size counts. A job that does not run, or has no terminal, ignores it.
    """

    job_id: JobName
    resize: TerminalSize


class RetryJob(Asking[replies.JobsEnqueued], frozen=True, kw_only=True):
    """Retry a finished job: submit its spec again as a new job, which has this job as `origin`. Role `submit`."""

    job_id: JobName


class UpdateQueue(Asking[replies.QueueUpdated], frozen=True, kw_only=True):
    """Open, pause or drain a queue. Role `admin`."""

    queue: Name
    mode: replies.QueueMode


class ListQueues(Asking[replies.QueuesListed], frozen=True, kw_only=True):
    """List queues that have jobs or are not open, by name; `after` is the last name of the page before. Role `read`."""

    after: Name | None = None
    queue: Name | None = None  # list only this queue
    tags: Tags | None = None  # with `queue`: count the jobs that an agent with these tags may run


class ListAgents(Asking[replies.AgentsListed], frozen=True, kw_only=True):
    """List agents that sent a request lately or have leases, by name; `after` is as in `ListQueues`. Role `read`."""

    after: Name | None = None


class ListBrokers(Asking[replies.BrokersListed], frozen=True, kw_only=True):
    """List the brokers of the store, by id: none if one broker has a store of its own. Role `read`."""


States = Annotated[tuple[JobState, ...], Meta(min_length=1, max_length=len(JobState))]


class ListJobs(Asking[replies.JobsListed], frozen=True, kw_only=True):
    """List jobs, newest first; with `metadata`, only those that have all of these entries. Role `read`."""

    prefix: Annotated[str, Meta(min_length=PREFIX_CHARS_MIN, max_length=64)] | None = None  # of the jobs' ids
    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)] | None = None
    queue: Name | None = None
    state: JobState | States | None = None  # one state, or any of several
    owner: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)] | None = None
    metadata: Annotated[dict[Label, Argument], Meta(max_length=FILTERS_MAX)] = {}
    before: JobName | None = None  # the last id of the page before, instead of `page`: new jobs do not shift this page
    page: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 1  # counts from 1
    page_size: Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX)] = 20
    skip: Annotated[int, Meta(ge=0, le=PAGE_MAX * PAGE_SIZE_MAX)] = 0  # see `ListPlace`
    count: bool = False
    details: bool = False  # whether each job comes with its `metadata` and `require`


class GetJob(Asking[replies.JobFound], frozen=True, kw_only=True):
    """Get one job. Role `read`."""

    job_id: JobName


class ReplayJobEvents(Asking[replies.JobEventsReplayed], frozen=True, kw_only=True):
    """Replay stored events from a sequence on; with an instant, from the first of these that is not older. Role `read`.

    A page has the next segment, and as many further ones as fit in `bytes_max` of events and in `CONTENT_BYTES_MAX` of
    decompressed ones. With `kinds`, a segment without such events may come empty.
    """

    job_id: JobName
    from_sequence: Positive = 1
    from_timestamp_ms: Natural | None = None
    bytes_max: Annotated[int, Meta(ge=1, le=REPLAY_BYTES_MAX)] = REPLAY_BYTES_MAX
    kinds: Annotated[tuple[EventKind, ...], Meta(max_length=KINDS_MAX)] = ()  # empty: all
    zstd: bool = False  # whether the reader decompresses segments; otherwise the broker does
    watch: bool = False  # whether the page of a job that has not finished brings what a WatchJob does


class SearchLog(Asking[replies.LogSearched], frozen=True, kw_only=True):
    """Search the lines of a job's log, from the line `from_line` on; an empty pattern finds every line. Role `read`.

    Matches come with up to `context` lines before and after each. A request searches a bounded part of the log, and
    its page ends with the line that is the `limit`th: the reply has the `place` at which the next request goes on.
    """

    job_id: JobName
    pattern: Annotated[str, Meta(max_length=PATTERN_CHARS_MAX)] = ""
    regex: bool = False  # whether the pattern is a regular expression of RE2, and no plain text
    ignore_case: bool = False
    context: Context = 0
    from_line: Positive = 1
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = LIMIT_MAX
    place: SearchPlace | None = None  # None: the beginning


class WatchJob(Asking[replies.JobWatched], frozen=True, kw_only=True):
    """Get the key and the port of a job's live events. Role `read`."""

    job_id: JobName


class WatchTenant(Asking[replies.TenantWatched], frozen=True, kw_only=True):
    """Get the keys and the port of the change streams of the tenant's jobs, or of one queue's. Role `read`."""

    queue: Name | None = None


class SetSecret(Asking[replies.SecretSet], frozen=True, kw_only=True):
    """Set a sealed secret of a queue, or replace the one of that name. Role `admin`."""

    queue: Name
    name: Variable
    box: Annotated[bytes, Meta(min_length=1, max_length=BOX_BYTES_MAX)]  # only the queue's agents open it: see `certs`


class RemoveSecret(Asking[replies.SecretRemoved], frozen=True, kw_only=True):
    """Remove a sealed secret. Role `admin`."""

    queue: Name
    name: Variable


class ListSecrets(Asking[replies.SecretsListed], frozen=True, kw_only=True):
    """List names of sealed secrets, by queue and name; `after` is the last entry of the page before. Role `read`."""

    queue: Name | None = None
    after: tuple[Name, Variable] | None = None


StoreRequest = (
    EnqueueJob
    | EnqueueJobWithStdin
    | EnqueueJobWithTree
    | DequeueJob
    | UpdateJob
    | PublishJobEvents
    | CompleteJob
    | ReleaseJob
    | ReadJobStdin
    | GetJobStdin
    | HaveBlobs
    | PutBlob
    | GetBlob
    | GetCache
    | PutCache
    | ListCaches
    | RemoveCaches
    | CancelJob
    | SendInput
    | RetryJob
    | UpdateQueue
    | SetSecret
    | RemoveSecret
    | ListQueues
    | ListAgents
    | ListBrokers
    | ListJobs
    | ListSecrets
    | GetJob
    | ReplayJobEvents
    | SearchLog
    | WatchJob
    | WatchTenant
)
"""Requests that read or change the store."""

Request = Ping | StoreRequest
