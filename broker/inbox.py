"""What the broker's actors say to each other.

Every inbox is a bounded anyio stream. Where a full one could close a circle of waiting (Gateway → Ledger →
Gateway), the sender does not wait: it answers `busy`, and the peer asks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from airunner.broker.store.contract import Appended, Ask, Expire, Retain, StoreReply
from airunner.protocol.names import JobId

LEDGER_INBOX_MAX: Final = 4_096  # asks; some megabytes at the most common sizes
ANSWERS_MAX: Final = 4_096
ANNOUNCEMENTS_MAX: Final = 1_024  # batches
ALARMS_MAX: Final = 16
SWEEPS_MAX: Final = 1  # the Janitor asks for one step at a time


class Asked(Struct, frozen=True):
    """Gateway → Ledger: `peer` waits for the answer to `ask`; with None nobody does."""

    peer: bytes | None
    ask: Ask


class Answer(Struct, frozen=True):
    """Ledger → Gateway: it is on disk; tell `peer`."""

    peer: bytes
    ask: Ask
    reply: StoreReply


class Nudged(Struct, frozen=True):
    """Ledger → Gateway: whoever holds these jobs is to heartbeat now, if it can be told."""

    job_ids: tuple[JobId, ...]


class Swept(Struct, frozen=True):
    """Ledger → Janitor: a step of retention is done; `more`: the next would find something too."""

    more: bool


class Alarm(Struct, frozen=True):
    """Ledger → Timekeeper: wake me at `due_ms` and not before; None: nothing is due."""

    due_ms: int | None


LedgerInbox = MemoryObjectReceiveStream[Asked | Expire | Retain]
ToLedger = MemoryObjectSendStream[Asked | Expire | Retain]
GatewayInbox = MemoryObjectReceiveStream[Sequence[Answer | Nudged]]
ToGateway = MemoryObjectSendStream[Sequence[Answer | Nudged]]
JanitorInbox = MemoryObjectReceiveStream[Swept]
ToJanitor = MemoryObjectSendStream[Swept]
AnnouncerInbox = MemoryObjectReceiveStream[Sequence[Appended]]
ToAnnouncer = MemoryObjectSendStream[Sequence[Appended]]
TimekeeperInbox = MemoryObjectReceiveStream[Alarm]
ToTimekeeper = MemoryObjectSendStream[Alarm]
