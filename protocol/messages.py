"""Every message that crosses the wire, as one closed union each way.

A message is one MessagePack map; `type` names it. Unknown fields are ignored, so a newer peer may say
more; missing or ill-typed ones are a `bad-request`. Every request is idempotent: sent again under the
same request id, it is answered as it was the first time.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.bounds import REPLY_VALUES_MAX, UNDECODABLE, check_structure
from airunner.protocol.errors import BadRequest, PeerError
from airunner.protocol.events import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EventRun
from airunner.protocol.job import Job, JobSpec, JobState, JobSummary, Result
from airunner.protocol.names import HASH_BYTES, JobId, JobName, Name, Natural, Positive, Seed, Text, Token

ENQUEUE_MAX: Final = 64
QUEUES_MAX: Final = 64
SLOTS_MAX: Final = 16  # leases in one reply; with SPEC_BYTES_MAX they fit one frame
LEASES_MAX: Final = 1_024
BATCHES_MAX: Final = 64
PAGE_SIZE_MAX: Final = 100
PAGE_MAX: Final = 10_000
REPLAY_BYTES_MAX: Final = 1_048_576  # a page stops before the run that goes beyond this
REPLAY_RUNS_MAX: Final = 1_024  # runs in a page: their own fields take room too
WAIT_MS_MAX: Final = 30_000
VISIBILITY_MS_MIN: Final = 1_000
VISIBILITY_MS_MAX: Final = 43_200_000  # 12 hours

VisibilityMs = Annotated[int, Meta(ge=VISIBILITY_MS_MIN, le=VISIBILITY_MS_MAX)]


class Message(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What every message is; its tag is its class's name."""


# --- requests -----------------------------------------------------------------------------------------


class Ping(Message, frozen=True, kw_only=True):
    """Are you there? Answered at once, whoever asks, however busy the queue is."""


class EnqueueJob(Message, frozen=True, kw_only=True):
    """Submit jobs, all or none. Needs the role `submit`."""

    jobs: Annotated[tuple[JobSpec, ...], Meta(min_length=1, max_length=ENQUEUE_MAX)]


class DequeueJob(Message, frozen=True, kw_only=True):
    """Lease up to `slots` jobs from `queues`, in order of preference; wait for the first. Role `work`."""

    agent: Name
    queues: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=QUEUES_MAX)]
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 1
    visibility_ms: VisibilityMs
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] = 0
    token_seed: Seed


class LeaseRef(Struct, frozen=True, kw_only=True):
    """One attempt, and the proof that it is the sender's."""

    job_id: JobName
    attempt: Positive
    task_token: Token


class UpdateJob(Message, frozen=True, kw_only=True):
    """The heartbeat: every lease named here lives `visibility_ms` from now. Role `work`."""

    leases: Annotated[tuple[LeaseRef, ...], Meta(min_length=1, max_length=LEASES_MAX)]
    visibility_ms: VisibilityMs


class EventBatch(Struct, frozen=True, kw_only=True):
    """Events of one attempt, the first of them numbered `first_index` by its agent."""

    job_id: JobName
    attempt: Positive
    task_token: Token
    first_index: Natural
    count: Annotated[int, Meta(ge=1, le=BATCH_EVENTS_MAX)]
    events: Annotated[bytes, Meta(min_length=1, max_length=BATCH_BYTES_MAX)]


class PublishJobEvents(Message, frozen=True, kw_only=True):
    """Store events; each batch is judged by itself. Role `work`."""

    batches: Annotated[tuple[EventBatch, ...], Meta(min_length=1, max_length=BATCHES_MAX)]


class CompleteJob(Message, frozen=True, kw_only=True):
    """The attempt has ended and published `event_count` events in all. Role `work`.

    `last` may carry the last of them; they and the completion are one transaction.
    """

    job_id: JobName
    attempt: Positive
    task_token: Token
    event_count: Natural
    result: Result
    last: EventBatch | None = None


class ReleaseJob(Message, frozen=True, kw_only=True):
    """Give an attempt back; the job waits in its old place. Role `work`."""

    job_id: JobName
    attempt: Positive
    task_token: Token


class ListJobs(Message, frozen=True, kw_only=True):
    """A page of jobs, newest first. Role `read`.

    `page` counts from 1. For a walk that new jobs do not shift, give `before`, the last id of the page
    before, and leave `page` alone.
    """

    queue: Name | None = None
    state: JobState | None = None
    before: JobName | None = None
    page: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 1
    page_size: Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX)] = 20


class GetJob(Message, frozen=True, kw_only=True):
    """One job. Role `read`."""

    job_id: JobName


class ReplayJobEvents(Message, frozen=True, kw_only=True):
    """Stored events from a sequence on, or from the first that is not older than an instant. Role `read`."""

    job_id: JobName
    from_sequence: Positive = 1
    from_timestamp_ms: Natural | None = None


class WatchJob(Message, frozen=True, kw_only=True):
    """The key to a job's live events. Role `read`."""

    job_id: JobName


Request = (
    Ping
    | EnqueueJob
    | DequeueJob
    | UpdateJob
    | PublishJobEvents
    | CompleteJob
    | ReleaseJob
    | ListJobs
    | GetJob
    | ReplayJobEvents
    | WatchJob
)

# --- replies ------------------------------------------------------------------------------------------


class Pong(Message, frozen=True, kw_only=True):
    """The broker is there."""


class JobsEnqueued(Message, frozen=True, kw_only=True):
    """The jobs are on disk, in the order in which they were asked for."""

    job_ids: tuple[JobId, ...]


class JobLease(Struct, frozen=True, kw_only=True):
    """The attempt is yours until `visibility_ms` from when you asked."""

    job_id: JobId
    attempt: Positive
    task_token: Token
    visibility_ms: VisibilityMs
    spec: JobSpec


class JobsLeased(Message, frozen=True, kw_only=True):
    """What was granted; nothing, when the wait ended first."""

    leases: tuple[JobLease, ...] = ()


class Verdict(StrEnum):
    """What became of a lease."""

    KEPT = "kept"
    LOST = "lost"


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


class JobEventsPublished(Message, frozen=True, kw_only=True):
    """One outcome for each batch, in the order sent."""

    batches: tuple[BatchStored, ...]


class JobCompleted(Message, frozen=True, kw_only=True):
    """The job has ended in `state`."""

    state: JobState


class JobReleasedReply(Message, frozen=True, kw_only=True, tag="JobReleased"):
    """The job waits again."""


class JobsListed(Message, frozen=True, kw_only=True):
    """A page of jobs; `more` says whether another follows."""

    jobs: tuple[JobSummary, ...]
    more: bool


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


class Refused(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The request was not met, and why."""

    code: str
    message: Text
    expected_index: Natural | None = None


Reply = (
    Pong
    | JobsEnqueued
    | JobsLeased
    | JobsUpdated
    | JobEventsPublished
    | JobCompleted
    | JobReleasedReply
    | JobsListed
    | JobFound
    | JobEventsReplayed
    | JobWatched
    | Refused
)

# --- encoding -----------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_sorted_encoder = msgspec.msgpack.Encoder(order="sorted")
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """`message` as a body."""
    return _encoder.encode(message)


def decode_request(body: bytes) -> Request:
    """The request in a body.

    Raises `BadRequest` for anything that is not one request within its bounds.
    """
    try:
        check_structure(body)
        return _request_decoder.decode(body)
    except UNDECODABLE as error:
        raise BadRequest(str(error)) from error


def decode_reply(body: bytes) -> Reply:
    """The reply in a body, `Refused` included.

    Raises `BadRequest` when the broker sent something else.
    """
    try:
        check_structure(body, REPLY_VALUES_MAX)
        return _reply_decoder.decode(body)
    except UNDECODABLE as error:
        raise BadRequest(f"reply: {error}") from error


def refusal(error: PeerError) -> Refused:
    """`error` as it goes on the wire."""
    return Refused(code=error.code, message=error.message[:1_000], expected_index=error.expected_index)


def error_of(reply: Refused) -> PeerError:
    """The error that a `Refused` stands for, to be raised."""
    return PeerError.from_wire(reply.code, reply.message, reply.expected_index)


def canonical_hash(request: Request) -> bytes:
    """The same for two encodings of one request: tells a repeat from another body under one id."""
    return blake2b(_sorted_encoder.encode(request), digest_size=HASH_BYTES).digest()
