"""Inboxes of the broker's actors, and the messages in them.

Every inbox is bounded: an anyio stream, and for the Ledger the `fairqueue`. Senders to the fair queue never wait: when
it is full the Gateway replies `busy`, and the peer repeats its request. Gateway and Announcer have no inbox: all they
do with a message is to send it on, which never waits, so they do it in the Ledger's call. Nor does the Ledger have a
task for each batch (see `offload`). A wake-up takes as long as the reply to a small request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from airunner.broker.lifecycle.commands import Appended, StoreReply, TenantRequest
from airunner.broker.store.rows import BrokerRow
from airunner.protocol.frames import REVISION
from airunner.protocol.names import JobId

ALARMS_MAX: Final = 16  # alarms in the Timekeeper's inbox; it gets a turn between any two batches
BEATS_MAX: Final = 1  # messages in the Fleet's inbox; it requests one beat or adoption at a time
SWEEPS_MAX: Final = 1  # messages in the Janitor's inbox; it requests one step of retention at a time


class Pending(Struct, frozen=True):
    """Pending request, Gateway → Ledger: `peer`, admitted by its `key`, waits for the reply (None: no peer does).

    `size_bytes` is the size of the request's body; the reply is written in the request's `revision` of the protocol.
    `price` is the expected work, see `broker.requests`; the Gateway's own ReleaseJobs have the default.
    """

    peer: bytes | None
    command: TenantRequest
    key: str = ""
    size_bytes: int = 0
    revision: int = REVISION
    price: int = 1


class Response(Struct, frozen=True):
    """Response, Ledger → Gateway: `peer` gets the `reply`; what the command changed, if anything, is on disk.

    `repeated`, `deadline_ms`: see `News`.
    """

    peer: bytes
    command: TenantRequest
    reply: StoreReply
    key: str = ""
    revision: int = REVISION
    repeated: bool = False
    deadline_ms: int | None = None


class Nudged(Struct, frozen=True):
    """Nudged jobs, Ledger → Gateway: the Gateway sends a Nudge to their agents, if it knows their connections."""

    tenant: str
    job_ids: tuple[JobId, ...]


class Swept(Struct, frozen=True):
    """End of a retention step or a FindGone, Ledger → Janitor; `more`, `gone`: see `News`."""

    more: bool = False
    gone: tuple[JobId, ...] = ()


class Beaten(Struct, frozen=True):
    """End of a beat, Ledger → Fleet: the rows of all brokers; none: the store has refused the beat."""

    brokers: tuple[BrokerRow, ...]


class Adopted(Struct, frozen=True):
    """End of an adoption, Ledger → Fleet; `brokers`: none, if another broker came first, or the row has changed."""

    brokers: frozenset[str]


class BetweenBatches(Struct, frozen=True):
    """Work between two batches, control socket → Ledger, which runs `work` (it may not raise) and sets `done`."""

    work: Callable[[], None]
    done: anyio.Event


class Alarm(Struct, frozen=True):
    """Alarm, Ledger → Timekeeper: wake the Ledger at `due_ms`; None: no lease or delay will end."""

    due_ms: int | None


class ToGateway(Protocol):
    """Gateway, as the Ledger and the bus see it."""

    def send(self, item: Sequence[Response | Nudged], /) -> None:
        """Send the responses and nudges of a batch."""
        ...


class ToAnnouncer(Protocol):
    """Announcer, as the bus sees it."""

    def send(self, item: Sequence[Appended], /) -> None:
        """Publish the segments of a batch."""
        ...


JanitorInbox = MemoryObjectReceiveStream[Swept]
ToJanitor = MemoryObjectSendStream[Swept]
TimekeeperInbox = MemoryObjectReceiveStream[Alarm]
ToTimekeeper = MemoryObjectSendStream[Alarm]
FleetInbox = MemoryObjectReceiveStream[Beaten | Adopted]
ToFleet = MemoryObjectSendStream[Beaten | Adopted]
