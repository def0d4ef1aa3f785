"""The event log: what may stand in it and how it is numbered.

An event's **body** says what happened and when, by the clock of whoever saw it; that clock is shown and
never trusted. Its **sequence** is given by the broker: 1, 2, 3, … in one job, without a hole, across
attempts. A **run** is a stretch of the log as it is stored and sent: the bytes are those of the agent's
batch, a MessagePack array of bodies, which nobody on the way encodes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta, Struct

from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import BadRequest
from airunner.protocol.job import JobState, Reason, TerminalSide
from airunner.protocol.names import JobId, Natural, Positive, Text
from airunner.protocol.usage import Usage

KIND_CHARS_MAX: Final = 128  # of the kind of an event that is not known here
OUTPUT_BYTES_MAX: Final = 65_536  # one OUTPUT event; also the size at which an agent flushes
BATCH_EVENTS_MAX: Final = 1_024
BATCH_BYTES_MAX: Final = 524_288  # encoded; two fit one frame with room to spare


class Stream(StrEnum):
    """Which of a process's outputs a piece came from; a terminal has only `stdout`."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Body(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What every event has."""

    timestamp_ms: Natural


class JobScheduled(Body, frozen=True, kw_only=True, tag="JOB_SCHEDULED"):
    """The job waits in `queue`, and is not leased before `not_before_ms`.

    The first event of every job, which names the `origin` that it retries, if any; and again whenever its
    own policy has a failed command run once more: then `retry` counts from 1.
    """

    queue: str
    not_before_ms: Natural | None = None
    retry: Natural = 0
    origin: JobId | None = None


class JobLeased(Body, frozen=True, kw_only=True, tag="JOB_LEASED"):
    """An attempt has begun on `agent`."""

    agent: str


class JobReleased(Body, frozen=True, kw_only=True, tag="JOB_RELEASED"):
    """The agent gave the job back, or another did for one that died (`lost`); it waits in its old place."""

    lost: bool = False


class JobExpired(Body, frozen=True, kw_only=True, tag="JOB_EXPIRED"):
    """The agent was not heard from in time; the job waits in its old place."""


class JobCancelRequested(Body, frozen=True, kw_only=True, tag="JOB_CANCEL_REQUESTED"):
    """Somebody asked for the job to be ended; it will not be leased again."""


class JobFinished(Body, frozen=True, kw_only=True, tag="JOB_FINISHED"):
    """The last event of every job."""

    state: JobState
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None


class GitCloneStart(Body, frozen=True, kw_only=True, tag="GIT_CLONE_START"):
    """The checkout begins; the URL is without credentials."""

    repository: Text
    commit: Text = ""
    branch: Text = ""


class GitCloneProgress(Body, frozen=True, kw_only=True, tag="GIT_CLONE_PROGRESS"):
    """How far the checkout is, or why it is tried again, in one line."""

    message: Text


class GitCloneEnd(Body, frozen=True, kw_only=True, tag="GIT_CLONE_END"):
    """The checkout stands at exactly `commit`."""

    commit: Text
    duration_ms: Natural = 0


class GitCloneError(Body, frozen=True, kw_only=True, tag="GIT_CLONE_ERROR"):
    """The checkout failed; `message` is git's own."""

    message: Annotated[str, Meta(max_length=OUTPUT_BYTES_MAX)]
    exit_code: int | None = None


class ProcessStart(Body, frozen=True, kw_only=True, tag="PROCESS_START"):
    """The command runs; `started_at` is in ms since the epoch."""

    pid: Positive
    started_at: Natural


class Output(Body, frozen=True, kw_only=True, tag="OUTPUT"):
    """A piece of the console: bytes, in whatever encoding the command wrote."""

    stream: Stream
    data: Annotated[bytes, Meta(min_length=1, max_length=OUTPUT_BYTES_MAX)]


class ProcessEnd(Body, frozen=True, kw_only=True, tag="PROCESS_END"):
    """The command ended with an exit code or by a signal, and so much was used until then."""

    pid: Positive
    exit_code: int | None = None
    signal: int | None = None
    duration_ms: Natural = 0
    usage: Usage | None = None


class ProcessError(Body, frozen=True, kw_only=True, tag="PROCESS_ERROR"):
    """The command could not be started, or something was amiss with it."""

    message: Annotated[str, Meta(max_length=OUTPUT_BYTES_MAX)]


class Heartbeat(Body, frozen=True, kw_only=True, tag="HEARTBEAT"):
    """A command that has written nothing for a while is still running; of its processes, what could be seen."""

    elapsed_ms: Natural = 0
    processes: Natural = 0
    memory_bytes: Natural = 0


class TerminalResize(Body, frozen=True, kw_only=True, tag="TERMINAL_RESIZE"):
    """The terminal has this size from here on."""

    cols: TerminalSide
    rows: TerminalSide


class OutputTruncated(Body, frozen=True, kw_only=True, tag="OUTPUT_TRUNCATED"):
    """This much output was left out here, because a bound was reached."""

    omitted_bytes: Positive


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
)
BrokerBody = JobScheduled | JobLeased | JobReleased | JobExpired | JobCancelRequested | JobFinished
EventBody = AgentBody | BrokerBody


EVENT_KINDS: Final = tuple(str(body.__struct_config__.tag) for body in get_args(EventBody))
"""The name of each kind of event."""


class UnknownBody(Struct, frozen=True, kw_only=True):
    """An event that a newer agent or broker has written and this software cannot read: `fields` is all of it."""

    kind: Annotated[str, Meta(max_length=KIND_CHARS_MAX)]
    timestamp_ms: Natural
    fields: dict[str, Any]


class EventRun(Struct, frozen=True, kw_only=True):
    """`count` events from `first_sequence` on, all of one attempt; `events` is their MessagePack array.

    Where only some kinds were asked for, `events` may be empty: none of these is among them.
    """

    first_sequence: Positive
    count: Positive
    attempt: Natural
    events: bytes

    @property
    def next_sequence(self) -> int:
        """The sequence after the last event of this run."""
        return self.first_sequence + self.count


class LiveRun(EventRun, frozen=True, kw_only=True, omit_defaults=True):
    """A run as it is published: one of more than `LIVE_BYTES_MAX` without its events, which are to be asked for."""

    events: bytes = b""


class Event(Struct, frozen=True, kw_only=True):
    """One event of one job, as a monitor sees it."""

    job_id: JobId
    sequence: Positive
    attempt: Natural
    body: EventBody | UnknownBody

    @property
    def kind(self) -> str:
        """The name of what happened, such as `OUTPUT`."""
        if isinstance(self.body, UnknownBody):
            return self.body.kind
        tag = type(self.body).__struct_config__.tag
        assert isinstance(tag, str)
        return tag

    @property
    def timestamp_ms(self) -> int:
        """When it happened, by the clock of whoever saw it, in ms since the epoch."""
        return self.body.timestamp_ms


_encoder = msgspec.msgpack.Encoder()
_bodies_decoder: msgspec.msgpack.Decoder[list[EventBody]] = msgspec.msgpack.Decoder(list[EventBody])
_body_decoder: msgspec.msgpack.Decoder[EventBody] = msgspec.msgpack.Decoder(EventBody)
_fields_decoder = msgspec.msgpack.Decoder(dict[str, Any])
_agent_decoder: msgspec.msgpack.Decoder[list[AgentBody]] = msgspec.msgpack.Decoder(
    Annotated[list[AgentBody], Meta(min_length=1, max_length=BATCH_EVENTS_MAX)]
)
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


def encode_bodies(bodies: list[AgentBody] | list[BrokerBody]) -> bytes:
    """The bodies of a batch as the MessagePack array that is spooled, sent and stored."""
    return _encoder.encode(bodies)


def check_batch(raw: bytes) -> list[AgentBody]:
    """The bodies in an agent's batch.

    Raises `BadRequest` unless `raw` is an array of 1 to `BATCH_EVENTS_MAX` events that an agent may
    publish.
    """
    try:
        return _agent_decoder.decode(raw)
    except UNDECODABLE as error:
        raise BadRequest(f"events: {error}") from error


def decode_bodies(raw: bytes) -> Sequence[EventBody | UnknownBody]:
    """The bodies of a stored run, those of kinds that are not known here among them.

    Raises `BadRequest` when it is not what a broker sends.
    """
    try:
        return _bodies_decoder.decode(raw)
    except UNDECODABLE:
        pass  # one of them is from newer software, or all of it is broken
    try:
        return [_decode_body(one) for one in _raw_decoder.decode(raw)]
    except UNDECODABLE as error:
        raise BadRequest(f"events: {error}") from error


def _decode_body(raw: msgspec.Raw) -> EventBody | UnknownBody:
    """Raises `msgspec.DecodeError` for what is no event of any kind."""
    try:
        return _body_decoder.decode(raw)
    except msgspec.ValidationError:
        fields = _fields_decoder.decode(raw)
        return msgspec.convert({**fields, "fields": fields}, UnknownBody)


def may_hold(raw: bytes, kinds: Sequence[str]) -> bool:
    """Whether an event of one of these kinds may stand in a batch; no is certain, and nothing is decoded for it."""
    return any(kind.encode() in raw for kind in kinds)


def without_first(raw: bytes, count: int) -> bytes:
    """The batch `raw` less its first `count` events; those that stay keep their bytes."""
    return _encoder.encode(_raw_decoder.decode(raw)[count:])


def events_of(job_id: JobId, run: EventRun) -> list[Event]:
    """The events of a run, numbered.

    Raises `BadRequest` when the run does not hold as many events as it says.
    """
    bodies = decode_bodies(run.events)
    if len(bodies) != run.count:
        raise BadRequest(f"a run of {run.count} events holds {len(bodies)}")
    return [
        Event(job_id=job_id, sequence=run.first_sequence + offset, attempt=run.attempt, body=body)
        for offset, body in enumerate(bodies)
    ]
