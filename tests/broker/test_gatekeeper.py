"""Which peer gets through the broker's door, over real CURVE sockets, each bounded in what it takes and holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace
from typing import NamedTuple

import anyio
import pytest
import zmq
from anyio.abc import TaskGroup
from zmq.utils.monitor import parse_monitor_message

from airunner.broker.broker import Broker
from airunner.broker.counts import Counts
from airunner.broker.gatekeeper import Gatekeeper
from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.broker.store.batch import Store
from airunner.broker.store.open import open_store
from airunner.certs.allowlist import AllowList
from airunner.certs.authority import NoVerifier
from airunner.certs.curve import CurvePair, load_broker_pair, load_broker_public, load_client_pair, raw_key
from airunner.certs.home import Home
from airunner.protocol.errors import OperatorError, Quota
from airunner.protocol.frames import BODY_BYTES_MAX, FRAMES_MAX, SERVED, SUBSCRIPTION_BYTES_MAX
from airunner.protocol.replies import Pong
from airunner.protocol.requests import Ping
from airunner.transport import sockets
from airunner.transport.anyiosocket import AnyioSocket
from airunner.transport.channel import MISMATCHES_REPORTED, Channel
from airunner.transport.patience import Patience
from airunner.transport.ports import SYSTEM
from airunner.transport.sockets import (
    BACKLOG,
    CURVE_BYTES,
    HANDSHAKE_MS,
    ZAP_DOMAIN,
    ZAP_ENDPOINT,
    ZAP_FRAMES_MAX,
    CurveNetwork,
    CurvePublisher,
    CurveRouter,
    bind_gatekeeper,
    new_context,
)
from airunner.transport.workthread import WorkThread
from tests.transport.test_networks import received
from tests.virtualtime import real_time  # noqa: F401 - a fixture

TIMEOUT_S = 15
Context = zmq.Context[zmq.Socket[bytes]]
ANYWHERE = "tcp://127.0.0.1:0"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = open_store("memory:")
    yield store
    store.close()


@pytest.fixture
def context() -> Iterator[Context]:
    context = new_context()
    yield context
    context.destroy(linger=0)


@asynccontextmanager
async def guarded(
    context: Context, home: Home, counts: Counts | None = None, rates: Rates | None = None
) -> AsyncIterator[TaskGroup]:
    """A Gatekeeper is there while the block runs."""
    allowed = AllowList(home.allowed_clients, lambda _: None)
    gatekeeper = Gatekeeper(bind_gatekeeper(context), allowed, counts or Counts(), rates or Rates())
    with closing(gatekeeper), anyio.fail_after(TIMEOUT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(gatekeeper.run)
            yield group
            group.cancel_scope.cancel()


class Opened(NamedTuple):
    """A broker's door, and what was counted at it."""

    endpoint: str
    counts: Counts


@asynccontextmanager
async def broker(
    home: Home, store: Store, endpoint: str = ANYWHERE, rates: Rates | None = None
) -> AsyncIterator[Opened]:
    """A whole broker over real sockets, in this process."""
    context = new_context()
    counts = Counts()
    try:
        with closing(WorkThread()) as thread:
            async with guarded(context, home, counts, rates) as group:
                router = CurveRouter(context, load_broker_pair(home), endpoint)
                publisher = CurvePublisher(context, load_broker_pair(home), ANYWHERE)
                running = Broker(
                    store=store,
                    router=router,
                    publisher=publisher,
                    authority=NoVerifier(),
                    edges=SYSTEM,
                    offload=thread,
                    counts=counts,
                )
                await group.start(running.run)
                yield Opened(router.endpoint, counts)
                group.cancel_scope.cancel()
        router.close()
        publisher.close()
    finally:
        context.destroy(linger=0)


@asynccontextmanager
async def channel(
    home: Home,
    *endpoints: str,
    pair: CurvePair | None = None,
    broker_public: bytes | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Channel]:
    context = new_context()
    network = CurveNetwork(context, pair or load_client_pair(home), broker_public or load_broker_public(home))
    opened = Channel(network, endpoints, lambda: b"", SYSTEM, patience or Patience())
    try:
        with anyio.fail_after(TIMEOUT_S):
            async with anyio.create_task_group() as group:
                await group.start(opened.run)
                yield opened
                group.cancel_scope.cancel()
    finally:
        context.destroy(linger=0)


def stranger() -> CurvePair:
    public, secret = zmq.curve_keypair()
    return CurvePair(public, secret)


async def test_an_unlisted_key_is_refused_and_the_person_told_until_it_is_listed(home: Home, store: Store) -> None:
    newcomer = stranger()
    async with broker(home, store) as opened:
        async with channel(home, opened.endpoint, pair=newcomer) as asker:
            for _ in range(2):
                with pytest.raises(OperatorError, match="does not accept this machine's key") as raised:
                    await asker.ask(Ping())
                assert raised.value.exit_code == 77
            assert opened.counts["peers_refused"] == 1
        with home.allowed_clients.open("ab") as allowed:
            allowed.write(newcomer.public + b" newcomer client\n")
        async with channel(home, opened.endpoint, pair=newcomer) as asker:
            assert isinstance(await asker.ask(Ping()), Pong)
            assert opened.counts["peers_admitted"] == 1


async def test_a_machine_that_opens_too_many_connections_has_to_come_again_and_others_have_not(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 1_000)  # after which ZeroMQ tries again what was deferred
    other = stranger()
    with home.allowed_clients.open("ab") as allowed:
        allowed.write(other.public + b" other client\n")
    rates = FullAtFirst(load_client_pair(home).public.decode(), 1)
    async with broker(home, store, rates=rates) as opened, channel(home, opened.endpoint) as asker:
        async with channel(home, "tcp://127.0.0.1:9", opened.endpoint, pair=other) as newcomer:
            assert isinstance(await newcomer.ask(Ping()), Pong), "and it tries the next endpoint"
        assert isinstance(await asker.ask(Ping()), Pong), "it comes again by itself"
        assert opened.counts["peers_deferred"] == 1
        assert opened.counts["peers_admitted"] == 2


class FullAtFirst(Rates):
    """Has no room for one machine, so many times."""

    def __init__(self, key: str, times: int) -> None:
        super().__init__()
        self._bucket = Bucket(key, Purpose.MACHINE)
        self._times = times

    def require(self, bucket: Bucket, now_ms: int) -> None:
        if bucket == self._bucket and self._times:
            self._times -= 1
            raise Quota(retry_ms=1)
        super().require(bucket, now_ms)


async def test_whoever_waits_on_is_told_of_a_list_that_lost_his_key_and_goes_on_when_it_is_back(
    home: Home, store: Store
) -> None:
    doubts: list[str] = []
    doubted = anyio.Event()

    def doubt(words: str) -> None:
        doubts.append(words)
        doubted.set()

    listed = home.allowed_clients.read_bytes()
    async with broker(home, store) as opened:
        endpoint = opened.endpoint
    async with channel(home, endpoint, patience=Patience(doubt=doubt)) as asker, anyio.create_task_group() as group:
        async with broker(home, store, endpoint):
            assert isinstance(await asker.ask(Ping()), Pong)
        home.allowed_clients.write_bytes(b"# nobody\n")
        async with broker(home, store, endpoint):
            group.start_soon(asker.ask, Ping())
            await doubted.wait()
            home.allowed_clients.write_bytes(listed)
            assert isinstance(await asker.ask(Ping()), Pong)
    assert len(doubts) == 1
    assert "allow-list" in doubts[0]


@pytest.fixture
async def zap(context: Context, home: Home) -> AsyncIterator[Callable[..., Awaitable[list[bytes]]]]:
    """What the Gatekeeper says to libzmq's own words."""
    libzmq = AnyioSocket(context.socket(zmq.DEALER), ZAP_FRAMES_MAX)

    async def ask(domain: bytes, mechanism: bytes, *credentials: bytes) -> list[bytes]:
        libzmq.send([b"", b"1.0", b"7", domain, b"127.0.0.1", b"", mechanism, *credentials])
        return (await libzmq.receive())[0][1:]

    async with guarded(context, home) as group:
        libzmq.raw.connect(ZAP_ENDPOINT)
        yield ask
        group.cancel_scope.cancel()
    libzmq.close()


async def test_a_listed_key_is_admitted_and_known_by_it_at_our_door_in_our_mechanism_alone(
    home: Home, zap: Callable[..., Awaitable[list[bytes]]]
) -> None:
    public = load_client_pair(home).public
    key = raw_key(public)
    assert await zap(ZAP_DOMAIN, b"CURVE", key) == [b"1.0", b"7", b"200", b"", public, b""]
    for domain, mechanism, *credentials in (
        (ZAP_DOMAIN, b"CURVE", bytes(32)),
        (b"other", b"CURVE", key),
        (b"", b"CURVE", key),
        (ZAP_DOMAIN, b"NULL"),
        (ZAP_DOMAIN, b"NULL", key),
        (ZAP_DOMAIN, b"PLAIN", b"user", b"password"),
        (ZAP_DOMAIN, b"PLAIN", key),
        (ZAP_DOMAIN, b"GSSAPI", key),
    ):
        assert (await zap(domain, mechanism, *credentials))[2:5] == [b"400", b"", b""], (domain, mechanism)
    home.allowed_clients.unlink()
    assert (await zap(ZAP_DOMAIN, b"CURVE", key))[2] == b"300", "while the list cannot be read one may try again"


@pytest.mark.parametrize("asking", ["client", "agent"])
async def test_a_broker_of_another_key_is_told_at_once(home: Home, store: Store, asking: str) -> None:
    doubted: list[str] = []
    told = anyio.Event()

    def doubt(message: str) -> None:
        doubted.append(message)
        told.set()

    patience = Patience(doubt=doubt if asking == "agent" else None)
    async with (
        broker(home, store) as opened,
        channel(home, opened.endpoint, broker_public=stranger().public, patience=patience) as asker,
        anyio.create_task_group() as group,
    ):
        if asking == "agent":
            group.start_soon(asker.ask, Ping())
            await told.wait()
            assert "has another key than the one pinned here" in doubted[0]
            group.cancel_scope.cancel()
        else:
            with pytest.raises(OperatorError, match="has another key than the one pinned here") as raised:
                await asker.ask(Ping())
            assert raised.value.exit_code == 77


async def test_a_proxy_without_its_broker_is_not_taken_for_another_broker(home: Home, store: Store) -> None:
    async with broker(home, store) as opened:
        endpoint = opened.endpoint
    doubts: list[str] = []
    async with (
        channel(home, endpoint, patience=Patience(doubt=doubts.append)) as asker,
        anyio.create_task_group() as group,
    ):
        answers: list[object] = []
        answered = anyio.Event()

        async def ask() -> None:
            answers.append(await asker.ask(Ping()))
            answered.set()

        port = int(endpoint.rpartition(":")[2])
        async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener:
            group.start_soon(ask)
            for _ in range(2 * MISMATCHES_REPORTED):
                await (await listener.listeners[0].accept()).aclose()  # accepted, and closed: nobody behind it
        async with broker(home, store, endpoint):
            await answered.wait()
        assert answers == [Pong(revisions=SERVED)]
        [doubt] = doubts  # said once, and waited on
        assert f"the server at {endpoint} aborts the handshake" in doubt


_OVER = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_OVER |= zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED

Door = Callable[[Context, Home], CurveRouter | CurvePublisher]


def router(context: Context, home: Home) -> CurveRouter:
    return CurveRouter(context, load_broker_pair(home), ANYWHERE)


def publisher(context: Context, home: Home) -> CurvePublisher:
    return CurvePublisher(context, load_broker_pair(home), ANYWHERE)


def knocking(context: Context, home: Home, kind: int) -> zmq.Socket[bytes]:
    """A socket of a listed key, which tries once."""
    raw, pair = context.socket(kind), load_client_pair(home)
    raw.reconnect_ivl = -1
    raw.curve_serverkey, raw.curve_publickey, raw.curve_secretkey = load_broker_public(home), pair.public, pair.secret
    return raw


async def handshake(context: Context, home: Home, kind: int, endpoint: str) -> int:
    """What comes of the knocking of a listed key."""
    with closing(knocking(context, home, kind)) as raw, closing(raw.get_monitor_socket(_OVER)) as monitor:
        raw.connect(endpoint)
        [first, *_] = await AnyioSocket(monitor).receive()
        raw.disable_monitor()
        return int(parse_monitor_message(first)["event"])


@pytest.mark.parametrize(("door", "kind"), [(router, zmq.DEALER), (publisher, zmq.SUB)])
async def test_while_no_gatekeeper_is_there_nobody_gets_in(context: Context, home: Home, door: Door, kind: int) -> None:
    with anyio.fail_after(TIMEOUT_S), closing(door(context, home)) as opened:
        assert await handshake(context, home, kind, opened.endpoint) != zmq.EVENT_HANDSHAKE_SUCCEEDED
        async with guarded(context, home):
            assert await handshake(context, home, kind, opened.endpoint) == zmq.EVENT_HANDSHAKE_SUCCEEDED


async def test_of_a_message_with_too_many_frames_one_too_many_is_kept(context: Context, home: Home) -> None:
    with anyio.fail_after(TIMEOUT_S), closing(router(context, home)) as door:
        async with guarded(context, home):
            with closing(knocking(context, home, zmq.DEALER)) as raw:
                raw.connect(door.endpoint)
                for count in (FRAMES_MAX, FRAMES_MAX + 1, 1_000):
                    raw.send_multipart([b"x"] * count)
                    [heard] = await received(door)
                    assert len(heard.frames) == min(count, FRAMES_MAX + 1)


async def test_each_socket_is_bounded_in_bytes_and_in_how_long_a_handshake_takes(context: Context, home: Home) -> None:
    network = CurveNetwork(context, load_client_pair(home), load_broker_public(home))
    for opened, frame_bytes_max in (
        (router(context, home), BODY_BYTES_MAX),
        (publisher(context, home), SUBSCRIPTION_BYTES_MAX),
        (network.dealer("tcp://127.0.0.1:9"), BODY_BYTES_MAX),
        (network.subscriber("tcp://127.0.0.1:9"), BODY_BYTES_MAX),
    ):
        with closing(opened):
            raw = opened._raw if isinstance(opened, CurveRouter) else opened._socket.raw
            assert (raw.maxmsgsize, raw.handshake_ivl) == (frame_bytes_max + CURVE_BYTES, HANDSHAKE_MS)
            silence_s = raw.tcp_keepalive_idle + raw.tcp_keepalive_cnt * raw.tcp_keepalive_intvl
            if isinstance(opened, CurveRouter | CurvePublisher):
                assert raw.backlog == BACKLOG
            else:
                assert silence_s <= 10, "an idle agent notices by then that its broker's machine has died"


def test_each_contexts_routing_ids_are_drawn_from_another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libzmq draws its routing ids from is seeded by nobody else, so that they would be the same each time."""
    seeds: list[int] = []
    libc = {None: SimpleNamespace(srand=seeds.append)}  # wherever it is
    monkeypatch.setattr(sockets.ctypes, "CDLL", libc.__getitem__)
    for _ in range(4):
        new_context().term()
    assert len(seeds) == 4
    assert len(set(seeds)) > 1
