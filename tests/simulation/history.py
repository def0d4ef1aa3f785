"""What happened in one simulated run, as it could be seen from outside: what the oracle judges.

Records are appended in the order of happening. `at_ms` is virtual time since the run began, the same for all
machines; instants inside jobs and events are the broker's clock, which `Started.wall_offset_ms` ties to it.
Nothing here is the broker's opinion of itself: what it said is recorded where its router sends, what ran
where the simulated processes live, and what is left is read by a client when all is over.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from typing import TypeVar

import msgspec
from msgspec import Struct

from airunner.protocol.events import Event, Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState
from airunner.protocol.replies import Verdict

DEFAULT_TENANT = "default"
ALONE = "broker"  # the name of one that is


class Record(Struct, frozen=True, kw_only=True, tag=True, tag_field="record"):
    """Something that happened."""

    at_ms: int


# --- clients ------------------------------------------------------------------------------------------


class Invoked(Record, frozen=True, kw_only=True):
    """A client begins to ask; recorded once for each request id, before the first frame leaves.

    `kind` is `enqueue` (with `jobs`), `cancel` or `retry` (with `job_id`) or `queue` (with `queue`, `mode`).
    """

    machine: str
    request_id: bytes
    kind: str
    tenant: str = DEFAULT_TENANT
    jobs: tuple[JobSpec, ...] = ()
    job_id: str | None = None
    queue: str | None = None
    mode: str | None = None


class Acknowledged(Record, frozen=True, kw_only=True):
    """A client was told that its request was met: with `job_ids` (enqueue, retry) or a `state` (cancel)."""

    machine: str
    request_id: bytes
    kind: str
    job_ids: tuple[str, ...] = ()
    state: JobState | None = None


class Monitored(Record, frozen=True, kw_only=True):
    """A monitor was given an event. `monitor` names one call of follow and no other, from `from_sequence` on."""

    monitor: str
    job_id: str
    from_sequence: int
    event: Event


class FollowEnded(Record, frozen=True, kw_only=True):
    """That follow ended by itself: it says that it has seen all."""

    monitor: str
    job_id: str
    from_sequence: int


# --- what the broker's router sent --------------------------------------------------------------------


class Told(Record, frozen=True, kw_only=True):
    """A reply as the broker's router sent it, whether or not it arrived.

    `asked_at_ms`: when this broker process was first given a request with this id.
    """

    machine: str  # the asker's
    broker: str = ALONE
    request_id: bytes
    asked_at_ms: int


class Asked(Record, frozen=True, kw_only=True):
    """A broker's router has received a DequeueJob that may wait for `wait_ms`."""

    machine: str
    broker: str
    request_id: bytes
    queues: tuple[str, ...]
    wait_ms: int


class Leased(Told, frozen=True, kw_only=True):
    """A JobsLeased, with leases or without."""


class Granted(Told, frozen=True, kw_only=True):
    """A lease in a JobsLeased, one record for each; a repeat of the request makes the same records again."""

    job_id: str
    attempt: int
    visibility_ms: int


class Judged(Told, frozen=True, kw_only=True):
    """A verdict in a JobsUpdated, one record for each; `visibility_ms` is the request's."""

    job_id: str
    attempt: int
    verdict: Verdict
    visibility_ms: int


class Stored(Told, frozen=True, kw_only=True):
    """An outcome in a JobEventsPublished, one record for each."""

    job_id: str
    attempt: int
    next_index: int
    code: str | None = None


class Completed(Told, frozen=True, kw_only=True):
    """A JobCompleted; job and attempt are the request's."""

    job_id: str
    attempt: int
    state: JobState


class Released(Told, frozen=True, kw_only=True):
    """The reply to a ReleaseJob; job and attempt are the request's."""

    job_id: str
    attempt: int


class RefusedReply(Told, frozen=True, kw_only=True):
    """A Refused; `kind` is the request's tag, such as `CompleteJob`; its job where it has one of its own."""

    kind: str
    code: str
    job_id: str | None = None


# --- machines and processes ---------------------------------------------------------------------------


class Started(Record, frozen=True, kw_only=True):
    """A machine's process begins. A broker's clock then says `wall_offset_ms` + virtual time, until its end."""

    machine: str
    broker: bool = False
    wall_offset_ms: int = 0


class Slept(Record, frozen=True, kw_only=True):
    """The machine is suspended, with all that runs on it and its monotonic clock."""

    machine: str


class Woken(Record, frozen=True, kw_only=True):
    """SIGCONT, or the end of a sleep."""

    machine: str


class Killed(Record, frozen=True, kw_only=True):
    """SIGKILL, a crash or a power cut: the machine's process has ended."""

    machine: str
    why: str = "kill"


class ProcessStarted(Record, frozen=True, kw_only=True):
    """A job's process begins to live. `pid` is unique in the run."""

    machine: str
    pid: int
    job_id: str
    attempt: int


class ProcessWrote(Record, frozen=True, kw_only=True):
    """It has put these bytes into its pipe, whether or not the agent reads them."""

    pid: int
    stream: Stream
    data: bytes


class ProcessGone(Record, frozen=True, kw_only=True):
    """It lives no more: it exited, or a signal ended it."""

    pid: int
    exit_code: int | None = None
    signal: int | None = None


# --- a database that several brokers share ------------------------------------------------------------


class Committed(Record, frozen=True, kw_only=True):
    """A transaction of a broker is visible from now on, at its `place` in the server's log (0: it is not in it).

    `answered`: requests whose answer it stored. `leased`: jobs, attempts, and the requests that these are granted to.
    `ended`: attempts that have ended, and of which jobs. `ready`: jobs that may be leased now; `unready`: no longer.
    `modes`: queues and the modes that they are in from now on.
    `opens`: the broker has opened the database. `adopted`: brokers that are dead from now on, until they open it again.
    """

    place: int
    broker: str
    answered: tuple[bytes, ...] = ()
    leased: tuple[tuple[str, int, bytes], ...] = ()
    ended: tuple[tuple[str, int], ...] = ()
    ready: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    modes: tuple[tuple[str, str], ...] = ()
    opens: bool = False
    adopted: tuple[str, ...] = ()


class LateIndexes(Record, frozen=True, kw_only=True):
    """The store finds waiting jobs in indexes that show what was up to so long ago."""

    late_ms: int


class FailedOver(Record, frozen=True, kw_only=True):
    """The standby has taken over: what was in the log behind `place` is gone."""

    place: int


class Noted(Record, frozen=True, kw_only=True):
    """Something else for whoever reads a trace, such as a partition; no law reads it."""

    what: str


# --- the end ------------------------------------------------------------------------------------------


class Healed(Record, frozen=True, kw_only=True):
    """From here on there are no faults, every machine runs and no queue is held back."""


class Piled(Record, frozen=True, kw_only=True):
    """The most live events that ever waited for a subscriber, and the largest message of them; told at the end."""

    machine: str
    waiting_bytes: int
    message_bytes: int


class LeftWaiting(Record, frozen=True, kw_only=True):
    """Somebody had not got through long after everything was healed: a client, or a monitor with the job it follows."""

    machine: str
    job_id: str | None = None


class FinalJob(Record, frozen=True, kw_only=True):
    """A job as a client reads it when all is over; one for every job that ListJobs shows, in every tenant."""

    job: Job
    tenant: str = DEFAULT_TENANT


class FinalEvents(Record, frozen=True, kw_only=True):
    """The whole log of a job, as ReplayJobEvents gives it when all is over."""

    job_id: str
    events: tuple[Event, ...]


def wall_ms() -> int:
    """What the clock of this machine shows: the time of a run that is not simulated."""
    return int(time.time() * 1_000)


def pack(records: Iterable[Record]) -> bytes:
    """The records one behind the other: packed ones may be appended to packed ones."""
    return b"".join(map(pickle.dumps, records))


def unpack(packed: bytes) -> list[Record]:
    """All of which there is the whole."""
    records: list[Record] = []
    with BytesIO(packed) as file, suppress(EOFError, pickle.UnpicklingError):
        while True:
            records.append(pickle.load(file))
    return records


AnyRecord = TypeVar("AnyRecord", bound=Record)
_encoder = msgspec.msgpack.Encoder()


class History(list[Record]):
    """All records of a run, as time goes."""

    def of(self, kind: type[AnyRecord]) -> list[AnyRecord]:
        """Every record of this kind, in the order of happening."""
        return [record for record in self if isinstance(record, kind)]

    def digest(self) -> str:
        """The same for two runs in which the very same happened."""
        return blake2b(b"".join(map(_encoder.encode, self)), digest_size=16).hexdigest()
