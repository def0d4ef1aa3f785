"""Inboxes of the broker's actors, and the messages in them.

Every inbox is bounded: an anyio stream, and for the Ledger the `fairqueue`, which makes no sender wait: where that is
full the Gateway answers `busy`, and the peer asks again. Gateway and Announcer have none: they only send, and a send
never waits, so what they receive goes out at once, in the sender's task. Each wake-up that this saves takes as long as
the answer to a small request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from airunner.broker.lifecycle.commands import Appended, StoreReply, TenantRequest
from airunner.protocol.frames import REVISION
from airunner.protocol.names import JobId

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


class ToGateway(Protocol):
    """Way to the Gateway, which sends these responses and nudges."""

    async def send(self, item: Sequence[Response | Nudged], /) -> None:
        """Send the responses and nudges of a batch."""
        ...


class ToAnnouncer(Protocol):
    """Way to the Announcer, which publishes these segments of a batch."""

    async def send(self, item: Sequence[Appended], /) -> None:
        """Publish the segments of a batch."""
        ...


JanitorInbox = MemoryObjectReceiveStream[Swept]
ToJanitor = MemoryObjectSendStream[Swept]
TimekeeperInbox = MemoryObjectReceiveStream[Alarm]
ToTimekeeper = MemoryObjectSendStream[Alarm]
