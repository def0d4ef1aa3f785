"""What every network keeps: the same promises by ZeroMQ's sockets and by the queues of one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from airunner.broker.counts import Counts
from airunner.broker.gatekeeper import Gatekeeper
from airunner.broker.rates import Rates
from airunner.certs.allowlist import AllowList
from airunner.certs.curve import load_broker_pair, load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.certs.init import init
from airunner.transport.memory import MemoryNetwork
from airunner.transport.ports import (
    EVENTS_MESSAGES_MAX,
    QUEUE_MESSAGES_MAX,
    REPLIES_MAX,
    Ending,
    Frames,
    Incoming,
    Network,
    Publisher,
    Reading,
    Router,
    Sent,
)
from airunner.transport.sockets import CurveNetwork, CurvePublisher, CurveRouter, bind_gatekeeper, new_context
from tests.virtualtime import real_time  # noqa: F401 - a fixture

TIMEOUT_S: Final = 15
ANYWHERE: Final = "tcp://127.0.0.1:0"
PAGE: Final = bytes(1_024)
TOPIC, OTHER = b"t" * 16, b"o" * 16
MANY: Final = 100_000  # messages of a `PAGE` each: more than the queues and the kernel's buffers hold


async def received(router: Router) -> list[Incoming]:
    """The messages that arrive next."""
    heard: list[Incoming] = []
    with anyio.CancelScope() as scope:

        def accept(messages: Iterable[Incoming]) -> None:
            heard.extend(messages)
            if heard:
                scope.cancel()

        await router.serve(accept)
    return heard


async def arrived(socket: Reading) -> list[Frames]:
    """The messages that arrive next at a client's socket."""
    heard: list[Frames] = []
    with anyio.CancelScope() as scope:

        def accept(frames: Frames) -> None:
            heard.append(frames)
            scope.cancel()

        await socket.read(accept)
    return heard


class Sides(NamedTuple):
    """The broker's two sockets, and the network that reaches them."""

    network: Network
    router: Router
    publisher: Publisher


@asynccontextmanager
async def in_memory(_: Path) -> AsyncIterator[Sides]:
    network = MemoryNetwork()
    yield Sides(network, network.router, network.publisher)


@asynccontextmanager
async def over_sockets(folder: Path, listen: str = ANYWHERE) -> AsyncIterator[Sides]:
    home = Home(folder / "home")
    init(home)
    context, pair = new_context(), load_broker_pair(home)
    allowed = AllowList(home.allowed_clients, lambda _: None)
    with closing(Gatekeeper(bind_gatekeeper(context), allowed, Counts(), Rates())) as gatekeeper:
        async with anyio.create_task_group() as group:
            group.start_soon(gatekeeper.run)
            network = CurveNetwork(context, load_client_pair(home), load_broker_public(home))
            yield Sides(network, CurveRouter(context, pair, listen), CurvePublisher(context, pair, listen))
            group.cancel_scope.cancel()
    context.destroy(linger=0)


@pytest.fixture(params=[in_memory, over_sockets], ids=lambda make: make.__name__)
async def sides(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sides]:
    with anyio.fail_after(TIMEOUT_S):
        async with request.param(tmp_path) as sides:
            yield sides


async def test_a_reply_reaches_the_peer_that_asked_and_no_other(sides: Sides) -> None:
    first, second = (sides.network.dealer(sides.router.endpoint) for _ in range(2))
    with closing(first), closing(second):
        for dealer, word in ((first, b"1"), (second, b"2")):
            assert dealer.send([word, b"", word * 2])
            [incoming] = await received(sides.router)
            assert incoming.frames == [word, b"", word * 2]
            assert sides.router.send(incoming.peer, [word * 3]) is Sent.DONE
        assert (await arrived(first), await arrived(second)) == ([[b"111"]], [[b"222"]])


async def test_a_peer_that_has_left_is_gone(sides: Sides) -> None:
    dealer = sides.network.dealer(sides.router.endpoint)
    dealer.send([b"x"])
    [incoming] = await received(sides.router)
    dealer.close()
    while (sent := sides.router.send(incoming.peer, [b"x"])) is Sent.DONE:
        await anyio.lowlevel.checkpoint()
    assert sent is Sent.GONE


async def test_when_the_router_closes_a_connection_drops(sides: Sides) -> None:
    dealer = sides.network.dealer(sides.router.endpoint)
    with closing(dealer):
        dealer.send([b"x"])
        await received(sides.router)
        sides.router.close()
        assert await dealer.ended() is Ending.DROPPED
        while dealer.send([b"x"]):  # ZeroMQ reports the end before its queue has gone
            await anyio.lowlevel.checkpoint()
    with closing(sides.network.dealer(sides.router.endpoint)) as late:
        assert await late.ended() is Ending.DROPPED


async def test_queues_for_requests_and_replies_are_bounded(sides: Sides) -> None:
    with closing(sides.network.dealer(sides.router.endpoint)) as dealer:
        dealer.send([b"x"])
        [incoming] = await received(sides.router)
        asked = next(number for number in range(MANY) if not dealer.send([PAGE]))
        told = [sides.router.send(incoming.peer, [PAGE]) for _ in range(MANY)]
        assert asked + 1 >= QUEUE_MESSAGES_MAX  # with the first, whose place ZeroMQ frees later
        assert told.index(Sent.FULL) >= REPLIES_MAX


async def test_a_subscriber_hears_its_topics_and_the_publisher_who_comes_and_leaves(sides: Sides) -> None:
    subscriber = sides.network.subscriber(sides.publisher.endpoint)
    for topic in (TOPIC, OTHER):
        subscriber.subscribe(topic)
        [came] = await sides.publisher.subscriptions()
        assert (came.topic, came.wanted) == (topic, True)
        assert came.key is not None
    for topic in (b"n" * 16, OTHER, TOPIC):
        sides.publisher.publish([topic, b"data"])
    heard = await arrived(subscriber)
    while len(heard) < 2:
        heard += await arrived(subscriber)
    assert heard == [[OTHER, b"data"], [TOPIC, b"data"]]
    subscriber.unsubscribe(OTHER)
    [left] = await sides.publisher.subscriptions()
    assert (left.topic, left.wanted) == (OTHER, False)
    subscriber.close()
    [closed] = await sides.publisher.subscriptions()
    assert (closed.topic, closed.wanted, closed.key) == (TOPIC, False, None)


async def test_a_subscriber_that_does_not_read_misses_events_and_holds_up_nobody(sides: Sides) -> None:
    with closing(sides.network.subscriber(sides.publisher.endpoint)) as subscriber:
        subscriber.subscribe(TOPIC)
        await sides.publisher.subscriptions()
        for _ in range(MANY):
            sides.publisher.publish([TOPIC, PAGE])
        heard = 0
        while heard < EVENTS_MESSAGES_MAX:
            heard += len(await arrived(subscriber))
        assert heard < MANY


async def test_requests_of_peers_are_taken_in_turn() -> None:
    """In one process alone: over sockets it is the kernel's turn too."""
    network = MemoryNetwork()
    greedy, modest = (network.dealer(network.router.endpoint) for _ in range(2))
    for _ in range(QUEUE_MESSAGES_MAX):
        greedy.send([b"greedy"])
    modest.send([b"modest"])
    assert [b"modest"] in [incoming.frames for incoming in await network.router.receive()]
    assert greedy.progress() > modest.progress() > 0
