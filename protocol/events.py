"""Events of a job's log: their kinds, and how they are numbered.

An event's **body** says what happened and when, by the clock of the machine that saw it; that clock is shown and
never trusted. The broker gives each event its **sequence**: 1, 2, 3, … within a job, without a gap, across attempts.
A **segment** is the unit in which the log is stored and sent: a MessagePack array of bodies, in the bytes that the
agent or the broker encoded; that of an agent may be compressed (see `compression`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.blobs import SAVE_SLICES_MAX, Slice
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.compression import decompressed
from airunner.protocol.errors import BadRequest
from airunner.protocol.fieldtypes import TerminalSide
from airunner.protocol.job import JobState, Reason, Result, Usage
from airunner.protocol.names import JobId, Natural, Positive, Text, Token

KIND_CHARS_MAX: Final = 128  # of a kind's name, also of an unknown kind
OUTPUT_BYTES_MAX: Final = 65_536  # of one OUTPUT event; also the most characters of an error message
BATCH_EVENTS_MAX: Final = 1_024
TAG_BYTES: Final = 4  # of an event's tag in a LOG_SIGNED
HEAD_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ARTIFACT_PATH_CHARS_MAX: Final = 4_096  # as Linux's PATH_MAX
SLICES_MAX: Final = 1_024  # of one ARTIFACT: 1 GiB in pieces of 1 MiB, in some 45 KB
SIGNED_EVENTS_MAX: Final = 2 * BATCH_EVENTS_MAX  # of one LOG_SIGNED


class Stream(StrEnum):
    """Output stream of a process; a terminal has only `stdout`."""

    STDOUT = "stdout"
    STDERR = "stderr"


STREAMS: Final = tuple(Stream)  # to iterate over an enumeration takes several times as long


class Body(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Fields that every event has."""

    timestamp_ms: Natural


class JobScheduled(Body, frozen=True, kw_only=True, tag="JOB_SCHEDULED"):
    """The job waits in `queue`, and is not leased before `not_before_ms`.

    It is the first event of every job, and names the `origin` that the job retries, if any. It is also written when the
    job's retry policy runs a failed job again: then `retry` counts from 1. `unmet`: so many other jobs have to end
    first, and JOB_UNBLOCKED follows once they have.
    """

    queue: str
    not_before_ms: Natural | None = None
    retry: Natural = 0
    origin: JobId | None = None
    unmet: Natural = 0


class JobUnblocked(Body, frozen=True, kw_only=True, tag="JOB_UNBLOCKED"):
    """The jobs that this one waited for have ended as they had to; now it waits to be leased."""


class JobLeased(Body, frozen=True, kw_only=True, tag="JOB_LEASED"):
    """An attempt of the job was leased to `agent`."""

    agent: str


class JobReleased(Body, frozen=True, kw_only=True, tag="JOB_RELEASED"):
    """The lease was released; `lost`: it counts towards `max_attempts`. The job waits, unless JOB_FINISHED follows."""

    lost: bool = False


class JobExpired(Body, frozen=True, kw_only=True, tag="JOB_EXPIRED"):
    """The lease expired, because no heartbeat renewed it in time. The job waits again, unless JOB_FINISHED follows."""


class JobCancelRequested(Body, frozen=True, kw_only=True, tag="JOB_CANCEL_REQUESTED"):
    """A client cancelled the job; it will not be leased again."""


class JobFinished(Body, frozen=True, kw_only=True, tag="JOB_FINISHED"):
    """The job has finished: the last event of every log."""

    state: JobState
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None


class GitCloneStart(Body, frozen=True, kw_only=True, tag="GIT_CLONE_START"):
    """The checkout begins; `repository` is without credentials."""

    repository: Text
    commit: Text = ""
    branch: Text = ""


GIT_COUNT: Final = re.compile(
    r"(remote: )?(Enumerating|Counting|Compressing|Total|Receiving|Resolving|Updating|Downloading)\b.*\d"
)
"""Line of git that counts, such as `Receiving objects: 42% (420/1000)`: the next one takes its place."""


class GitCloneProgress(Body, frozen=True, kw_only=True, tag="GIT_CLONE_PROGRESS"):
    """The checkout's progress, or why it is tried again, in one line."""

    message: Text


class GitCloneEnd(Body, frozen=True, kw_only=True, tag="GIT_CLONE_END"):
    """The checkout is complete, at exactly `commit`."""

    commit: Text
    duration_ms: Natural = 0


class GitCloneError(Body, frozen=True, kw_only=True, tag="GIT_CLONE_ERROR"):
    """The checkout failed; `message` is git's or the agent's."""

    message: Annotated[str, Meta(max_length=OUTPUT_BYTES_MAX)]
    exit_code: int | None = None


class ProcessStart(Body, frozen=True, kw_only=True, tag="PROCESS_START"):
    """The command has started; `started_at` is in ms since the epoch."""

    pid: Positive
    started_at: Natural


class Output(Body, frozen=True, kw_only=True, tag="OUTPUT"):
    """Console output of the command or a hook: bytes in any encoding."""

    stream: Stream
    data: Annotated[bytes, Meta(min_length=1, max_length=OUTPUT_BYTES_MAX)]


class ProcessEnd(Body, frozen=True, kw_only=True, tag="PROCESS_END"):
    """The command ended with an exit code or by a signal; `usage` is the attempt's use of resources until then."""

    pid: Positive
    exit_code: int | None = None
    signal: int | None = None
    duration_ms: Natural = 0
    usage: Usage | None = None


class ProcessError(Body, frozen=True, kw_only=True, tag="PROCESS_ERROR"):
    """An error of the command or its agent, such as why the command could not be started."""

    message: Annotated[str, Meta(max_length=OUTPUT_BYTES_MAX)]


class Heartbeat(Body, frozen=True, kw_only=True, tag="HEARTBEAT"):
    """The command or a hook still runs, and has been silent for a while; the numbers are those of its processes now."""

    elapsed_ms: Natural = 0
    processes: Natural = 0
    memory_bytes: Natural = 0


class TerminalResize(Body, frozen=True, kw_only=True, tag="TERMINAL_RESIZE"):
    """The terminal has a new size from here on."""

    cols: TerminalSide
    rows: TerminalSide


class OutputTruncated(Body, frozen=True, kw_only=True, tag="OUTPUT_TRUNCATED"):
    """Output was dropped: above the limit, while nothing was acknowledged or, after a cancel, for lack of room."""

    omitted_bytes: Positive


class LogSigned(Body, frozen=True, kw_only=True, tag="LOG_SIGNED"):
    """Signature of the agent on all events of the attempt before this one, of which there are `index`.

    `tags` are those of the events since the last signature, `head` is that of the chain (see `logchain`), and `signer`
    is the public key. The last signature of an attempt has its `result`, without the usage.
    """

    index: Natural
    tags: Annotated[bytes, Meta(max_length=SIGNED_EVENTS_MAX * TAG_BYTES)]
    head: Annotated[bytes, Meta(min_length=HEAD_BYTES, max_length=HEAD_BYTES)]
    result: Result | None = None
    signer: Token
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class Artifact(Body, frozen=True, kw_only=True, tag="ARTIFACT"):
    """A file that the job leaves: its blobs are stored. A later one of the same path in the log replaces it.

    `path` is relative to the checkout, and ends with `/` for a folder; `target` is that of a symbolic link. The slices
    are the file's content, in order; those of a file with more than `SLICES_MAX` are the content of `index`: slices of
    a MessagePack array of slices.
    """

    path: Annotated[str, Meta(min_length=1, max_length=ARTIFACT_PATH_CHARS_MAX)]
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    size_bytes: Natural = 0
    target: Text = ""
    slices: Annotated[tuple[Slice, ...], Meta(max_length=SLICES_MAX)] = ()
    index: Annotated[tuple[Slice, ...], Meta(max_length=SLICES_MAX)] = ()


class Returned(Body, frozen=True, kw_only=True, tag="RETURNED"):
    """What the job changed in its checkout, as a `commit` on top of `base`: the blobs of a Git bundle are stored.

    The bundle lacks what `base` has. `files` counts the changed ones; without any there is no bundle, and the commit is
    `base`. The slices are those of the bundle, as those of an ARTIFACT.
    """

    base: Text
    commit: Text
    files: Natural = 0
    size_bytes: Natural = 0
    slices: Annotated[tuple[Slice, ...], Meta(max_length=SLICES_MAX)] = ()
    index: Annotated[tuple[Slice, ...], Meta(max_length=SLICES_MAX)] = ()


class Kept(Body, frozen=True, kw_only=True, tag="KEPT"):
    """Files of the workspace that were saved, all of them: their blobs are stored. A later one in the log replaces it.

    The slices are a MessagePack array: the paths to keep, and an array for each file there: its path, mode, time of its
    last change in ns, size, target of a symbolic link, and slices. Paths begin with `checkout/` or `home/`; a folder's
    ends with `/`.
    """

    files: Natural
    size_bytes: Natural
    slices: Annotated[tuple[Slice, ...], Meta(min_length=1, max_length=SAVE_SLICES_MAX)]


AgentBody = (
    GitCloneStart
    | GitCloneProgress
    | GitCloneEnd
    | GitCloneError
    | ProcessStart
    | Output
    | ProcessEnd
    | ProcessError
    | Heartbeat
    | TerminalResize
    | OutputTruncated
    | LogSigned
    | Artifact
    | Returned
    | Kept
)
BrokerBody = JobScheduled | JobUnblocked | JobLeased | JobReleased | JobExpired | JobCancelRequested | JobFinished
EventBody = AgentBody | BrokerBody


EVENT_KINDS: Final = tuple(str(body.__struct_config__.tag) for body in get_args(EventBody))
"""The name of each kind of event."""


class UnknownBody(Struct, frozen=True, kw_only=True):
    """Event that only newer software can read: its kind or a value in it is unknown. `fields` has all its fields."""

    kind: Annotated[str, Meta(max_length=KIND_CHARS_MAX)]
    timestamp_ms: Natural
    fields: dict[str, Any]


class EventSegment(Struct, frozen=True, kw_only=True, gc=False):
    """Segment of `count` events from `first_sequence` on, all of one attempt."""

    first_sequence: Positive
    count: Positive
    attempt: Natural
    events: bytes  # batch of the bodies; no bytes at all if none is of the kinds that a replay requests

    @property
    def next_sequence(self) -> int:
        """The sequence after the last event of this segment."""
        return self.first_sequence + self.count


class LiveSegment(EventSegment, frozen=True, kw_only=True, omit_defaults=True):
    """Live segment; without events it stands for a segment above `frames.LIVE_BYTES_MAX`, and perhaps the next ones."""

    events: bytes = b""


class Event(Struct, frozen=True, kw_only=True):
    """Event of a job, as a monitor sees it."""

    job_id: JobId
    sequence: Positive
    attempt: Natural
    body: EventBody | UnknownBody

    @property
    def kind(self) -> str:
        """Name of the event's kind, such as `OUTPUT`."""
        if isinstance(self.body, UnknownBody):
            return self.body.kind
        tag = type(self.body).__struct_config__.tag
        assert isinstance(tag, str)
        return tag

    @property
    def timestamp_ms(self) -> int:
        """Time of the event in ms since the epoch, by the clock of the machine that saw it."""
        return self.body.timestamp_ms


_encoder = msgspec.msgpack.Encoder()
_fields_decoder = msgspec.msgpack.Decoder(dict[str, Any])
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


# Made when first used: each takes a command that reads no event some milliseconds.
@cache
def _bodies_decoder() -> msgspec.msgpack.Decoder[list[EventBody]]:
    return msgspec.msgpack.Decoder(list[EventBody])


@cache
def _body_decoder() -> msgspec.msgpack.Decoder[EventBody]:
    return msgspec.msgpack.Decoder(EventBody)


@cache
def _agent_decoder() -> msgspec.msgpack.Decoder[list[AgentBody]]:
    return msgspec.msgpack.Decoder(Annotated[list[AgentBody], Meta(min_length=1, max_length=BATCH_EVENTS_MAX)])


def encode_bodies(bodies: Sequence[AgentBody] | Sequence[BrokerBody]) -> bytes:
    """Encode a batch of bodies as the MessagePack array that is spooled, sent and stored."""
    return _encoder.encode(bodies)


def check_batch(raw: bytes) -> list[AgentBody]:
    """Decode an agent's batch. Raises `BadRequest` unless it is 1 to `BATCH_EVENTS_MAX` events of an agent."""
    try:
        return _agent_decoder().decode(decompressed(raw))
    except UNDECODABLE as error:
        raise BadRequest(f"events: {error}") from error


def decode_bodies(raw: bytes) -> Sequence[EventBody | UnknownBody]:
    """Decode a stored segment, bodies of unknown kinds included. Raises `BadRequest`: it is not an array of events."""
    raw = decompressed(raw)
    try:
        return _bodies_decoder().decode(raw)
    except UNDECODABLE:
        pass  # an event is from newer software, or the array is broken
    try:
        return [_decode_body(body) for body in _raw_decoder.decode(raw)]
    except UNDECODABLE as error:
        raise BadRequest(f"events: {error}") from error


def _decode_body(raw: msgspec.Raw) -> EventBody | UnknownBody:
    """Decode one body, of a known or unknown kind. Raises `msgspec.DecodeError` for anything that is not an event."""
    try:
        return _body_decoder().decode(raw)
    except msgspec.ValidationError:
        fields = _fields_decoder.decode(raw)
        return msgspec.convert({**fields, "fields": fields}, UnknownBody)


def may_hold(raw: bytes, kinds: Sequence[str]) -> bool:
    """Return whether a decompressed batch may have events of these kinds: False is certain, True may be chance."""
    return any(kind.encode() in raw for kind in kinds)


def without_first(raw: bytes, count: int) -> bytes:
    """Remove the first `count` events of the batch `raw`; the others keep their bytes, and are not compressed again.

    Raises `BadRequest`: a compressed batch is broken.
    """
    return _encoder.encode(_raw_decoder.decode(decompressed(raw))[count:])


def events_of(job_id: JobId, segment: EventSegment) -> list[Event]:
    """Decode and number the events of a segment. Raises `BadRequest`: it is not an array of `count` events."""
    bodies = decode_bodies(segment.events)
    if len(bodies) != segment.count:
        raise BadRequest(f"a segment of {segment.count} events holds {len(bodies)}")
    return [
        Event(job_id=job_id, sequence=segment.first_sequence + offset, attempt=segment.attempt, body=body)
        for offset, body in enumerate(bodies)
    ]
