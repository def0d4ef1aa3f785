"""Commands that change or read the store, and what comes of each: a reply for its asker, and news for everybody."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from airunner.broker.store.contract import QueueKey
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.room import Room
from airunner.certs.principal import QueueScope
from airunner.protocol.events import EventSegment
from airunner.protocol.names import JobId, RequestId, WatchKey
from airunner.protocol.replies import Reply
from airunner.protocol.requests import StoreRequest

EXPIRE_MAX: Final = 64  # leases ended by one Expire, and delays: some ms; the rest are due at once, and follow


class MintedJob(Struct, frozen=True):
    """The id and watch key of a job about to be stored; randomness comes from outside."""

    job_id: JobId
    watch_key: WatchKey


class TenantRequest(Struct, frozen=True, kw_only=True):
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


class Expire(Struct, frozen=True):
    """Leases and delays that are due end, at most `EXPIRE_MAX` of each."""


class Resume(Struct, frozen=True):
    """Every live lease gets one full visibility period from now: the broker has started, or its clock has stepped."""


class Retain(Struct, frozen=True, kw_only=True):
    """One small step of retention: the oldest finished jobs are removed, with all that is known of them.

    Those that had finished before the instant `finished_before_ms`. And any while the store takes more than
    `store_bytes_max` bytes: of the tenant that takes the most, as long as that is more than an equal share of what may
    stay; so what one tenant's running jobs write costs no other its finished ones. Idempotency records from before that
    instant are removed too, once they are a day old.
    """

    finished_before_ms: int
    store_bytes_max: int | None = None


Command = TenantRequest | Expire | Resume | Retain


class Appended(Struct, frozen=True, gc=False):
    """A segment that was appended to a job's log, and the key that its live copy is sealed with."""

    watch_key: WatchKey
    run: EventSegment


class WatchKeyFound(Struct, frozen=True):
    """The answer to a WatchJob, as far as the store knows it; where live events are heard is the Gateway's."""

    watch_key: WatchKey


class LeasesCounted(Struct, frozen=True):
    """The answer to a ListAgents, as far as the store knows it: how many jobs run on each agent, by its name."""

    by_agent: dict[str, int]


StoreReply = Reply | WatchKeyFound | LeasesCounted


class News(Struct, kw_only=True):
    """News of one command for everybody, true once the batch is on disk.

    `ready`: in which queue, and with which needs, a job may be leased now. `exhausted`: queues that have no other job
    for an agent with the asker's tags. `nudged`: running jobs whose agents are to send a heartbeat at once. `more`:
    another step of retention would find something.
    """

    appended: list[Appended] = []
    ready: set[QueueKey] = set()
    exhausted: set[QueueKey] = set()
    nudged: list[JobId] = []
    more: bool = False


class Done(Struct, frozen=True):
    """What came of a command: the `reply` to the asker (None: nobody has asked), and the news.

    `cost` is the work it was, in units of some 100 µs. It is computed from the rows that were touched, so that it is
    the same however busy the machine is.
    """

    reply: StoreReply | None
    news: News
    cost: int = 1


class Applied(Struct, frozen=True):
    """What came of each command of a batch, and when the next lease or delay is due (ms since the epoch)."""

    done: list[Done]
    next_due_ms: int | None
