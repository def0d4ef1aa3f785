"""Table of requests: for each kind its role, the function that answers it, what it names and mints, and its price.

Admission, Gateway, Ledger, fair queue and Store look requests up here. A test checks docs/PROTOCOL.md against it.

A price is the expected work of a request, in units of some 100 µs. It limits how many requests go into one transaction.
What the tenant pays is measured when the work is done; see `prices`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum, auto
from functools import cache
from typing import Any, Final, Generic, TypeVar, Union

import msgspec
from msgspec import Struct

from airunner.broker.lifecycle.commands import StoreReply, TenantRequest
from airunner.broker.lifecycle.ending import cancel, complete, load_cancel, load_complete, load_release, release
from airunner.broker.lifecycle.leasing import dequeue, load_dequeue, load_update, update
from airunner.broker.lifecycle.publishing import load_publish, publish
from airunner.broker.lifecycle.queues import load_queue, load_secret, remove_secret, set_secret, update_queue
from airunner.broker.lifecycle.reading import (
    get_job,
    list_agents,
    list_jobs,
    list_queues,
    list_secrets,
    replay_job,
    watch_job,
)
from airunner.broker.lifecycle.submitting import enqueue, load_enqueue, load_retry, retry
from airunner.broker.lifecycle.world import World
from airunner.broker.store.contract import Engine, Keys
from airunner.certs.principal import Role
from airunner.protocol.coding import decode_checked
from airunner.protocol.replies import Message
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    GetJob,
    ListAgents,
    ListJobs,
    ListQueues,
    ListSecrets,
    Ping,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    ReplayJobEvents,
    Request,
    RetryJob,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
    WatchJob,
)

# Expected work, in units of some 100 µs; measurements are in the comments.
JOBS_A_UNIT: Final = 4  # submitted or leased: 64 took 16, and 16 leases 4
PAIRS_A_UNIT: Final = 8  # of metadata: 64 of one job took 8
QUEUES_A_UNIT: Final = 16  # searched: 64 took 4
BATCHES_A_UNIT: Final = 4  # of events, and completions
LEASES_A_UNIT: Final = 8  # renewed: 14 took 2
ROWS_A_UNIT: Final = 4  # of a list of jobs: 100 took 30
UNITS_A_PAGE: Final = 8  # at most, of other lists and of a log
UNITS_LOOKED: Final = 250  # of a list that may look through very many jobs

_R = TypeVar("_R", bound=Message)


class Run(Enum):
    """Run of a request: where it is answered, and what it waits for."""

    LOOK_UP = auto()  # read by a key, which takes less time than to wake a thread; also when the disk is full
    LIST = auto()  # read in a thread: it may take long; also when the disk is full
    CHANGE = auto()  # in a transaction: answered when that is on the disk


def _nothing(_request: object) -> tuple[()]:
    return ()


def _load_nothing(_keys: Keys, _command: TenantRequest, _request: object) -> None:
    """Load no rows, for a request that needs none."""


def _one(_request: object) -> int:
    return 1


def _none(_request: object) -> int:
    return 0


class Kind(Struct, Generic[_R], frozen=True, kw_only=True):
    """Kind of request: a row of the table.

    One of three functions answers it: `change` in a transaction, on the rows that `load` asks for; `look_up` at once,
    since it reads by a key; or `listing` in a thread, since it may take long. `queues`: the queues that it names.
    `mints`: how many jobs it creates, whose ids and keys the Gateway draws.
    """

    role: Role
    change: Callable[[World, TenantRequest, _R], StoreReply] | None = None
    load: Callable[[Keys, TenantRequest, _R], None] = _load_nothing
    look_up: Callable[[Engine, TenantRequest, _R], StoreReply] | None = None
    listing: Callable[[Engine, TenantRequest, _R], StoreReply] | None = None
    price: Callable[[_R], int] = _one
    queues: Callable[[_R], Collection[str]] = _nothing
    mints: Callable[[_R], int] = _none

    @property
    def works(self) -> bool:
        """Work of agents, which is charged to a bucket of its own."""
        return self.role is Role.WORK

    @property
    def run(self) -> Run:
        """Run of this kind, by the function that answers it."""
        if self.change is not None:
            return Run.CHANGE
        return Run.LIST if self.look_up is None else Run.LOOK_UP

    @property
    def decider(self) -> Callable[[World, TenantRequest, _R], StoreReply]:
        """Function that answers a request which changes something."""
        assert self.change is not None, "a request that only reads has a reader"
        return self.change

    @property
    def reader(self) -> Callable[[Engine, TenantRequest, _R], StoreReply]:
        """Function that answers a request which only reads."""
        found = self.look_up or self.listing
        assert found is not None, "a request that changes something has a decider"
        return found


def looks_through_many(request: ListJobs) -> bool:
    """Check for several filters: then the store may have to look through many jobs that are not on the list."""
    by_place = request.queue is not None or request.state is not None
    return int(by_place) + int(request.owner is not None) + len(request.metadata) > 1


def _price_of_enqueue(request: EnqueueJob) -> int:
    pairs = sum(len(job.metadata) for job in request.jobs)
    return 1 + len(request.jobs) // JOBS_A_UNIT + pairs // PAIRS_A_UNIT


def _price_of_list(request: ListJobs) -> int:
    return 1 + request.page_size // ROWS_A_UNIT + (UNITS_LOOKED if looks_through_many(request) else 0)


def _queue_of(request: UpdateQueue | SetSecret | RemoveSecret) -> tuple[str]:
    return (request.queue,)


def _queue_asked(request: ListJobs | ListSecrets) -> tuple[str, ...]:
    return () if request.queue is None else (request.queue,)


def _page(_request: object) -> int:
    return UNITS_A_PAGE


KINDS: Final[dict[type[Message], Kind[Any]]] = {
    EnqueueJob: Kind[EnqueueJob](
        role=Role.SUBMIT,
        change=enqueue,
        load=load_enqueue,
        price=_price_of_enqueue,
        queues=lambda request: {job.queue for job in request.jobs},
        mints=lambda request: len(request.jobs),
    ),
    DequeueJob: Kind[DequeueJob](
        role=Role.WORK,
        change=dequeue,
        load=load_dequeue,
        price=lambda request: 1 + request.slots // JOBS_A_UNIT + len(request.queues) // QUEUES_A_UNIT,
        queues=lambda request: request.queues,
    ),
    UpdateJob: Kind[UpdateJob](
        role=Role.WORK,
        change=update,
        load=load_update,
        price=lambda request: 1 + len(request.leases) // LEASES_A_UNIT,
    ),
    PublishJobEvents: Kind[PublishJobEvents](
        role=Role.WORK,
        change=publish,
        load=load_publish,
        price=lambda request: 1 + (len(request.batches) + len(request.completions)) // BATCHES_A_UNIT,
    ),
    CompleteJob: Kind[CompleteJob](role=Role.WORK, change=complete, load=load_complete),
    ReleaseJob: Kind[ReleaseJob](role=Role.WORK, change=release, load=load_release),
    CancelJob: Kind[CancelJob](role=Role.SUBMIT, change=cancel, load=load_cancel),
    RetryJob: Kind[RetryJob](role=Role.SUBMIT, change=retry, load=load_retry, mints=_one),
    UpdateQueue: Kind[UpdateQueue](role=Role.ADMIN, change=update_queue, load=load_queue, queues=_queue_of),
    SetSecret: Kind[SetSecret](role=Role.ADMIN, change=set_secret, load=load_secret, queues=_queue_of),
    RemoveSecret: Kind[RemoveSecret](role=Role.ADMIN, change=remove_secret, load=load_secret, queues=_queue_of),
    ListQueues: Kind[ListQueues](role=Role.READ, listing=list_queues, price=_page),
    ListAgents: Kind[ListAgents](role=Role.READ, listing=list_agents, price=_page),
    ListJobs: Kind[ListJobs](role=Role.READ, listing=list_jobs, price=_price_of_list, queues=_queue_asked),
    ListSecrets: Kind[ListSecrets](role=Role.READ, listing=list_secrets, price=_page, queues=_queue_asked),
    GetJob: Kind[GetJob](role=Role.READ, look_up=get_job),
    ReplayJobEvents: Kind[ReplayJobEvents](role=Role.READ, look_up=replay_job, price=_page),
    WatchJob: Kind[WatchJob](role=Role.READ, look_up=watch_job),
}
"""Kinds of all requests but Ping, which needs no role and which the Gateway answers."""


def kind_of(request: StoreRequest) -> Kind[Any]:
    """Look up the kind of a request."""
    return KINDS[type(request)]


def price_of(request: StoreRequest) -> int:
    """Price of a request: its expected work, in units of some 100 µs."""
    return kind_of(request).price(request)


def decode(body: bytes) -> Request:
    """Decode the request in a body whose structure was checked: a Ping, or of a kind that is in the table.

    Raises `BadRequest` for anything else.
    """
    return decode_checked(body, _decoder_of(tuple(KINDS)))


@cache
def _decoder_of(kinds: tuple[type[Message], ...]) -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Union[(Ping, *kinds)])
