"""Inboxes of the broker's actors, and the messages in them.

Every inbox is bounded: an anyio stream, and for the Ledger the `fairqueue`. Where waiting for room could close a circle
(Gateway → Ledger → Gateway), the sender does not wait: it answers `busy`, and the peer asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from airunner.broker.lifecycle.commands import Appended, StoreReply, TenantRequest
from airunner.protocol.frames import REVISION
from airunner.protocol.names import JobId

RESPONSES_MAX: Final = 4_096
ANNOUNCEMENTS_MAX: Final = 1_024  # batches
ALARMS_MAX: Final = 16
SWEEPS_MAX: Final = 1  # the Janitor asks for one step at a time


class Pending(Struct, frozen=True):
    """Pending request, Gateway → Ledger: `peer`, admitted by its `key`, waits for the reply; None: no peer does.

    The request has `size_bytes`, and is answered in its `revision` of the protocol.
    """

    peer: bytes | None
    command: TenantRequest
    key: str = ""
    size_bytes: int = 0
    revision: int = REVISION


class Response(Struct, frozen=True):
    """Response, Ledger → Gateway: the command is on disk, and `peer` gets the `reply`."""

    peer: bytes
    command: TenantRequest
    reply: StoreReply
    key: str = ""
    revision: int = REVISION


class Nudged(Struct, frozen=True):
    """Nudged jobs, Ledger → Gateway: their holders are to heartbeat now, as far as their connections are known."""

    tenant: str
    job_ids: tuple[JobId, ...]


class Swept(Struct, frozen=True):
    """Swept, Ledger → Janitor: a step of retention is done; `more`: the next step will remove something too."""

    more: bool


class Between(Struct, frozen=True):
    """Work between batches, Control → Ledger: `work`, which raises nothing, runs outside a transaction; then `done`."""

    work: Callable[[], None]
    done: anyio.Event


class Alarm(Struct, frozen=True):
    """Alarm, Ledger → Timekeeper: wake the Ledger at `due_ms`; None: nothing is due."""

    due_ms: int | None


GatewayInbox = MemoryObjectReceiveStream[Sequence[Response | Nudged]]
ToGateway = MemoryObjectSendStream[Sequence[Response | Nudged]]
JanitorInbox = MemoryObjectReceiveStream[Swept]
ToJanitor = MemoryObjectSendStream[Swept]
AnnouncerInbox = MemoryObjectReceiveStream[Sequence[Appended]]
ToAnnouncer = MemoryObjectSendStream[Sequence[Appended]]
TimekeeperInbox = MemoryObjectReceiveStream[Alarm]
ToTimekeeper = MemoryObjectSendStream[Alarm]
