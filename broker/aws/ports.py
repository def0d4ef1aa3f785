"""Ports to SQS and EventBridge, as the broker's actors see them. `services` has them with boto3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

BATCH_MAX: Final = 10  # messages or entries in one call, by SQS and by EventBridge
BATCH_BYTES_MAX: Final = 262_144  # bytes in one call, by both; SQS now takes more
DELAY_S_MAX: Final = 900  # of a message, by SQS
WAIT_S: Final = 20.0  # that SQS waits for the first message: its longest, so that an idle broker asks seldom


class AwsFault(Exception):
    """Fault of a call to AWS, as one line with AWS's code. What it was about may have been done, or not."""


class Message(NamedTuple):
    """Message to send to a queue, which delivers it `delay_s` later or after that."""

    body: str
    delay_s: int = 0


class Received(NamedTuple):
    """Received message: the id that it keeps when it is delivered again, and the receipt with which to delete it."""

    message_id: str
    receipt: str
    body: str


class Entry(NamedTuple):
    """Entry for an event bus: the kind of an event, when it was (ms since the epoch), and all of it as JSON."""

    kind: str
    timestamp_ms: int
    detail: str


class Verdict(NamedTuple):
    """Verdict of an event bus on an entry: the code and the message of an error; "" as code: the entry is accepted."""

    code: str = ""
    words: str = ""


class Queue(Protocol):
    """Queue of SQS. Each method raises `AwsFault`."""

    @property
    def name(self) -> str:
        """Name of the queue."""
        ...

    async def send(self, messages: Sequence[Message]) -> int:
        """Send up to `BATCH_MAX` messages; return how many were refused."""
        ...

    async def receive(self) -> list[Received]:
        """Wait up to `WAIT_S` for messages, and receive up to `BATCH_MAX`; others do not get them for a while."""
        ...

    async def delete(self, receipts: Sequence[str]) -> None:
        """Delete up to `BATCH_MAX` received messages; one that is not deleted is delivered again."""
        ...


class EventBus(Protocol):
    """Event bus of EventBridge."""

    async def put(self, entries: Sequence[Entry]) -> list[Verdict]:
        """Put up to `BATCH_MAX` entries, of up to `BATCH_BYTES_MAX`; return the verdict on each. Raises `AwsFault`."""
        ...
