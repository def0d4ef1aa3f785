"""Queues and a bus of AWS in memory: on the clock of the test, with the bounds of AWS, and with faults on demand.

A message is delivered when its delay is over; it stays in the queue, and is delivered again when it was not deleted for
`VISIBILITY_S`. After `RECEIVES_MAX` deliveries it is dead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import anyio

from airunner.broker.aws.outbox import size_of
from airunner.broker.aws.ports import (
    BATCH_BYTES_MAX,
    BATCH_MAX,
    DELAY_S_MAX,
    WAIT_S,
    AwsFault,
    Entry,
    Message,
    Received,
    Verdict,
)
from airunner.transport.bell import Bell

VISIBILITY_S: Final = 30.0
RECEIVES_MAX: Final = 5
ALLOWED: Final = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


@dataclass
class Stored:
    """A message in the queue."""

    id: str
    body: str
    visible_s: float
    receives: int = 0


@dataclass(eq=False)
class MemoryQueue:
    """A queue of SQS; `lose` says which messages never come, `copies` how often each comes, `late_s` how late."""

    name: str = "jobs-bells"
    lose: Callable[[Message], bool] = lambda _message: False
    copies: int = 1
    late_s: float = 0.0
    wait_s: float = WAIT_S  # for messages, in a call of `receive`
    fault: AwsFault | None = None
    refused: int = 0  # of the next call's messages
    sent: list[tuple[float, Message]] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _changed: Bell = field(default_factory=Bell)

    async def send(self, messages: Sequence[Message]) -> int:
        await anyio.lowlevel.checkpoint()
        self._fail()
        assert 0 < len(messages) <= BATCH_MAX
        assert sum(len(message.body.encode()) for message in messages) <= BATCH_BYTES_MAX
        now_s = anyio.current_time()
        refused, self.refused = self.refused, 0
        for message in messages[refused:]:
            assert ALLOWED.fullmatch(message.body)
            assert 0 <= message.delay_s <= DELAY_S_MAX
            self.sent.append((now_s, message))
            for _ in range(0 if self.lose(message) else self.copies):
                self.put(message.body, message.delay_s + self.late_s)
        return refused

    def put(self, body: str, delay_s: float = 0.0) -> None:
        """Put a message into the queue, as another sender does."""
        number = f"m{next(self._numbers)}"
        self.stored[number] = Stored(number, body, anyio.current_time() + delay_s)
        self._changed.ring()

    async def receive(self) -> list[Received]:
        await anyio.lowlevel.checkpoint()
        self._fail()
        until_s = anyio.current_time() + self.wait_s
        while True:
            now_s = anyio.current_time()
            for dead in [each for each in self.stored.values() if each.visible_s <= now_s]:
                if dead.receives >= RECEIVES_MAX:
                    self.dead.append(self.stored.pop(dead.id).body)
            found = [each for each in self.stored.values() if each.visible_s <= now_s][:BATCH_MAX]
            if found or now_s >= until_s:
                break
            visible_s = min((each.visible_s for each in self.stored.values()), default=until_s)
            with anyio.CancelScope(deadline=min(visible_s, until_s)):
                await self._changed.wait()
        for each in found:
            each.receives += 1
            each.visible_s = now_s + VISIBILITY_S
        return [Received(each.id, f"{each.id}/{each.receives}", each.body) for each in found]

    async def delete(self, receipts: Sequence[str]) -> None:
        await anyio.lowlevel.checkpoint()
        self._fail()
        assert 0 < len(receipts) <= BATCH_MAX
        for receipt in receipts:
            self.stored.pop(receipt.partition("/")[0], None)

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


class Line:
    """A line of its own to a queue."""

    def __init__(self, queue: MemoryQueue) -> None:
        self.name, self._queue = queue.name, queue

    async def send(self, messages: Sequence[Message]) -> int:
        return await self._queue.send(messages)

    async def receive(self) -> list[Received]:
        return await self._queue.receive()

    async def delete(self, receipts: Sequence[str]) -> None:
        await self._queue.delete(receipts)


@dataclass
class MemoryBus:
    """An event bus of EventBridge: `judge` gives the verdict on each entry."""

    judge: Callable[[Entry], Verdict] = lambda _entry: Verdict()
    fault: AwsFault | None = None
    accepted: list[Entry] = field(default_factory=list)
    calls: int = 0

    async def put(self, entries: Sequence[Entry]) -> list[Verdict]:
        await anyio.lowlevel.checkpoint()
        self.calls += 1
        assert 0 < len(entries) <= BATCH_MAX
        assert sum(map(size_of, entries)) <= BATCH_BYTES_MAX
        if self.fault is not None:
            raise self.fault
        verdicts = [self.judge(entry) for entry in entries]
        self.accepted += [entry for entry, verdict in zip(entries, verdicts, strict=True) if not verdict.code]
        return verdicts
