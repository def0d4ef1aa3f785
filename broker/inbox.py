"""What the broker's actors say to each other.

Every inbox is a bounded anyio stream. Where a full one could close a circle of waiting (Gateway → Ledger →
Gateway), the sender does not wait: it answers `busy`, and the peer asks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from airunner.broker.store.contract import Appended, Ask, Expire, StoreReply

LEDGER_INBOX_MAX: Final = 4_096  # asks; some megabytes at the most common sizes
ANSWERS_MAX: Final = 4_096
ANNOUNCEMENTS_MAX: Final = 1_024  # batches
ALARMS_MAX: Final = 16


class Asked(Struct, frozen=True):
    """Gateway → Ledger: `peer` waits for the answer to `ask`; with None nobody does."""

    peer: bytes | None
    ask: Ask


class Answer(Struct, frozen=True):
    """Ledger → Gateway: it is on disk; tell `peer`."""

    peer: bytes
    ask: Ask
    reply: StoreReply


class Alarm(Struct, frozen=True):
    """Ledger → Timekeeper: wake me at `due_ms` and not before; None: nothing is due."""

    due_ms: int | None


LedgerInbox = MemoryObjectReceiveStream[Asked | Expire]
ToLedger = MemoryObjectSendStream[Asked | Expire]
GatewayInbox = MemoryObjectReceiveStream[Sequence[Answer]]
ToGateway = MemoryObjectSendStream[Sequence[Answer]]
AnnouncerInbox = MemoryObjectReceiveStream[Sequence[Appended]]
ToAnnouncer = MemoryObjectSendStream[Sequence[Appended]]
TimekeeperInbox = MemoryObjectReceiveStream[Alarm]
ToTimekeeper = MemoryObjectSendStream[Alarm]
