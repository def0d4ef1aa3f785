"""The broker's front stays cheap: calls of functions, which any machine counts alike, for scripted requests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from msgspec.structs import replace

from airunner.broker.admission import UNATTRIBUTED_PER_S, Admission
from airunner.broker.changefeed import ChangeFeed
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import FairQueue
from airunner.broker.gateway import Gateway
from airunner.broker.health import Health
from airunner.broker.inbox import Pending, Response
from airunner.broker.rates import Rates
from airunner.broker.store.quotas import Quotas
from airunner.broker.watchers import Watchers
from airunner.certs.allowlist import Entry, PeerRole
from airunner.protocol.coding import encode
from airunner.protocol.frames import pack_request
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobsEnqueued
from airunner.protocol.requests import Ping, Request
from airunner.transport.memory import MemoryPublisher
from airunner.transport.ports import Accept, Incoming, Sent
from tests.broker.stage import FakeAuthority, acting, edges, enqueue, request_id
from tests.counting import counted_calls

JOBS: Final = 64
RATE: Final = 1e6
ENTRY: Final = Entry("machine", frozenset(PeerRole))


class Door:
    """A router that hands over its `accept`, and sends nothing."""

    endpoint = "tcp://127.0.0.1:1"
    accept: Accept

    async def serve(self, accept: Accept) -> None:
        self.accept = accept
        await anyio.sleep_forever()

    def send(self, peer: bytes, frames: Sequence[bytes]) -> Sent:
        del peer, frames
        return Sent.DONE

    def close(self) -> None:
        """Nothing is open."""


class Front:
    """A Gateway between that door and the Ledger's inbox."""

    def __init__(self) -> None:
        self.door, self.inbox = Door(), FairQueue()
        self.looks = 0  # at the allow-list
        admission = Admission(FakeAuthority(), self.machine, Rates(RATE), Rates(UNATTRIBUTED_PER_S))
        real = replace(edges(), random_bytes=os.urandom)
        bounds, counts, watchers = Quotas(), Counts(), Watchers(None)
        feed = ChangeFeed(MemoryPublisher(), real, counts, watchers)
        self.gateway = Gateway(self.door, self.inbox, admission, bounds, real, 1, counts, watchers, Health(), feed)

    def machine(self, _key: bytes) -> Entry:
        self.looks += 1
        return ENTRY

    def hear(self, request: Request) -> int:
        """Receive a request, and return how many functions that called."""
        frames = pack_request(request_id(1), b"submit", encode(request))
        return calls(lambda: self.door.accept([Incoming(b"peer", "key", frames)]))

    def answer(self) -> int:
        """Answer the request that waits, and return how many functions that called."""
        asked = self.inbox.receive_nowait()
        assert isinstance(asked, Pending)
        assert asked.peer is not None
        reply = JobsEnqueued(job_ids=tuple(JobId(job.job_id) for job in asked.command.minted))
        responses = [Response(asked.peer, asked.command, reply, asked.key, asked.revision)]
        return calls(lambda: self.gateway.send(responses))


def calls(work: Callable[[], None]) -> int:
    """How many functions `work` calls, those in C included."""
    with counted_calls() as counted:
        work()
    return counted.total()


@asynccontextmanager
async def opened() -> AsyncIterator[Front]:
    front = Front()
    async with acting(front.gateway.run):
        yield front


async def test_a_ping_takes_few_calls() -> None:
    async with opened() as front:
        front.hear(Ping())
        assert front.hear(Ping()) <= 60


async def test_an_enqueue_takes_few_calls_before_and_after_the_ledger() -> None:
    async with opened() as front:
        front.hear(enqueue("true"))
        front.answer()
        assert front.hear(enqueue("true")) <= 113
        assert front.answer() <= 29


async def test_each_further_job_of_a_request_takes_few_calls() -> None:
    async with opened() as front:
        front.hear(enqueue("true"))
        one, many = front.hear(enqueue("true")), front.hear(enqueue(*["true"] * JOBS))
        assert (many - one) / (JOBS - 1) <= 11


async def test_the_allow_list_is_looked_at_once_for_what_is_answered_at_once_and_again_for_what_has_waited() -> None:
    async with opened() as front:

        def answer() -> None:
            front.answer()

        with front.inbox.received_by(answer):
            front.hear(enqueue("true"))
        assert front.looks == 1
        front.hear(enqueue("true"))
        front.answer()
        assert front.looks == 3
