"""A Gateway between a door in memory and an inbox that nobody empties."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from trio.testing import wait_all_tasks_blocked

from airunner.broker.admission import Admission, any_machine
from airunner.broker.counts import Counts
from airunner.broker.gateway import NUDGE_ID, Gateway
from airunner.broker.health import Health
from airunner.broker.inbox import Nudged, Pending, Response
from airunner.broker.lifecycle.commands import Expire, Retain, StoreReply
from airunner.broker.rates import Rates
from airunner.broker.store.quotas import Quotas
from airunner.broker.watchers import Watchers
from airunner.certs.allowlist import Entry, PeerRole
from airunner.certs.principal import Principal, Role
from airunner.protocol.errors import Unauthenticated
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobLease, JobsLeased, Nudge, Reply
from tests.broker.stage import WALL_MS, FakeRouter, acting, edges

EVENTS_PORT = 7071
GRANT = JobsLeased(
    leases=(
        JobLease(
            job_id=JobId("j"), attempt=1, task_token=bytes(32), visibility_ms=60_000, spec=JobSpec(command="true")
        ),
    )
)


class FakeAuthority:
    """The token says its roles, and after an `@` its tenant; none is no token."""

    def known(self, token: bytes, now_s: float) -> Principal | None:
        return self.verify(token, now_s) if token else None

    def verify(self, token: bytes, now_s: float) -> Principal:
        assert now_s == WALL_MS / 1_000
        if not token:
            raise Unauthenticated
        roles, _, tenant = token.decode().partition("@")
        return Principal("s", tenant or "acme", frozenset(map(Role, roles.split(","))), 1e12)


class Stage:
    """A Gateway between a door in memory and an inbox that nobody empties."""

    def __init__(self, inbox_max: int = 100) -> None:
        self.router = FakeRouter()
        self.counts = Counts()
        self.listed: dict[bytes, Entry] = {b"local": Entry("machine", frozenset(PeerRole)), b"": any_machine(b"")}
        self.admission = Admission(FakeAuthority(), self.listed.get, Rates(), Rates())
        self.to_ledger, self.ledger = anyio.create_memory_object_stream[Pending | Expire | Retain](inbox_max)
        self.answers, self.inbox = anyio.create_memory_object_stream[Sequence[Response | Nudged]](100)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        gateway = Gateway(
            self.router,
            self.inbox,
            self.to_ledger,
            self.admission,
            Quotas(),
            edges(),
            EVENTS_PORT,
            self.counts,
            Watchers(1),
            Health(),
        )
        async with acting(gateway.run):
            yield
        self.router.close()
        for stream in (self.to_ledger, self.ledger, self.answers, self.inbox):
            stream.close()

    async def reply(self) -> Reply:
        return (await self.router.said.receive())[2]

    async def asked(self) -> Pending:
        asked = await self.ledger.receive()
        assert isinstance(asked, Pending)
        return asked

    def answer(self, asked: Pending, reply: StoreReply) -> None:
        assert asked.peer is not None
        self.answers.send_nowait([Response(asked.peer, asked.command, reply, asked.key, asked.revision)])

    async def tell(self, asked: Pending, reply: StoreReply) -> None:
        """Answer, and see it go out."""
        self.answer(asked, reply)
        await self.router.said.receive()

    async def nudged(self, *job_ids: str) -> list[bytes]:
        """Who is told when the holders of these jobs are."""
        self.answers.send_nowait([Nudged("acme", tuple(map(JobId, job_ids)))])
        await wait_all_tasks_blocked()
        told: list[bytes] = []
        while self.router.said.statistics().current_buffer_used:
            peer, number, message = await self.router.said.receive()
            assert (number, message) == (NUDGE_ID, Nudge())
            told.append(peer)
        return told

    def nothing_asked(self) -> bool:
        return self.ledger.statistics().current_buffer_used == 0
