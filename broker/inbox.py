"""What the broker's actors say to each other.

Every inbox is bounded: an anyio stream, and for the Ledger the tenants' `turns`. Where a full one could close a circle
of waiting (Gateway → Ledger → Gateway), the sender does not wait: it answers `busy`, and the peer asks again.
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

ANSWERS_MAX: Final = 4_096
ANNOUNCEMENTS_MAX: Final = 1_024  # batches
ALARMS_MAX: Final = 16
SWEEPS_MAX: Final = 1  # the Janitor asks for one step at a time


class Asked(Struct, frozen=True):
    """Gateway → Ledger: `peer`, let in by its `key`, waits for the answer to `ask`; with None nobody does.

    The request takes `size_bytes`, and is answered in its `revision` of the protocol.
    """

    peer: bytes | None
    ask: TenantRequest
    key: str = ""
    size_bytes: int = 0
    revision: int = REVISION


class Answer(Struct, frozen=True):
    """Ledger → Gateway: it is on disk; tell `peer`."""

    peer: bytes
    ask: TenantRequest
    reply: StoreReply
    key: str = ""
    revision: int = REVISION


class Nudged(Struct, frozen=True):
    """Ledger → Gateway: whoever holds these jobs of the tenant's is to heartbeat now, if it can be told."""

    tenant: str
    job_ids: tuple[JobId, ...]


class Swept(Struct, frozen=True):
    """Ledger → Janitor: a step of retention is done; `more`: the next would find something too."""

    more: bool


class Between(Struct, frozen=True):
    """Control → Ledger: call `work`, which raises nothing, while no transaction is open; `done` is set then."""

    work: Callable[[], None]
    done: anyio.Event


class Alarm(Struct, frozen=True):
    """Ledger → Timekeeper: wake me at `due_ms` and not before; None: nothing is due."""

    due_ms: int | None


GatewayInbox = MemoryObjectReceiveStream[Sequence[Answer | Nudged]]
ToGateway = MemoryObjectSendStream[Sequence[Answer | Nudged]]
JanitorInbox = MemoryObjectReceiveStream[Swept]
ToJanitor = MemoryObjectSendStream[Swept]
AnnouncerInbox = MemoryObjectReceiveStream[Sequence[Appended]]
ToAnnouncer = MemoryObjectSendStream[Sequence[Appended]]
TimekeeperInbox = MemoryObjectReceiveStream[Alarm]
ToTimekeeper = MemoryObjectSendStream[Alarm]
