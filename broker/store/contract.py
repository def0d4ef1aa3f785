"""What every Store promises. tests/conformance holds each one to it.

- `apply` is atomic: the whole batch is on disk when it returns, or nothing of it is.
- It is deterministic: time, ids and keys come in with the commands; it reads no clock and draws no number.
- A command that is refused changes nothing and does not disturb its neighbours in the batch.
- Commands take effect in the order given; a reading command sees what stands before it in the batch.
- What it returns is the truth to be told once the batch is down: a reply for each command, the runs that
  were appended to logs, and the queues in which a job became ready.

The contract assumes nothing of SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from airunner.protocol.events import EventRun
from airunner.protocol.messages import (
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    GetJob,
    ListJobs,
    PublishJobEvents,
    ReleaseJob,
    ReplayJobEvents,
    Reply,
    UpdateJob,
    WatchJob,
)
from airunner.protocol.names import JobId, RequestId, WatchKey

BATCH_COMMANDS_MAX: Final = 256  # one transaction; a commit's fsync is shared by so many
EXPIRE_MAX: Final = 256  # leases ended by one Expire; the rest are due at once and follow in the next batch
AGENT_LOST_MAX: Final = 3  # attempts that may end with their agent before the job fails

StoreRequest = (
    EnqueueJob
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


class QueueKey(NamedTuple):
    """One queue of one tenant."""

    tenant: str
    queue: str


class MintedJob(Struct, frozen=True):
    """The id and watch key of a job about to be stored; randomness comes from outside."""

    job_id: JobId
    watch_key: WatchKey


class Ask(Struct, frozen=True, kw_only=True):
    """A tenant's request. An EnqueueJob brings as many `minted` as it has jobs."""

    tenant: str
    request_id: RequestId
    request: StoreRequest
    minted: tuple[MintedJob, ...] = ()


class Expire(Struct, frozen=True):
    """End the leases that are due, at most `EXPIRE_MAX`."""


class Resume(Struct, frozen=True):
    """The broker has started: every live lease gets at least one full visibility period from now."""


Command = Ask | Expire | Resume


class Appended(Struct, frozen=True):
    """A run that was appended to a job's log, and the key that its live copy is sealed with."""

    watch_key: WatchKey
    run: EventRun


class WatchKeyFound(Struct, frozen=True):
    """The answer to a WatchJob, as far as a store knows it; where live events are heard is the Gateway's."""

    watch_key: WatchKey


StoreReply = Reply | WatchKeyFound


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one command; `reply` is None for those that nobody asked for."""

    reply: StoreReply | None = None
    appended: tuple[Appended, ...] = ()
    ready: frozenset[QueueKey] = frozenset()


class Applied(Struct, frozen=True):
    """One outcome for each command, and when the next lease is due (ms since the epoch)."""

    outcomes: tuple[Outcome, ...]
    next_due_ms: int | None


class Store(Protocol):
    """The queue and the event log."""

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply at most `BATCH_COMMANDS_MAX` commands as one transaction, at the instant `now_ms`.

        Raises `NoSpace` when the disk is full: nothing of the batch is stored and the store goes on.
        """
        ...

    def close(self) -> None:
        """Let go of the store; it can be opened again."""
        ...
