"""A simulated queue of SQS for tickets: messages are lost, come twice or late, and again if nobody deletes them.

SQS itself loses nothing that it has taken; a broker that dies with a ticket in its hands does, so here they are lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from airunner.broker.aws.ports import BATCH_MAX, DELAY_S_MAX, WAIT_S, AwsFault, Message, Received
from airunner.transport.bell import Bell
from tests.simulation.cluster import STORE
from tests.simulation.machine import Machine, true_s
from tests.simulation.network import SimNetwork

VISIBILITY_S: Final = 30.0
TRIP_S: Final = 0.005
LATE_S: Final = (0.0, 0.0, 2.0, 60.0)  # by which a message may come late, at the most


@dataclass
class Stored:
    """A message that nobody has deleted."""

    body: str
    visible_s: float


class SimQueue:
    """The queue. `lost`, `doubled`: how likely these are; `late_s`: how late a message may come."""

    def __init__(self, network: SimNetwork) -> None:
        self.network = network
        self.random = network.random
        self.rare = network.recorder.rare
        self.lost = self.random.choice([0.0, 0.1, 1.0])
        self.doubled = self.random.choice([0.0, 0.3, 1.0])
        self.late_s = self.random.choice(LATE_S)
        self.changed = Bell()
        self._stored: dict[str, Stored] = {}

    def put(self, message: Message) -> None:
        """Take a message, and deliver it any number of times."""
        assert 0 <= message.delay_s <= DELAY_S_MAX
        if self.random.random() < self.lost:
            self.rare["a ticket was lost"] += 1
            return
        copies = 1 + self.random.randrange(1, 3) if self.random.random() < self.doubled else 1
        self.rare["a ticket was doubled"] += copies > 1
        for _ in range(copies):
            visible_s = true_s() + message.delay_s + self.random.random() * self.late_s
            self._stored[f"m{next(self.network.numbers)}"] = Stored(message.body, visible_s)
        self.changed.ring()

    def take(self) -> list[Received]:
        """Show some of what is visible, and hide it for a while."""
        found = [(name, each) for name, each in self._stored.items() if each.visible_s <= true_s()][:BATCH_MAX]
        for _, each in found:
            each.visible_s = true_s() + VISIBILITY_S
        return [Received(name, name, each.body) for name, each in found]

    def delete(self, name: str) -> None:
        """Delete a message, if it is there."""
        self._stored.pop(name, None)

    @property
    def next_s(self) -> float:
        """When the next message is visible."""
        return min((each.visible_s for each in self._stored.values()), default=math.inf)


class SimLine:
    """A line of one broker to the queue; see `ports.Queue`."""

    name = "airunner-bells"

    def __init__(self, queue: SimQueue, machine: Machine) -> None:
        self._queue = queue
        self._machine = machine

    async def _go(self) -> None:
        """Go one way, or fail on it."""
        await anyio.sleep(self._queue.random.random() * TRIP_S)  # virtual
        if not self._queue.network.parted.isdisjoint({(self._machine.name, STORE), (STORE, self._machine.name)}):
            await anyio.sleep(1.0)  # virtual
            raise AwsFault("EndpointConnectionError")

    async def send(self, messages: Sequence[Message]) -> int:
        await self._go()
        for message in messages:
            self._queue.put(message)
        await self._go()
        return 0

    async def receive(self) -> list[Received]:
        await self._go()
        until_s = true_s() + WAIT_S
        while not (found := self._queue.take()) and true_s() < until_s:
            with anyio.move_on_after(max(0.001, min(until_s, self._queue.next_s) - true_s())):
                await self._queue.changed.wait()
        await self._go()
        return found

    async def delete(self, receipts: Sequence[str]) -> None:
        await self._go()
        for receipt in receipts:
            self._queue.delete(receipt)
