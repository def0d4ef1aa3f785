"""Live events leave through a process of their own, which may be killed, stopped or filled: the broker goes on."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count

import anyio
import pytest
import zmq

from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.relay import listeners as listening
from airunner.broker.relay import relay as module
from airunner.broker.relay.line import PacketSocket
from airunner.broker.relay.listeners import BURST_S, SUBSCRIPTIONS_A_SECOND, Listeners
from airunner.broker.relay.relay import CONDITION, Relay
from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.protocol.errors import OperatorError
from airunner.protocol.frames import LIVE_BYTES_MAX, PEER_TOPIC, TOPIC_BYTES
from airunner.transport.ports import ALL_LISTENERS_LEFT, Subscription
from airunner.transport.sockets import CurveNetwork, CurveSubscriber, new_context
from tests.virtualtime import real_time  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(60)
TIMEOUT_S = 50  # several interpreters are started, beside other tests
ANYWHERE = "tcp://127.0.0.1:0"
MANY = (1e6, 1.0)
TOPIC = bytes(TOPIC_BYTES)
SMALL_BYTES = 96 * 1_048_576
AT_ONCE = int(SUBSCRIPTIONS_A_SECOND * BURST_S)
LONG_TOPIC_BYTES = 400  # for one of these libzmq keeps some 19 KiB


class Stage:
    """A relay that runs, what it counted and complained of, and a subscriber of a listed machine."""

    def __init__(self, relay: Relay, subscriber: CurveSubscriber) -> None:
        self.relay = relay
        self.subscriber = subscriber
        self.counts = Counts()
        self.said: list[str] = []
        self.health = Health(self.said.append)
        self.heard_in, self.heard = anyio.create_memory_object_stream[list[bytes]](16)

    async def hear(self) -> None:
        """As a client does: a socket that nobody reads does not subscribe again either."""
        with self.heard_in, self.heard:
            await self.subscriber.read(self.heard_in.send_nowait)

    async def changes(self) -> list[Subscription]:
        return await self.relay.subscriptions()


@asynccontextmanager
async def relaying(home: Home, memory_bytes_max: int = module.MEMORY_BYTES_MAX) -> AsyncIterator[Stage]:
    context = new_context()
    try:
        with anyio.fail_after(TIMEOUT_S), closing(Relay(str(home.root), ANYWHERE, MANY, memory_bytes_max)) as relay:
            relay.start()
            await relay.ready()
            network = CurveNetwork(context, load_client_pair(home), load_broker_public(home))
            with closing(network.subscriber(relay.endpoint)) as subscriber:
                stage = Stage(relay, subscriber)
                async with anyio.create_task_group() as group:
                    group.start_soon(relay.run, stage.counts, stage.health)
                    group.start_soon(stage.hear)
                    yield stage
                    group.cancel_scope.cancel()
    finally:
        context.destroy(linger=0)


async def subscribe_without_end(home: Home, endpoint: str) -> None:
    """As a listed machine could: what follows a message's first frame is kept by the other side alone."""
    context, pair = new_context(), load_client_pair(home)
    raw = context.socket(zmq.XSUB)
    raw.setsockopt(zmq.ONLY_FIRST_SUBSCRIBE, 1)
    raw.linger, raw.sndhwm = 0, 16
    raw.curve_serverkey, raw.curve_publickey, raw.curve_secretkey = load_broker_public(home), pair.public, pair.secret
    raw.connect(endpoint)
    try:
        for number in count(step=64):
            topics = (n.to_bytes(4, "big").ljust(LONG_TOPIC_BYTES) for n in range(number, number + 64))
            raw.send_multipart([b"\5", *(b"\1" + topic for topic in topics)])
            await anyio.lowlevel.checkpoint()
    finally:
        context.destroy(linger=0)


@pytest.fixture
async def stage(home: Home) -> AsyncIterator[Stage]:
    async with relaying(home) as stage:
        yield stage


async def test_what_is_published_arrives_and_subscriptions_are_told_with_machines(home: Home, stage: Stage) -> None:
    stage.subscriber.subscribe(b"short")
    stage.subscriber.subscribe(TOPIC)
    key = load_client_pair(home).public.decode()
    assert await stage.changes() == [Subscription(TOPIC, wanted=True, key=key)], (
        "and not of what is no topic of a job's"
    )
    stage.relay.publish([TOPIC, b""])
    stage.relay.publish([TOPIC, b"s" * LIVE_BYTES_MAX])
    for payload in (b"", b"s" * LIVE_BYTES_MAX):
        assert await stage.heard.receive() == [TOPIC, payload]
    stage.subscriber.unsubscribe(TOPIC)
    assert await stage.changes() == [Subscription(TOPIC, wanted=False, key=key)]
    assert stage.counts["peers_admitted"] == 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # as of a terminal, or of a unit that is stopped
        os.kill(stage.relay.pid, number)
    stage.subscriber.subscribe(TOPIC)
    assert await stage.changes() == [Subscription(TOPIC, wanted=True, key=key)]
    assert (stage.counts["relay_restarts"], stage.said) == (0, [])


async def test_one_that_is_killed_is_started_again_on_its_port_once_it_can_be_and_subscribers_come_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Relay.start
    failures = [OSError(11, "Resource temporarily unavailable")]

    def scarce(relay: Relay) -> None:
        if failures:
            raise failures.pop()
        start(relay)

    monkeypatch.setattr(Relay, "start", scarce)
    stage.subscriber.subscribe(TOPIC)
    assert [change.topic for change in await stage.changes()] == [TOPIC]
    endpoint, pid = stage.relay.endpoint, stage.relay.pid
    os.kill(pid, signal.SIGKILL)
    assert await stage.changes() == [ALL_LISTENERS_LEFT]
    assert list(stage.health.conditions) == [CONDITION]
    assert [change.topic for change in await stage.changes()] == [TOPIC]
    assert (stage.relay.endpoint, failures) == (endpoint, [])
    assert stage.counts["relay_restarts"] >= 1
    assert stage.relay.pid != pid
    stage.relay.publish([TOPIC, b"again"])
    assert await stage.heard.receive() == [TOPIC, b"again"]
    assert "SIGKILL" in stage.said[0]
    assert stage.health.conditions == {}


async def test_subscriptions_without_end_fill_it_alone_and_it_is_started_again(home: Home) -> None:
    """What libzmq keeps of each is the relay's, whose memory the kernel bounds; the queue never notices."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with relaying(home, SMALL_BYTES) as stage, anyio.create_task_group() as group:
        group.start_soon(subscribe_without_end, home, stage.relay.endpoint)
        while await stage.changes() != [ALL_LISTENERS_LEFT]:
            pass
        group.cancel_scope.cancel()
    assert stage.counts["relay_restarts"] >= 1
    assert "96 MiB" in stage.said[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < SMALL_BYTES // 1_024


async def test_one_that_takes_nothing_holds_up_nobody_and_is_killed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(stage.relay.pid, signal.SIGSTOP)
    while not stage.counts["live_dropped"]:
        stage.relay.publish([TOPIC, b"s" * LIVE_BYTES_MAX])
        await anyio.lowlevel.checkpoint()
    monkeypatch.setattr(module, "HANG_S", 0)
    stage.relay.publish([TOPIC, b""])
    assert await stage.changes() == [ALL_LISTENERS_LEFT]


async def test_where_it_cannot_listen_is_said_as_the_broker_would(home: Home, stage: Stage) -> None:
    with closing(Relay(str(home.root), stage.relay.endpoint, MANY)) as second:
        second.start()
        with pytest.raises(OperatorError, match=r"cannot listen on tcp:.*; is another broker running there") as told:
            await second.ready()
    assert told.value.exit_code == 69


async def test_a_line_whose_other_end_is_gone_ends_and_takes_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(PacketSocket(ours)) as line:
        theirs.close()
        assert not line.send(b"x")
        with anyio.fail_after(TIMEOUT_S):
            assert await line.receive() == []


def topic(number: int) -> bytes:
    return number.to_bytes(16, "big")


def come(number: int, key: str = "m") -> Subscription:
    return Subscription(topic(number), wanted=True, key=key)


def gone(number: int) -> Subscription:
    return Subscription(topic(number), wanted=False, key=None)


def test_a_machine_is_told_of_so_often_a_second_and_others_all_the_same() -> None:
    listeners = Listeners()
    assert all(listeners.record(come(number), 0) for number in range(AT_ONCE))
    assert not listeners.record(come(AT_ONCE), 0)
    assert listeners.record(come(AT_ONCE, "another"), 0)
    assert listeners.record(come(AT_ONCE), 2_000)


def test_who_was_not_told_of_leaves_first_and_untold() -> None:
    listeners = Listeners()
    assert listeners.record(come(0, "another"), 0)
    while listeners.record(come(1), 0):
        pass
    assert not listeners.record(come(0), 0)
    assert not listeners.record(gone(0), 0), "the other one still listens"
    assert listeners.record(gone(0), 0)
    assert not listeners.record(gone(0), 0)


def of_peer(number: int, key: str | None = "peer", *, wanted: bool = True) -> Subscription:
    return Subscription(PEER_TOPIC + topic(number), wanted=wanted, key=key)


def test_a_peers_subscriptions_are_told_of_whatever_their_rate_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PEER_TOPICS_MAX", AT_ONCE + 1)
    listeners = Listeners(lambda key: key == "peer")
    assert all(listeners.record(of_peer(number), 0) for number in range(AT_ONCE + 1))
    assert not listeners.record(of_peer(AT_ONCE + 1), 0)
    assert listeners.has_peer(topic(AT_ONCE + 2)), "beyond the bound every event is published to peers"
    assert not listeners.record(of_peer(AT_ONCE + 1, None, wanted=False), 0)
    assert listeners.record(of_peer(0), 0), "another broker's, to a topic that is known"
    assert [listeners.record(of_peer(0, None, wanted=False), 0) for _ in range(3)] == [True, True, False]
    assert listeners.peer_topics == [topic(number) for number in range(1, AT_ONCE + 1)]


def test_nobody_else_subscribes_as_a_peer_or_ends_what_a_peer_has_subscribed_to() -> None:
    listeners = Listeners(lambda key: key == "peer")
    assert listeners.record(of_peer(0), 0)
    assert not listeners.record(of_peer(0, "agent"), 0)
    assert not any(listeners.record(of_peer(0, key, wanted=False), 0) for key in ("agent", "agent", "agent"))
    assert not listeners.record(of_peer(1, "agent"), 0)
    assert not listeners.record(of_peer(1, None, wanted=False), 0)
    assert not listeners.record(Subscription(b"\2" + topic(0), wanted=True, key="peer"), 0)
    assert listeners.peer_topics == [topic(0)]
    assert listeners.record(of_peer(0, wanted=False), 0)
    assert listeners.peer_topics == []
