"""Table of requests: for each kind its role, the function that answers it, its queues, its new jobs, and its price.

Admission, Gateway, Ledger, fair queue and Store look requests up here. A test compares docs/PROTOCOL.md with it.

A price is the expected work of a request, in units of some 100 µs. Prices limit how many requests go into one
transaction. The tenant is charged not the price but the measured work: see `prices`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum, auto
from functools import cache
from typing import Any, Final, Generic, TypeVar, Union

import msgspec
from msgspec import Struct

from airunner.broker.lifecycle import extents
from airunner.broker.lifecycle.caching import find_cache, save_cache
from airunner.broker.lifecycle.commands import StoreReply, TenantRequest
from airunner.broker.lifecycle.ending import cancel, complete, load_cancel, load_complete, load_release, release
from airunner.broker.lifecycle.extents import Extent
from airunner.broker.lifecycle.leasing import dequeue, load_dequeue, load_send, load_update, send_input, update
from airunner.broker.lifecycle.publishing import load_publish, publish
from airunner.broker.lifecycle.queues import load_queue, load_secret, remove_secret, set_secret, update_queue
from airunner.broker.lifecycle.reading import (
    ask_blobs,
    check_claim,
    get_job,
    get_stdin,
    list_agents,
    list_brokers,
    list_jobs,
    list_queues,
    list_secrets,
    read_stdin,
    replay_job,
    search_log,
    states_of,
    watch_job,
    watch_tenant,
)
from airunner.broker.lifecycle.submitting import enqueue, load_enqueue, load_retry, retry
from airunner.broker.lifecycle.world import World
from airunner.broker.rates import Purpose
from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import Keys
from airunner.certs.allowlist import PeerRole
from airunner.certs.principal import Role
from airunner.protocol.cacherequests import GetCache, ListCaches, PutCache, RemoveCaches
from airunner.protocol.coding import decode_counted
from airunner.protocol.compression import content_bytes, is_compressed
from airunner.protocol.errors import BadRequest
from airunner.protocol.message import Message
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    EnqueueJobWithStdin,
    GetBlob,
    GetJob,
    GetJobStdin,
    HaveBlobs,
    ListAgents,
    ListBrokers,
    ListJobs,
    ListQueues,
    ListSecrets,
    Ping,
    PublishJobEvents,
    PutBlob,
    ReadJobStdin,
    ReleaseJob,
    RemoveSecret,
    ReplayJobEvents,
    Request,
    RetryJob,
    SearchLog,
    SendInput,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
    WatchJob,
    WatchTenant,
)
from airunner.protocol.treerequest import EnqueueJobWithTree

# How much of each kind of work fits into one unit of some 100 µs; some comments name a measurement.
JOBS_A_UNIT: Final = 4  # jobs submitted or leased: 64 submitted jobs took 16 units, and 16 leased ones took 4
STDIN_BYTES_A_UNIT: Final = 32_768  # bytes of a standard input that are stored: 1 MiB took 35 units
PAIRS_A_UNIT: Final = 8  # pairs of metadata in a submission: 64 took 8 units
QUEUES_A_UNIT: Final = 16  # queues searched for a lease: 64 took 4 units
BATCHES_A_UNIT: Final = 4  # batches of events, and completions
CONTENT_BYTES_A_UNIT: Final = 131_072  # bytes of compressed events when decompressed: 512 KiB took 1 to 13 units
LEASES_A_UNIT: Final = 8  # leases renewed: 14 took 2 units
ROWS_A_UNIT: Final = 4  # rows of a list of jobs: 100 took 30 units
UNITS_A_PAGE: Final = 8  # most units that a page takes: of a log, or of a list other than ListJobs
UNITS_A_RETRY: Final = 32  # most units of a RetryJob: it may copy a standard input, whose size is not known yet
UNITS_LOOKED: Final = 250  # further units of a ListJobs for which `looks_through_many` is true

_R = TypeVar("_R", bound=Message)


class Execution(Enum):
    """Execution of a request: in the event loop, in a thread, or in a transaction."""

    LOOK_UP = auto()  # read by a key in the event loop: it takes less time than waking a thread
    LIST = auto()  # read in a thread, because it may take long
    CHANGE = auto()  # executed in a transaction, and answered after the commit


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

    The sender needs `role`, or `or_role`.

    One of three functions answers it: `change` in a transaction, on the rows that `load` requests; `look_up` in the
    event loop, since it reads by a key; or `listing` in a thread, since it may take long. `queues` returns the queues
    that the request names. `mints` returns how many jobs it creates: the Gateway draws their ids and keys. `extent`
    bounds what it writes. `blobs`: the tenant's bucket for blobs is charged, so that blobs delay no other request.
    """

    role: Role
    or_role: Role | None = None
    change: Callable[[World, TenantRequest, _R], StoreReply] | None = None
    load: Callable[[Keys, TenantRequest, _R], None] = _load_nothing
    look_up: Callable[[Engine, TenantRequest, _R], StoreReply] | None = None
    listing: Callable[[Engine, TenantRequest, _R], StoreReply] | None = None
    price: Callable[[_R], int] = _one
    queues: Callable[[_R], Collection[str]] = _nothing
    mints: Callable[[_R], int] = _none
    extent: Callable[[_R], Extent] = extents.nothing_written
    blobs: bool = False

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles of which a sender needs one."""
        return (self.role,) if self.or_role is None else (self.role, self.or_role)

    @property
    def senders(self) -> frozenset[PeerRole]:
        """Machines that may send it."""
        return frozenset(PeerRole.AGENT if role is Role.WORK else PeerRole.CLIENT for role in self.roles)

    @property
    def purpose(self) -> Purpose:
        """Purpose of the tenant's bucket that is charged."""
        if self.blobs:
            return Purpose.BLOBS
        return Purpose.AGENT if self.role is Role.WORK else Purpose.CLIENT

    @property
    def execution(self) -> Execution:
        """Execution of this kind, which follows from the function that answers it."""
        if self.change is not None:
            return Execution.CHANGE
        return Execution.LIST if self.look_up is None else Execution.LOOK_UP

    @property
    def decider(self) -> Callable[[World, TenantRequest, _R], StoreReply]:
        """Function that answers a request which changes something."""
        assert self.change is not None, "this request only reads"
        return self.change

    @property
    def reader(self) -> Callable[[Engine, TenantRequest, _R], StoreReply]:
        """Function that answers a request which only reads."""
        found = self.look_up or self.listing
        assert found is not None, "this request changes something"
        return found


def looks_through_many(request: ListJobs) -> bool:
    """Check whether a list has several filters (queue and state count as one): the store may search many jobs."""
    by_place = request.queue is not None or request.state is not None
    others = int(request.owner is not None) + int(request.name is not None) + len(request.metadata)
    return len(states_of(request)) > 1 or int(by_place) + others > 1


def _price_of_enqueue(request: EnqueueJob | EnqueueJobWithStdin | EnqueueJobWithTree) -> int:
    pairs = sum([len(job.metadata) for job in request.jobs if job.metadata])  # a list: faster than a generator
    stdin_bytes = len(request.stdin) if isinstance(request, EnqueueJobWithStdin) else 0
    return 1 + stdin_bytes // STDIN_BYTES_A_UNIT + len(request.jobs) // JOBS_A_UNIT + pairs // PAIRS_A_UNIT


def _price_of_publish(request: PublishJobEvents) -> int:
    packed = [batch.events for batch in request.batches if is_compressed(batch.events)]
    batches = len(request.batches) + len(request.completions)
    return 1 + batches // BATCHES_A_UNIT + sum(map(_content_bytes, packed)) // CONTENT_BYTES_A_UNIT


def _content_bytes(packed: bytes) -> int:
    try:
        return content_bytes(packed)
    except BadRequest:  # the batch will be refused before it is decompressed
        return 0


def _price_of_list(request: ListJobs) -> int:
    return 1 + request.page_size // ROWS_A_UNIT + (UNITS_LOOKED if looks_through_many(request) else 0)


def _queue_of(request: UpdateQueue | SetSecret | RemoveSecret) -> tuple[str]:
    return (request.queue,)


def _queue_asked(
    request: ListJobs | ListQueues | ListSecrets | WatchTenant | ListCaches | RemoveCaches,
) -> tuple[str, ...]:
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
        extent=extents.extent_of_enqueue,
    ),
    EnqueueJobWithStdin: Kind[EnqueueJobWithStdin](
        role=Role.SUBMIT,
        change=enqueue,
        load=load_enqueue,
        price=_price_of_enqueue,
        queues=lambda request: (request.job.queue,),
        mints=_one,
        extent=extents.extent_of_stdin,
    ),
    DequeueJob: Kind[DequeueJob](
        role=Role.WORK,
        change=dequeue,
        load=load_dequeue,
        price=lambda request: 1 + request.slots // JOBS_A_UNIT + len(request.queues) // QUEUES_A_UNIT,
        queues=lambda request: request.queues,
        extent=extents.extent_of_dequeue,
    ),
    UpdateJob: Kind[UpdateJob](
        role=Role.WORK,
        change=update,
        load=load_update,
        price=lambda request: 1 + len(request.leases) // LEASES_A_UNIT,
        extent=extents.extent_of_update,
    ),
    PublishJobEvents: Kind[PublishJobEvents](
        role=Role.WORK,
        change=publish,
        load=load_publish,
        price=_price_of_publish,
        extent=extents.extent_of_publish,
    ),
    CompleteJob: Kind[CompleteJob](role=Role.WORK, change=complete, load=load_complete, extent=lambda _: extents.END),
    ReleaseJob: Kind[ReleaseJob](role=Role.WORK, change=release, load=load_release, extent=lambda _: extents.RELEASE),
    ReadJobStdin: Kind[ReadJobStdin](role=Role.WORK, look_up=read_stdin, price=_page),
    GetJobStdin: Kind[GetJobStdin](role=Role.SUBMIT, look_up=get_stdin, price=_page),
    EnqueueJobWithTree: Kind[EnqueueJobWithTree](
        role=Role.SUBMIT,
        look_up=ask_blobs,
        price=_price_of_enqueue,
        queues=lambda request: (request.job.queue,),
        mints=_one,
    ),
    HaveBlobs: Kind[HaveBlobs](role=Role.WORK, or_role=Role.SUBMIT, blobs=True, look_up=check_claim),
    PutBlob: Kind[PutBlob](role=Role.WORK, or_role=Role.SUBMIT, blobs=True, look_up=check_claim),
    GetBlob: Kind[GetBlob](role=Role.READ, or_role=Role.WORK, blobs=True, look_up=ask_blobs),
    GetCache: Kind[GetCache](role=Role.WORK, blobs=True, look_up=find_cache),
    PutCache: Kind[PutCache](role=Role.WORK, blobs=True, look_up=save_cache),
    ListCaches: Kind[ListCaches](role=Role.READ, blobs=True, look_up=ask_blobs, queues=_queue_asked),
    RemoveCaches: Kind[RemoveCaches](role=Role.ADMIN, blobs=True, look_up=ask_blobs, queues=_queue_asked),
    CancelJob: Kind[CancelJob](role=Role.SUBMIT, change=cancel, load=load_cancel, extent=lambda _: extents.END),
    SendInput: Kind[SendInput](role=Role.SUBMIT, change=send_input, load=load_send, extent=lambda _: extents.SIZE),
    RetryJob: Kind[RetryJob](
        role=Role.SUBMIT,
        change=retry,
        load=load_retry,
        price=lambda _: UNITS_A_RETRY,
        mints=_one,
        extent=extents.extent_of_retry,
    ),
    UpdateQueue: Kind[UpdateQueue](
        role=Role.ADMIN, change=update_queue, load=load_queue, queues=_queue_of, extent=lambda _: extents.MODE
    ),
    SetSecret: Kind[SetSecret](
        role=Role.ADMIN, change=set_secret, load=load_secret, queues=_queue_of, extent=lambda _: extents.SETTING
    ),
    RemoveSecret: Kind[RemoveSecret](
        role=Role.ADMIN, change=remove_secret, load=load_secret, queues=_queue_of, extent=lambda _: extents.SETTING
    ),
    ListQueues: Kind[ListQueues](role=Role.READ, listing=list_queues, price=_page, queues=_queue_asked),
    ListAgents: Kind[ListAgents](role=Role.READ, listing=list_agents, price=_page),
    ListBrokers: Kind[ListBrokers](role=Role.READ, listing=list_brokers, price=_page),
    ListJobs: Kind[ListJobs](role=Role.READ, listing=list_jobs, price=_price_of_list, queues=_queue_asked),
    ListSecrets: Kind[ListSecrets](role=Role.READ, listing=list_secrets, price=_page, queues=_queue_asked),
    GetJob: Kind[GetJob](role=Role.READ, look_up=get_job),
    ReplayJobEvents: Kind[ReplayJobEvents](role=Role.READ, look_up=replay_job, price=_page),
    SearchLog: Kind[SearchLog](role=Role.READ, listing=search_log, price=_page),
    WatchJob: Kind[WatchJob](role=Role.READ, look_up=watch_job),
    WatchTenant: Kind[WatchTenant](role=Role.READ, look_up=watch_tenant, queues=_queue_asked),
}
"""Kinds of all requests except Ping, which needs no role and which the Gateway answers."""


def kind_of(request: StoreRequest) -> Kind[Any]:
    """Look up the kind of a request."""
    return KINDS[type(request)]


def decode(body: bytes) -> tuple[Request, int]:
    """Decode a body: a Ping, or a request of a kind in the table; return also how many values were counted in it.

    Raises `BadRequest`: it is neither.
    """
    return decode_counted(body, request_decoder())


@cache
def request_decoder() -> msgspec.msgpack.Decoder[Request]:
    """Return the decoder of Pings and of the requests in the table, as the table is at the first call."""
    return msgspec.msgpack.Decoder(Union[(Ping, *KINDS)])
