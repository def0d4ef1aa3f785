"""No door opens without a Gatekeeper, and each socket is bounded in what it takes and holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing

import anyio
import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from airunner.broker.counts import Counts
from airunner.broker.gatekeeper import Gatekeeper
from airunner.broker.rates import Rates
from airunner.certs.allowlist import AllowList
from airunner.certs.curve import load_broker_pair, load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.frames import BODY_BYTES_MAX, FRAMES_MAX, SUBSCRIPTION_BYTES_MAX
from airunner.transport import sockets
from airunner.transport.anyiosocket import AnyioSocket
from airunner.transport.sockets import (
    CURVE_BYTES,
    HANDSHAKE_MS,
    CurveNetwork,
    CurvePublisher,
    CurveRouter,
    bind_gatekeeper,
    new_context,
)
from tests.virtualtime import real_time  # noqa: F401 - a fixture

pytestmark = pytest.mark.anyio
PATIENCE_S = 15
ANYWHERE = "tcp://127.0.0.1:0"
_OVER = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_OVER |= zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED

Door = Callable[[zmq.Context[zmq.Socket[bytes]], Home], CurveRouter | CurvePublisher]


def router(context: zmq.Context[zmq.Socket[bytes]], home: Home) -> CurveRouter:
    return CurveRouter(context, load_broker_pair(home), ANYWHERE)


def publisher(context: zmq.Context[zmq.Socket[bytes]], home: Home) -> CurvePublisher:
    return CurvePublisher(context, load_broker_pair(home), ANYWHERE)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = new_context()
    yield context
    context.destroy(linger=0)


@asynccontextmanager
async def guarded(context: zmq.Context[zmq.Socket[bytes]], home: Home) -> AsyncIterator[None]:
    """A Gatekeeper is there while the block runs."""
    allowed = AllowList(home.allowed_clients, lambda _: None)
    with closing(Gatekeeper(bind_gatekeeper(context), allowed, Counts(), Rates())) as gatekeeper:
        async with anyio.create_task_group() as group:
            group.start_soon(gatekeeper.run)
            yield
            group.cancel_scope.cancel()


def knocking(context: zmq.Context[zmq.Socket[bytes]], home: Home, kind: int) -> zmq.Socket[bytes]:
    """A socket of a listed key, which tries once."""
    raw, pair = context.socket(kind), load_client_pair(home)
    raw.reconnect_ivl = -1
    raw.curve_serverkey, raw.curve_publickey, raw.curve_secretkey = load_broker_public(home), pair.public, pair.secret
    return raw


async def handshake(context: zmq.Context[zmq.Socket[bytes]], home: Home, kind: int, endpoint: str) -> int:
    """What comes of the knocking of a listed key."""
    with closing(knocking(context, home, kind)) as raw, closing(raw.get_monitor_socket(_OVER)) as monitor:
        raw.connect(endpoint)
        [first, *_] = await AnyioSocket(monitor).receive()
        raw.disable_monitor()
        return int(parse_monitor_message(first)["event"])


@pytest.mark.parametrize(("door", "kind"), [(router, zmq.DEALER), (publisher, zmq.SUB)])
async def test_while_no_gatekeeper_is_there_nobody_gets_in(
    context: zmq.Context[zmq.Socket[bytes]], home: Home, door: Door, kind: int
) -> None:
    with anyio.fail_after(PATIENCE_S), closing(door(context, home)) as opened:
        assert await handshake(context, home, kind, opened.endpoint) != zmq.EVENT_HANDSHAKE_SUCCEEDED
        async with guarded(context, home):
            assert await handshake(context, home, kind, opened.endpoint) == zmq.EVENT_HANDSHAKE_SUCCEEDED


async def test_of_a_message_with_too_many_frames_one_too_many_is_kept(
    context: zmq.Context[zmq.Socket[bytes]], home: Home
) -> None:
    with anyio.fail_after(PATIENCE_S), closing(router(context, home)) as door:
        async with guarded(context, home):
            with closing(knocking(context, home, zmq.DEALER)) as raw:
                raw.connect(door.endpoint)
                for count in (FRAMES_MAX, FRAMES_MAX + 1, 1_000):
                    raw.send_multipart([b"x"] * count)
                    [heard] = await door.receive()
                    assert len(heard.frames) == min(count, FRAMES_MAX + 1)


async def test_of_what_a_broker_sends_no_more_frames_are_kept(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    near, far = (context.socket(zmq.PAIR) for _ in range(2))
    with closing(near), closing(far), anyio.fail_after(PATIENCE_S):
        near.bind("inproc://pair")
        far.connect("inproc://pair")
        far.send_multipart([b"x"] * 1_000)
        [frames] = await AnyioSocket(near).receive()
        assert len(frames) == FRAMES_MAX + 1


async def test_each_socket_is_bounded_in_bytes_and_in_how_long_a_handshake_takes(
    context: zmq.Context[zmq.Socket[bytes]], home: Home
) -> None:
    network = CurveNetwork(context, load_client_pair(home), load_broker_public(home))
    for opened, frame_bytes_max in (
        (router(context, home), BODY_BYTES_MAX),
        (publisher(context, home), SUBSCRIPTION_BYTES_MAX),
        (network.dealer("tcp://127.0.0.1:9"), BODY_BYTES_MAX),
        (network.subscriber("tcp://127.0.0.1:9"), BODY_BYTES_MAX),
    ):
        with closing(opened):
            raw = opened._socket.raw
            assert (raw.maxmsgsize, raw.handshake_ivl) == (frame_bytes_max + CURVE_BYTES, HANDSHAKE_MS)


def test_each_contexts_routing_ids_are_drawn_from_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libzmq draws its routing ids from is seeded by nobody else, so that they would be the same each time."""
    seeds: list[int] = []

    class FakeLibrary:
        def __init__(self, name: str | None) -> None:
            assert name is None, "libc's, wherever it is"

        def srand(self, seed: int) -> None:
            seeds.append(seed)

    monkeypatch.setattr(sockets.ctypes, "CDLL", FakeLibrary)
    for _ in range(4):
        new_context().term()
    assert len(seeds) == 4
    assert len(set(seeds)) > 1
