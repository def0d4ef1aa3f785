"""What is committed is said live, sealed, to those who hold the key, and to nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.announcer import Announcer
from airunner.broker.counts import Counts
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.watchers import GRANT_MS, Watchers
from airunner.certs.sealed import open_sealed, topic_of
from airunner.protocol.compression import compressed
from airunner.protocol.errors import Forged, Quota
from airunner.protocol.events import EventSegment
from airunner.protocol.frames import LIVE_BYTES_MAX
from airunner.protocol.names import WatchKey
from airunner.transport.memory import PEER_KEY, MemoryPublisher
from airunner.transport.ports import ALL_LISTENERS_LEFT
from tests.broker.stage import acting, edges
from tests.transport.test_networks import arrived

KEY = WatchKey(b"k" * 32)
OTHER = WatchKey(b"o" * 32)
TOPIC = topic_of(KEY)
RUN = EventSegment(first_sequence=1, count=1, attempt=1, events=b"\x91\x80")


class Stage:
    """An Announcer, its inbox, its socket and a subscriber."""

    def __init__(self) -> None:
        self.socket = MemoryPublisher()
        self.subscriber = self.socket.connect()
        self.counts = Counts()
        self.watchers = Watchers(1)
        self.appended, self.inbox = anyio.create_memory_object_stream[Sequence[Appended]](16)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        announcer = Announcer(self.socket, edges(), self.counts, self.watchers)

        async def told() -> None:
            async for batch in self.inbox:
                announcer.send(batch)

        async with acting(announcer.run), acting(told):
            yield
        self.appended.close()
        self.inbox.close()

    async def subscribe(self, topic: bytes = TOPIC) -> None:
        self.subscriber.subscribe(topic)
        await wait_all_tasks_blocked()

    async def append(self, *segments: EventSegment, key: WatchKey = KEY) -> int:
        """Have these announced, and return how many were."""
        before = self.counts["announced"]
        self.appended.send_nowait([Appended(key, segment) for segment in segments or (RUN,)])
        await wait_all_tasks_blocked()
        return self.counts["announced"] - before


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.running():
        yield stage


async def test_what_is_heard_counts_as_its_tenants_until_it_is_left_and_is_then_not_said() -> None:
    stage = Stage()
    stage.watchers.grant("t", TOPIC, PEER_KEY, 0)
    async with stage.running():
        await stage.subscribe()
        assert await stage.append() == 1
        with pytest.raises(Quota):
            stage.watchers.grant("t", topic_of(OTHER), PEER_KEY, GRANT_MS)
        stage.subscriber.unsubscribe(TOPIC)
        await wait_all_tasks_blocked()
        stage.watchers.grant("t", topic_of(OTHER), PEER_KEY, GRANT_MS)
        assert await stage.append() == 0


@pytest.mark.parametrize("topic", [TOPIC, b""], ids=["without the key", "everything"])
async def test_a_machine_that_was_not_given_the_key_is_not_welcomed_and_makes_nothing_said(topic: bytes) -> None:
    stage = Stage()
    stage.watchers.grant("t", TOPIC, "other", 0)
    async with stage.running():
        await stage.subscribe(topic)
        assert await stage.append() == 0
        stage.socket.publish([TOPIC, b"the first that comes"])
        assert await arrived(stage.subscriber) == [[TOPIC, b"the first that comes"]]


async def test_what_is_said_opens_with_the_jobs_key_and_no_other_and_under_no_nonce_twice(stage: Stage) -> None:
    await stage.subscribe()
    assert await stage.append(key=OTHER) == 0
    assert await stage.append(RUN, RUN, RUN) == 3
    welcome, *said = await arrived(stage.subscriber)
    assert welcome == [TOPIC, b""], "it is told from when on it hears everything"
    for topic, sealed in said:
        assert topic == TOPIC
        assert msgspec.msgpack.decode(open_sealed(KEY, sealed), type=EventSegment) == RUN
        with pytest.raises(Forged):
            open_sealed(OTHER, sealed)
    assert len({sealed[:24] for _, sealed in said}) == 3


async def test_a_long_run_is_only_named_and_so_is_what_follows_it_in_the_batch(stage: Stage) -> None:
    """What waits for a listener who does not read is counted in messages: it is bounded in bytes by theirs."""
    long = EventSegment(first_sequence=2, count=3, attempt=1, events=bytes(LIVE_BYTES_MAX + 1))
    after = EventSegment(first_sequence=5, count=1, attempt=1, events=b"\x91\x80")
    await stage.subscribe()
    await stage.append(RUN, long, long, after)
    _, *said = await arrived(stage.subscriber)
    assert [msgspec.msgpack.decode(open_sealed(KEY, sealed)) for _, sealed in said] == [
        msgspec.to_builtins(RUN, builtin_types=(bytes,)),
        {"first_sequence": 2, "count": 4, "attempt": 1},
    ]


async def test_a_compressed_run_is_only_named_because_an_older_listener_could_not_read_it(stage: Stage) -> None:
    packed = EventSegment(first_sequence=2, count=1, attempt=1, events=compressed(b"\x91" + bytes(9_000)))
    assert len(packed.events) < LIVE_BYTES_MAX
    await stage.subscribe()
    await stage.append(packed)
    _, (_, sealed) = await arrived(stage.subscriber)
    assert msgspec.msgpack.decode(open_sealed(KEY, sealed)) == {"first_sequence": 2, "count": 1, "attempt": 1}


async def test_when_the_relay_has_ended_nothing_is_said_until_somebody_comes_back(stage: Stage) -> None:
    await stage.subscribe()
    stage.socket.change(ALL_LISTENERS_LEFT)
    await wait_all_tasks_blocked()
    assert await stage.append() == 0
    late = stage.socket.connect()
    late.subscribe(TOPIC)
    assert await arrived(late) == [[TOPIC, b""]]
    assert await stage.append() == 1
