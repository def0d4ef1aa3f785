"""Commands that change or read the store, and their outcomes: a reply for the sender, and news for other actors."""

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

EXPIRE_MAX: Final = 64  # leases, and delays, ended by one Expire: some ms; the rest follow at once


class MintedJob(Struct, frozen=True):
    """Minted id and watch key of a job about to be stored; randomness comes from outside."""

    job_id: JobId
    watch_key: WatchKey


class TenantRequest(Struct, frozen=True, kw_only=True):
    """Request of a tenant. An EnqueueJob comes with as many `minted` as it has jobs, a RetryJob with one.

    Below `Room.AMPLE` new jobs and settings are refused with `NoSpace`: the disk is reserved for running jobs; at
    `Room.KEEPING` leases are refused too, and events except for an attempt's last few. A request beyond the tenant's
    quotas is refused with `Quota`. Jobs and queues outside of `queues` do not exist for it.
    """

    tenant: str
    request_id: RequestId
    request: StoreRequest
    minted: tuple[MintedJob, ...] = ()
    room: Room = Room.AMPLE
    quotas: Quotas = Quotas()
    queues: QueueScope = None


class Expire(Struct, frozen=True):
    """Expiry: ends leases and delays that are due, at most `EXPIRE_MAX` of each."""


class Resume(Struct, frozen=True):
    """Resumption: gives every live lease a full visibility period, after a start or a step of the clock."""


class Retain(Struct, frozen=True, kw_only=True):
    """Retention step: removes the oldest finished jobs, with their logs and metadata.

    It removes jobs that had finished before the instant `finished_before_ms`; and, while the store is larger than
    `store_bytes_max`, jobs of the tenant that uses the most, as long as that is more than an equal share of what may
    stay: so the output of one tenant's running jobs costs no other tenant its finished jobs. Idempotency records from
    before that instant are removed too, once they are a day old.
    """

    finished_before_ms: int
    store_bytes_max: int | None = None


Command = TenantRequest | Expire | Resume | Retain


class Appended(Struct, frozen=True, gc=False):
    """A segment that was appended to a job's log, and the key that its live copy is sealed with."""

    watch_key: WatchKey
    segment: EventSegment


class WatchKeyFound(Struct, frozen=True):
    """Watch key for the reply to a WatchJob; the Gateway adds where live events are published."""

    watch_key: WatchKey


class LeasesCounted(Struct, frozen=True):
    """Lease counts for the reply to a ListAgents: how many jobs run on each agent, by its name."""

    by_agent: dict[str, int]


StoreReply = Reply | WatchKeyFound | LeasesCounted


class News(Struct, kw_only=True):
    """News of one command for other actors, true once the batch is on disk.

    `ready`: in which queue, and with which needs, a job may be leased now. `exhausted`: queues that have no other job
    for an agent with the sender's tags. `nudged`: running jobs whose agents are to send a heartbeat at once. `more`:
    another step of retention would remove something.
    """

    appended: list[Appended] = []
    ready: set[QueueKey] = set()
    exhausted: set[QueueKey] = set()
    nudged: list[JobId] = []
    more: bool = False


class Done(Struct, frozen=True):
    """Outcome of a command: the `reply` to the sender (None: it is the broker's own command), and the news.

    `cost` is its work, in units of some 100 µs, computed from the rows that it touched, so that it does not depend on
    how busy the machine is.
    """

    reply: StoreReply | None
    news: News
    cost: int = 1


class Applied(Struct, frozen=True):
    """Outcomes of a batch's commands, and when the next lease or delay is due (ms since the epoch)."""

    done: list[Done]
    next_due_ms: int | None
