"""Brokers' exchanges on stage: their sockets are queues in memory, and each has an Announcer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from trio.testing import wait_all_tasks_blocked

from airunner.broker.announcer import Announcer
from airunner.broker.counts import Counts
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.relay.exchange import Exchange
from airunner.broker.relay.listeners import Listeners
from airunner.broker.watchers import Watchers
from airunner.certs.sealed import topic_of
from airunner.protocol.events import EventSegment
from airunner.protocol.names import WatchKey
from airunner.transport.memory import MemoryPublisher, MemorySubscriber
from airunner.transport.ports import Ending, Frames, Peer
from tests.broker.stage import edges

KEY = WatchKey(b"k" * 32)
TOPIC = topic_of(KEY)
RUN = EventSegment(first_sequence=1, count=1, attempt=1, events=b"\x91\x80")


class Site:
    """A broker's sockets, its exchange and its Announcer; `peers` are reached by their names."""

    def __init__(self, name: str, sites: dict[str, Site], group: TaskGroup, *, welcomes: bool = True) -> None:
        self.name, self.counts, self.scope = name, Counts(), anyio.CancelScope()
        self.socket = MemoryPublisher()
        self.states: list[tuple[str, Ending | None]] = []
        self.exchange = Exchange(
            self.socket, self.connect, Listeners(lambda _: True), lambda: 0.5, lambda *state: self.states.append(state)
        )
        self.announcer = Announcer(self.exchange, edges(), self.counts, Watchers())
        self.welcomes = welcomes
        self.cut: set[str] = set()  # who cannot be reached
        self.links: list[MemorySubscriber] = []
        self.hints: list[bytes] = []
        self._sites = sites
        sites[name] = self
        group.start_soon(self.run)

    async def run(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self.exchange.run)
                if self.welcomes:
                    await self.announcer.run()

    def connect(self, endpoint: str) -> Peer:
        site = self._sites[endpoint]
        if endpoint in self.cut or site.scope.cancel_called:
            gone = MemoryPublisher().connect()
            gone.close()
            return gone
        link = site.socket.connect()
        self.links.append(link)
        return link

    def part(self, name: str) -> None:
        """No connection to that site from now on."""
        self.cut.add(name)
        for link in self.links:
            link.close()

    def die(self) -> None:
        self.scope.cancel()
        self.socket.close()

    def append(self, number: int = 1, key: WatchKey = KEY) -> None:
        """Announce the event with this number."""
        segment = EventSegment(first_sequence=number, count=1, attempt=1, events=b"\x91\x80")
        self.announcer.send([Appended(key, segment)])

    def monitor(self, topic: bytes = TOPIC) -> MemorySubscriber:
        subscriber = self.socket.connect()
        subscriber.subscribe(topic)
        return subscriber


def heard(monitor: MemorySubscriber) -> list[Frames]:
    """What a monitor has heard since the last call."""
    messages = monitor.events._messages
    taken = list(messages)
    messages.clear()
    return taken


@asynccontextmanager
async def sites(*names: str) -> AsyncIterator[dict[str, Site]]:
    """A fleet, whose brokers know one another."""
    async with anyio.create_task_group() as group:
        found: dict[str, Site] = {}
        for name in names:
            Site(name, found, group)
        for site in found.values():
            site.exchange.set_peers([name for name in names if name != site.name])
        await wait_all_tasks_blocked()
        yield found
        group.cancel_scope.cancel()
