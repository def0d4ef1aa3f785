"""What is committed is said live, sealed, to those who hold the key, and to nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker import watchers as module
from airunner.broker.announcer import Announcer
from airunner.broker.counts import Counts
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.watchers import GRANT_MS, Watchers
from airunner.certs.sealed import open_sealed, topic_of
from airunner.protocol.errors import Forged, Quota
from airunner.protocol.events import EventSegment
from airunner.protocol.frames import LIVE_BYTES_MAX
from airunner.protocol.names import WatchKey
from airunner.transport.ports import ALL_LISTENERS_LEFT
from tests.broker.stage import FakePublisher, acting, edges

pytestmark = pytest.mark.anyio

KEY = WatchKey(b"k" * 32)
OTHER = WatchKey(b"o" * 32)
RUN = EventSegment(first_sequence=1, count=1, attempt=1, events=b"\x91\x80")


class Stage:
    """An Announcer, its inbox and its socket."""

    def __init__(self) -> None:
        self.socket = FakePublisher()
        self.counts = Counts()
        self.watchers = Watchers(1)
        self.appended, self.inbox = anyio.create_memory_object_stream[Sequence[Appended]](16)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with acting(Announcer(self.socket, self.inbox, edges(), self.counts, self.watchers).run):
            yield
        self.socket.close()
        self.appended.close()
        self.inbox.close()

    async def subscribe(self, topic: bytes) -> None:
        self.socket.subscribe(topic)
        await wait_all_tasks_blocked()


async def test_each_subscriber_is_told_from_when_on_it_hears_everything() -> None:
    stage = Stage()
    async with stage.running():
        for _ in range(2):
            stage.socket.subscribe(topic_of(KEY))
            assert await stage.socket.published.receive() == [topic_of(KEY), b""]


async def test_what_is_heard_counts_as_its_tenants_until_it_is_left() -> None:
    stage = Stage()
    stage.watchers.grant("t", topic_of(KEY), "local", 0)
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        with pytest.raises(Quota):
            stage.watchers.grant("t", topic_of(OTHER), "local", GRANT_MS)
        stage.socket.subscribe(topic_of(KEY), wanted=False)
        await wait_all_tasks_blocked()
        stage.watchers.grant("t", topic_of(OTHER), "local", GRANT_MS)


async def test_a_machine_that_was_not_given_the_key_is_not_welcomed_and_makes_nothing_said() -> None:
    stage = Stage()
    stage.watchers.grant("t", topic_of(KEY), "other", 0)
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        stage.appended.send_nowait([Appended(KEY, RUN)])
        await wait_all_tasks_blocked()
        assert stage.socket.published.statistics().current_buffer_used == 0


async def test_what_is_said_opens_with_the_jobs_key_and_no_other() -> None:
    stage = Stage()
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        await stage.socket.published.receive()
        stage.appended.send_nowait([Appended(OTHER, RUN), Appended(KEY, RUN)])
        topic, sealed = await stage.socket.published.receive()
        assert topic == topic_of(KEY)
        assert msgspec.msgpack.decode(open_sealed(KEY, sealed), type=EventSegment) == RUN
        with pytest.raises(Forged):
            open_sealed(OTHER, sealed)
        assert stage.counts["announced"] == 1


async def test_no_nonce_is_used_twice() -> None:
    stage = Stage()
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        await stage.socket.published.receive()
        stage.appended.send_nowait([Appended(KEY, RUN)] * 3)
        assert len({(await stage.socket.published.receive())[1][:24] for _ in range(3)}) == 3


async def test_what_nobody_listens_to_any_more_is_not_said() -> None:
    stage = Stage()
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        await stage.socket.published.receive()
        stage.socket.subscribe(topic_of(KEY), wanted=False)
        await wait_all_tasks_blocked()
        stage.appended.send_nowait([Appended(KEY, RUN)])
        await wait_all_tasks_blocked()
        assert stage.socket.published.statistics().current_buffer_used == 0


async def test_a_subscription_to_everything_is_given_nothing_by_itself() -> None:
    stage = Stage()
    async with stage.running():
        await stage.subscribe(b"")
        stage.appended.send_nowait([Appended(KEY, RUN)])
        await wait_all_tasks_blocked()
        assert stage.socket.published.statistics().current_buffer_used == 0


async def test_beyond_its_memory_everything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTENED_MAX", 1)
    stage = Stage()
    async with stage.running():
        for key in (b"a", b"b"):
            await stage.subscribe(topic_of(key * 32))
            await stage.socket.published.receive()
        stage.appended.send_nowait([Appended(KEY, RUN)])
        assert (await stage.socket.published.receive())[0] == topic_of(KEY)


async def test_a_long_run_is_only_named_and_so_is_what_follows_it_in_the_batch() -> None:
    """What waits for a listener who does not read is counted in messages: it is bounded in bytes by theirs."""
    stage = Stage()
    long = EventSegment(first_sequence=2, count=3, attempt=1, events=bytes(LIVE_BYTES_MAX + 1))
    after = EventSegment(first_sequence=5, count=1, attempt=1, events=b"\x91\x80")
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        await stage.socket.published.receive()
        stage.appended.send_nowait([Appended(KEY, one) for one in (RUN, long, long, after)])
        for said in (msgspec.to_builtins(RUN, builtin_types=(bytes,)), {"first_sequence": 2, "count": 4, "attempt": 1}):
            _, sealed = await stage.socket.published.receive()
            assert msgspec.msgpack.decode(open_sealed(KEY, sealed)) == said
        await wait_all_tasks_blocked()
        assert stage.socket.published.statistics().current_buffer_used == 0


async def test_when_the_relay_has_ended_nothing_is_said_until_somebody_comes_back() -> None:
    stage = Stage()
    async with stage.running():
        await stage.subscribe(topic_of(KEY))
        await stage.socket.published.receive()
        stage.socket.subscribe(ALL_LISTENERS_LEFT.topic, wanted=ALL_LISTENERS_LEFT.wanted, key=ALL_LISTENERS_LEFT.key)
        await wait_all_tasks_blocked()
        stage.appended.send_nowait([Appended(KEY, RUN)])
        await wait_all_tasks_blocked()
        assert stage.socket.published.statistics().current_buffer_used == 0
        await stage.subscribe(topic_of(KEY))
        assert await stage.socket.published.receive() == [topic_of(KEY), b""]
