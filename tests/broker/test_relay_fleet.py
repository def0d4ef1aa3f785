"""Relays of several brokers, each a process with real sockets: what one publishes is heard at the others."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import msgspec
import pytest

from airunner.broker.announcer import Announcer
from airunner.broker.counts import Counts
from airunner.broker.health import Health
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.relay import peerlist
from airunner.broker.relay.line import PeerState
from airunner.broker.relay.relay import Relay
from airunner.broker.watchers import Watchers
from airunner.certs.allowlist import PeerRole
from airunner.certs.curve import load_broker_public, load_client_pair
from airunner.certs.home import Home
from airunner.certs.init import init
from airunner.certs.machines import add, revoke
from airunner.certs.sealed import hint_key, open_sealed, topic_of
from airunner.protocol.events import EventSegment
from airunner.protocol.frames import PEER_TOPIC, TOPIC_BYTES
from airunner.protocol.names import WatchKey
from airunner.transport.ports import SYSTEM, Ending, Frames
from airunner.transport.sockets import CurveNetwork, new_context
from tests.virtualtime import real_time  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(60)
TIMEOUT_S: Final = 50  # several interpreters are started, beside other tests
ANYWHERE: Final = "tcp://127.0.0.1:0"
MANY: Final = (1e6, 1.0)
KEY: Final = WatchKey(b"k" * 32)
TOPIC: Final = topic_of(KEY)
HINTS: Final = topic_of(hint_key(b"0" * 40))
STREAM_MAX: Final = 10_000


class Noting(Watchers):
    """Watchers that the test sees change."""

    def __init__(self) -> None:
        super().__init__()
        self.changed_in, self.changed = anyio.create_memory_object_stream[None](STREAM_MAX)
        self.ended_in, self.ended = anyio.create_memory_object_stream[None](STREAM_MAX)

    def add_peer(self, topic: bytes) -> None:
        super().add_peer(topic)
        self.changed_in.send_nowait(None)

    def all_listeners_left(self, now_ms: int) -> None:
        super().all_listeners_left(now_ms)
        self.ended_in.send_nowait(None)

    async def know_peers(self, count: int) -> None:
        while self._peers.get(TOPIC, 0) < count:
            await self.changed.receive()


class Site:
    """One broker's relay process, its Announcer, and what its monitor hears."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.counts = Counts()
        self.said_in, self.said = anyio.create_memory_object_stream[str](STREAM_MAX)
        self.health = Health(self.said_in.send_nowait)
        self.watchers = Noting()
        self.announcer = Announcer(relay, SYSTEM, self.counts, self.watchers)
        self.heard_in, self.heard = anyio.create_memory_object_stream[int](STREAM_MAX)
        self.welcomes_in, self.welcomes = anyio.create_memory_object_stream[None](STREAM_MAX)
        self.hints_in, self.hints = anyio.create_memory_object_stream[bytes](STREAM_MAX)

    def hear(self, frames: Frames) -> None:
        topic, payload = frames
        assert topic == TOPIC
        if payload:
            segment = msgspec.msgpack.decode(open_sealed(KEY, payload), type=EventSegment)
            self.heard_in.send_nowait(segment.first_sequence)
        else:
            self.welcomes_in.send_nowait(None)

    def append(self, numbers: Iterable[int]) -> None:
        segments = [EventSegment(first_sequence=number, count=1, attempt=1, events=b"\x91\x80") for number in numbers]
        self.announcer.send([Appended(KEY, segment) for segment in segments])

    async def events(self, count: int) -> list[int]:
        return [await self.heard.receive() for _ in range(count)]

    def close(self) -> None:
        watchers = (self.watchers.changed_in, self.watchers.changed, self.watchers.ended_in, self.watchers.ended)
        inboxes = (self.said_in, self.heard_in, self.welcomes_in, self.hints_in)
        for stream in (*watchers, *inboxes, self.said, self.heard, self.welcomes, self.hints):
            stream.close()


@asynccontextmanager
async def site(home: Home, network: CurveNetwork) -> AsyncIterator[Site]:
    with closing(Relay(str(home.root), ANYWHERE, MANY)) as relay:
        relay.start()
        await relay.ready()
        with closing(Site(relay)) as found, closing(network.subscriber(relay.endpoint)) as subscriber:
            relay.join(HINTS, found.hints_in.send_nowait)
            async with anyio.create_task_group() as group:
                group.start_soon(relay.run, found.counts, found.health)
                group.start_soon(found.announcer.run)
                group.start_soon(subscriber.read, found.hear)
                subscriber.subscribe(TOPIC)
                yield found
                group.cancel_scope.cancel()


def know_each_other(sites: Sequence[Site]) -> None:
    for one in sites:
        one.relay.set_peers([other.relay.endpoint for other in sites if other is not one])


@asynccontextmanager
async def fleet(*homes: Home) -> AsyncIterator[list[Site]]:
    """A broker for each home; as in a fleet, they share its key."""
    context = new_context()
    network = CurveNetwork(context, load_client_pair(homes[0]), load_broker_public(homes[0]))
    try:
        with anyio.fail_after(TIMEOUT_S):
            async with AsyncExitStack() as stack:
                sites = [await stack.enter_async_context(site(home, network)) for home in homes]
                know_each_other(sites)
                yield sites
    finally:
        context.destroy(linger=0)


@pytest.fixture
def listed(home: Home) -> Home:
    """A home whose allow-list has the fleet's key."""
    add(home, "fleet", [PeerRole.BROKER], None, None)
    return home


async def test_three_relays_hear_one_another_dense_and_once_and_their_hints(listed: Home) -> None:
    async with fleet(listed, listed, listed) as sites:
        for one in sites:
            await one.watchers.know_peers(2)
            await one.welcomes.receive()
        for turn, one in enumerate(sites):
            one.append(range(turn * 50 + 1, turn * 50 + 51))
            for other in sites:
                assert await other.events(50) == list(range(turn * 50 + 1, turn * 50 + 51))
        sites[0].relay.publish([PEER_TOPIC + HINTS, b"hint"])
        assert [await other.hints.receive() for other in sites[1:]] == [b"hint", b"hint"]
        assert [one.heard.statistics().current_buffer_used for one in sites] == [0, 0, 0]
        assert sites[0].hints.statistics().current_buffer_used == 0


async def test_a_relay_that_is_killed_is_heard_again_and_monitors_at_its_peer_are_made_to_replay(listed: Home) -> None:
    async with fleet(listed, listed) as (here, there):
        await there.watchers.know_peers(1)
        there.append([1])
        assert await here.events(1) == [1]
        os.kill(there.relay.pid, signal.SIGKILL)
        await there.watchers.ended.receive()
        await there.watchers.know_peers(1)
        there.append([2])
        assert await here.events(1) == [2]
        while here.welcomes.statistics().current_buffer_used:  # of this monitor's own, and of the relay that is back
            here.welcomes.receive_nowait()
        for one, other in ((here, there), (there, here)):
            one.relay.replay_all()
            await other.welcomes.receive()


async def test_a_fleet_whose_key_is_not_listed_is_told_what_to_do_and_connects_once_it_is(home: Home) -> None:
    async with fleet(home, home) as (here, there):
        assert "airunner certs add NAME --role broker" in await here.said.receive()
        add(home, "fleet", [PeerRole.BROKER], None, None)
        await there.watchers.know_peers(1)
        there.append([1])
        assert await here.events(1) == [1]
        assert await here.said.receive() == f"condition over: {peerlist.CONDITION}"
        revoke(home, "fleet")
        os.kill(here.relay.pid, signal.SIGKILL)
        while peerlist.CONDITION not in await here.said.receive():
            pass


async def test_a_broker_with_another_key_is_no_peer(listed: Home, tmp_path: Path) -> None:
    stranger = Home(tmp_path / "stranger")
    init(stranger)
    async with fleet(listed, stranger) as (here, there):
        assert "has another key than this broker" in await here.said.receive()
        there.append([1])
        here.append([2])
        assert await here.events(1) == [2]


async def test_a_machine_that_is_no_broker_subscribes_as_a_peer_without_effect(listed: Home) -> None:
    context = new_context()
    network = CurveNetwork(context, load_client_pair(listed), load_broker_public(listed))
    try:
        async with fleet(listed, listed) as (here, there):
            await there.watchers.know_peers(1)
            with closing(network.subscriber(there.relay.endpoint)) as spy:
                for topic in (PEER_TOPIC + TOPIC, PEER_TOPIC + HINTS, PEER_TOPIC + bytes(TOPIC_BYTES)):
                    spy.subscribe(topic)
                spied: list[Frames] = []
                async with anyio.create_task_group() as group:
                    group.start_soon(spy.read, spied.append)
                    there.append([1])
                    spy.unsubscribe(PEER_TOPIC + TOPIC)
                    for number in range(2, 100):
                        there.append([number])
                        assert await here.events(1) == [number - 1]
                    group.cancel_scope.cancel()
            assert list(there.watchers._peers) == [TOPIC]
            assert there.watchers._peers[TOPIC] == 1
            assert not any(b"\x91\x80" in frames[1] for frames in spied)
    finally:
        context.destroy(linger=0)


async def test_too_many_peers_are_said_and_the_first_ones_connected_to(
    listed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peerlist, "PEERS_MAX", 1)
    async with fleet(listed, listed, listed) as sites:
        assert "only 1 of 2 other brokers are connected to" in await sites[2].said.receive()
        await sites[0].watchers.know_peers(2)
        sites[0].append([1])
        assert await sites[2].events(1) == [1]


def test_a_peer_that_ends_during_a_handshake_is_not_said_to_have_another_key() -> None:
    said: list[str] = []
    health, peers = Health(said.append), peerlist.PeerList(bytes(16))
    peers.set(["tcp://a:1"])
    mismatched = PeerState("tcp://a:1", Ending.MISMATCHED.name)
    for state in (mismatched, mismatched, PeerState("tcp://a:1", None), mismatched, mismatched):
        peers.note(state)
        assert peers.parted is (state.ending is not None)
        peers.report(health)
    assert not said
    peers.note(mismatched)
    peers.report(health)
    assert "aborts the handshake" in said[0]
