"""A Gateway on a stage: it is asked by frames, and what it asks the Ledger is answered by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from trio.testing import wait_all_tasks_blocked

from airunner.broker.admission import Admission, any_machine
from airunner.broker.changefeed import ChangeFeed
from airunner.broker.counts import Counts
from airunner.broker.gateway import NUDGE_ID, Gateway
from airunner.broker.health import Health
from airunner.broker.inbox import Nudged, Pending, Response
from airunner.broker.lifecycle.commands import Expire, Retain, StoreReply
from airunner.broker.rates import Rates
from airunner.broker.store.quotas import Quotas
from airunner.broker.watchers import Watchers
from airunner.certs.allowlist import Entry, PeerRole
from airunner.protocol import replies
from airunner.protocol.message import Message
from airunner.protocol.names import JobId
from airunner.protocol.replies import Reply
from airunner.transport.memory import MemoryPublisher
from tests.broker.stage import (
    FakeAuthority,
    FakeRouter,
    ToLedger,
    acting,
    edges,
)

EVENTS_PORT = 7071


class Stage:
    """A Gateway between a door in memory and an inbox that nobody empties."""

    def __init__(self, inbox_max: int = 100, rates: Rates | None = None, unattributed: Rates | None = None) -> None:
        self.router = FakeRouter()
        self.counts, self.health = Counts(), Health()
        self.listed: dict[bytes, Entry] = {b"local": Entry("machine", frozenset(PeerRole)), b"": any_machine(b"")}
        self.admission = Admission(FakeAuthority(), self.listed.get, rates or Rates(), unattributed or Rates())
        self.to_ledger = ToLedger[Pending | Expire | Retain](inbox_max)
        self.ledger = self.to_ledger.received
        self.answers, self.inbox = anyio.create_memory_object_stream[Sequence[Response | Nudged]](100)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        gateway = Gateway(
            self.router,
            self.to_ledger,
            self.admission,
            Quotas(),
            edges(),
            EVENTS_PORT,
            self.counts,
            watchers := Watchers(1),
            self.health,
            ChangeFeed(MemoryPublisher(), edges(), self.counts, watchers),
        )

        async def told() -> None:
            async for responses in self.inbox:
                gateway.send(responses)

        async with acting(gateway.run), acting(told):
            yield
        self.router.close()
        for stream in (self.to_ledger, self.answers, self.inbox):
            stream.close()

    async def reply(self) -> Reply:
        return (await self.router.said.receive())[2]

    async def code(self) -> str:
        """Of the refusal that comes next."""
        return (await self.reply()).code

    async def asked(self) -> Pending:
        return await self.ledger.receive()

    def answer(self, asked: Pending, reply: StoreReply) -> None:
        self.answers.send_nowait([Response(asked.peer, asked.command, reply, asked.key, asked.revision)])

    async def converse(self, request: Message, reply: StoreReply, *, peer: bytes = b"peer", token: bytes) -> Reply:
        """Ask, answer, and see it go out."""
        self.router.hear(request, token=token, peer=peer)
        self.answer(await self.asked(), reply)
        return await self.reply()

    async def nudged(self, *job_ids: str) -> list[bytes]:
        """Who is told when the holders of these jobs are."""
        self.answers.send_nowait([Nudged("acme", tuple(map(JobId, job_ids)))])
        await wait_all_tasks_blocked()
        told: list[bytes] = []
        while self.router.said.statistics().current_buffer_used:
            peer, number, message = await self.router.said.receive()
            assert (number, message) == (NUDGE_ID, replies.Nudge())
            told.append(peer)
        return told

    def nothing_asked(self) -> bool:
        return self.ledger.statistics().current_buffer_used == 0
