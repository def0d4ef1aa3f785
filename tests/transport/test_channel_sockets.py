"""A channel over ZeroMQ's sockets: its replies come on either event loop, and what one request may cost a client."""

from __future__ import annotations

import asyncio
import cProfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Thread

import anyio
import pytest
import zmq

from airunner.certs.curve import CurvePair
from airunner.protocol.coding import encode
from airunner.protocol.fields import JobSpec
from airunner.protocol.frames import FIRST, REVISION, SERVED, magic
from airunner.protocol.names import JobId
from airunner.protocol.reconnect import PING_ID
from airunner.protocol.replies import JobsEnqueued, Pong
from airunner.protocol.requests import EnqueueJob
from airunner.transport.anyiosocket import has_message
from airunner.transport.channel import Channel
from airunner.transport.dealer import CurveDealer
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import CurveNetwork, new_context
from tests.virtualtime import real_time  # noqa: F401 - a fixture

TIMEOUT_S = 15
MANY = 64  # requests in flight at once
ENQUEUE = EnqueueJob(jobs=(JobSpec(command="true"),))
ENQUEUED = JobsEnqueued(job_ids=(JobId("j"),))
CALLS_MAX = 218  # functions called for a request, also by the event loop: 198 are, 173 with many in flight; 450 were
TURNS_MAX = 2.5  # of the event loop: one that reads the reply, one in which the caller goes on; a send may add one


@contextmanager
def echoing() -> Iterator[tuple[str, CurveNetwork]]:
    """A broker that is a thread with a bare socket; its endpoint, and a network that reaches it."""
    (public, secret), mine = zmq.curve_keypair(), zmq.curve_keypair()
    context = new_context()
    with context.socket(zmq.ROUTER) as router, context.socket(zmq.PAIR) as end, context.socket(zmq.PAIR) as ended:
        router.linger = 0
        router.curve_server, router.curve_publickey, router.curve_secretkey = True, public, secret
        endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        ended.bind("inproc://ended")
        end.connect("inproc://ended")
        thread = Thread(target=_echo, args=(router, ended))
        thread.start()
        try:
            yield endpoint, CurveNetwork(context, CurvePair(*mine), public)
        finally:
            end.send(b"")
            thread.join()
    context.destroy(linger=0)


def _echo(router: zmq.Socket[bytes], ended: zmq.Socket[bytes]) -> None:
    pong, enqueued = encode(Pong(revisions=SERVED)), encode(ENQUEUED)
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(ended, zmq.POLLIN)
    while ended not in dict(poller.poll()):
        peer, _, request_id, *_ = router.recv_multipart()
        if request_id == PING_ID:
            router.send_multipart([peer, magic(FIRST), request_id, pong])
        else:
            router.send_multipart([peer, magic(REVISION), request_id, enqueued])


@asynccontextmanager
async def connected(endpoint: str, network: CurveNetwork) -> AsyncIterator[Channel]:
    with anyio.fail_after(TIMEOUT_S):
        async with anyio.create_task_group() as group:
            channel = Channel(network, [endpoint], lambda: b"", SYSTEM)
            await group.start(channel.run)
            yield channel
            group.cancel_scope.cancel()


async def _ask_one_by_one_and_at_once(endpoint: str, network: CurveNetwork) -> None:
    async with connected(endpoint, network) as channel, anyio.create_task_group() as group:
        for _ in range(3):
            assert await channel.ask(ENQUEUE) == ENQUEUED
        for _ in range(MANY):
            group.start_soon(channel.ask, ENQUEUE)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_replies_come_on_either_event_loop() -> None:
    with echoing() as (endpoint, network):
        await _ask_one_by_one_and_at_once(endpoint, network)


def test_replies_come_in_a_program_that_runs_asyncio_itself() -> None:
    with echoing() as (endpoint, network):
        asyncio.run(_ask_one_by_one_and_at_once(endpoint, network))


async def test_a_reply_whose_notice_a_send_consumed_is_read() -> None:
    with echoing() as (endpoint, network), anyio.fail_after(TIMEOUT_S):
        async with connected(endpoint, network) as channel, anyio.create_task_group() as group:
            await channel.ask(ENQUEUE)
            assert isinstance(channel._dealer, CurveDealer)
            channel._dealer.send([magic(FIRST), PING_ID, b"", b""])
            while not has_message(channel._dealer._socket.raw):  # this is what consumes it, as the send may
                pass
            group.start_soon(channel.ask, ENQUEUE)


@pytest.mark.parametrize(("tasks", "count"), [(1, 100), (MANY, 10)], ids=["lone", "in flight"])
async def test_a_request_costs_a_client_few_calls_and_two_turns_of_its_event_loop(tasks: int, count: int) -> None:
    profile = cProfile.Profile()

    async def ask(channel: Channel) -> None:
        for _ in range(count):
            await channel.ask(ENQUEUE)

    with echoing() as (endpoint, network):
        async with connected(endpoint, network) as channel:
            await channel.ask(ENQUEUE)
            profile.enable()
            async with anyio.create_task_group() as group:
                for _ in range(tasks):
                    group.start_soon(ask, channel)
            profile.disable()
    count *= tasks
    entries = profile.getstats()
    calls = sum(entry.callcount for entry in entries) / count
    turns = sum(entry.callcount for entry in entries if getattr(entry.code, "co_name", "") == "_run_once") / count
    assert 0 < calls <= CALLS_MAX
    assert 0 < turns <= TURNS_MAX
