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

from airunner.broker.store.quotas import Quotas
from airunner.broker.store.room import Room
from airunner.certs.principal import QueueScope
from airunner.protocol.events import EventRun
from airunner.protocol.messages import ListJobs, Reply, StoreRequest
from airunner.protocol.names import JobId, RequestId, WatchKey

BATCH_COMMANDS_MAX: Final = 256  # one transaction; a commit's fsync is shared by so many
EXPIRE_MAX: Final = 64  # leases ended by one Expire, and delays: some 10 ms; the rest are due at once, and follow


class QueueKey(NamedTuple):
    """One queue of one tenant; or, with `needs`, those of its jobs that need so much of their agent: see `needs`."""

    tenant: str
    queue: str
    needs: str = ""


class MintedJob(Struct, frozen=True):
    """The id and watch key of a job about to be stored; randomness comes from outside."""

    job_id: JobId
    watch_key: WatchKey


class Ask(Struct, frozen=True, kw_only=True):
    """A tenant's request. An EnqueueJob brings as many `minted` as it has jobs, a RetryJob one.

    Below `Room.AMPLE` what is submitted or set now is refused with `NoSpace`: the disk is kept for what runs already;
    at `Room.KEEPING` leases are too, and events but for an attempt's last few. What is more than the tenant may have
    is refused with `Quota`. Jobs and queues outside of `queues` are not there for it.
    """

    tenant: str
    request_id: RequestId
    request: StoreRequest
    minted: tuple[MintedJob, ...] = ()
    room: Room = Room.AMPLE
    quotas: Quotas = Quotas()
    queues: QueueScope = None


def looks_through_many(request: ListJobs) -> bool:
    """Whether a store may have to look at many jobs that are not on such a list: it asks for more than one thing."""
    by_place = request.queue is not None or request.state is not None
    return int(by_place) + int(request.owner is not None) + len(request.metadata) > 1


class Expire(Struct, frozen=True):
    """End what is due, at most `EXPIRE_MAX` of each: leases, and the delays of jobs that may now be leased."""


class Resume(Struct, frozen=True):
    """The broker has started, or its clock has stepped: every live lease gets one full visibility period from now."""


class Retain(Struct, frozen=True, kw_only=True):
    """Remove one small step's worth of finished jobs, the oldest first, with all that is known of them.

    Those that had finished before the instant `finished_before_ms`. And any while the store takes more than
    `store_bytes_max` bytes: of the tenant that takes the most, as long as that is more than an equal share of what may
    stay; so what one tenant's running jobs write costs no other its finished ones. What requests were answered before
    that instant is forgotten too, once it is a day old.
    """

    finished_before_ms: int
    store_bytes_max: int | None = None


Command = Ask | Expire | Resume | Retain


class Appended(Struct, frozen=True):
    """A run that was appended to a job's log, and the key that its live copy is sealed with."""

    watch_key: WatchKey
    run: EventRun


class WatchKeyFound(Struct, frozen=True):
    """The answer to a WatchJob, as far as a store knows it; where live events are heard is the Gateway's."""

    watch_key: WatchKey


class LeasesCounted(Struct, frozen=True):
    """The answer to a ListAgents, as far as a store knows it: how many jobs run on each agent, by its name."""

    by_agent: dict[str, int]


StoreReply = Reply | WatchKeyFound | LeasesCounted


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one command; `reply` is None for those that nobody asked for.

    `ready`: in which queue, and with which needs, a job may be leased now. `exhausted`: queues that were looked through
    and have no other job for an agent with the asker's tags. `nudged`: running jobs whose holders have news to hear.
    `more`: of a Retain, that another step would find something. `cost`: how much work it was for the store, in units of
    roughly 100 µs; counted from what it did, so that it is the same however busy the machine is.
    """

    reply: StoreReply | None = None
    appended: tuple[Appended, ...] = ()
    ready: frozenset[QueueKey] = frozenset()
    exhausted: frozenset[QueueKey] = frozenset()
    nudged: tuple[JobId, ...] = ()
    more: bool = False
    cost: int = 0


class Applied(Struct, frozen=True):
    """One outcome for each command, and when the next lease or delay is due (ms since the epoch)."""

    outcomes: tuple[Outcome, ...]
    next_due_ms: int | None


class Store(Protocol):
    """The queue and the event log."""

    def apply(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """Apply at most `BATCH_COMMANDS_MAX` commands as one transaction, at the instant `now_ms`.

        It is `stage` and `commit`.

        Raises `NoSpace` when the disk is full: nothing of the batch is stored and the store goes on.
        """
        ...

    def stage(self, commands: Sequence[Command], now_ms: int) -> Applied:
        """All of `apply` but the waiting for the disk: what it returns holds once `commit` has returned.

        Nothing else may be asked of the store in between. Raises `NoSpace`, as `apply`.
        """
        ...

    def commit(self) -> None:
        """Have on disk what was staged. Raises `NoSpace`, as `apply`."""
        ...

    def write_back(self) -> None:
        """Give back what a journal takes of the disk, as far as there is room for that; between two batches."""
        ...

    def close(self) -> None:
        """Let go of the store; it can be opened again."""
        ...
