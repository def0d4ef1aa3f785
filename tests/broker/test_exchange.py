"""What one broker publishes is heard at all of them, once, and a monitor knows from when on."""

from __future__ import annotations

import anyio
import msgspec
from trio.testing import wait_all_tasks_blocked

from airunner.broker.relay.exchange import WELCOME_S
from airunner.broker.relay.links import RETRY_LAST_MS
from airunner.certs.sealed import open_sealed, topic_of
from airunner.protocol.events import EventSegment
from airunner.protocol.frames import PEER_TOPIC
from airunner.protocol.names import WatchKey
from airunner.transport.memory import MemorySubscriber
from airunner.transport.ports import Ending, Frames
from tests.broker.relaying import KEY, TOPIC, Site, heard, sites

WELCOME: Frames = [TOPIC, b""]


def numbers(monitor: MemorySubscriber) -> list[int]:
    """The events that a monitor has heard; 0 stands for a welcome."""
    messages = heard(monitor)
    assert {topic for topic, _ in messages} <= {TOPIC}
    payloads = [payload for _, payload in messages]
    return [first_of(payload) if payload else 0 for payload in payloads]


def first_of(sealed: bytes) -> int:
    return msgspec.msgpack.decode(open_sealed(KEY, sealed), type=EventSegment).first_sequence


async def test_what_any_broker_appends_is_live_at_each_dense_and_once() -> None:
    async with sites("a", "b", "c") as fleet:
        monitors = [fleet[name].monitor() for name in "aab"]
        await wait_all_tasks_blocked()
        for monitor in monitors:
            assert set(numbers(monitor)) == {0}
        for number, name in enumerate("abcabc", start=1):
            fleet[name].append(number)
            await wait_all_tasks_blocked()
        for monitor in monitors:
            assert numbers(monitor) == [1, 2, 3, 4, 5, 6]
        fleet["c"].append(7, WatchKey(b"o" * 32))
        await wait_all_tasks_blocked()
        assert [fleet[name].counts["announced"] for name in "abc"] == [2, 2, 2], "nobody listens to the other job"


async def test_a_monitor_is_welcomed_when_each_peer_has_welcomed_it_and_no_later_than_after_a_while() -> None:
    async with sites("a", "b") as fleet, anyio.create_task_group() as group:
        Site("c", fleet, group, welcomes=False)
        fleet["a"].exchange.set_peers(["b", "c"])
        await wait_all_tasks_blocked()
        monitor, began_s = fleet["a"].monitor(), anyio.current_time()
        await anyio.sleep(WELCOME_S - 0.01)  # virtual
        assert numbers(monitor) == []
        await anyio.sleep(0.02)  # virtual
        assert numbers(monitor) == [0]
        assert anyio.current_time() - began_s < WELCOME_S + 0.1
        group.start_soon(fleet["c"].announcer.run)
        await wait_all_tasks_blocked()
        assert numbers(monitor) == [0], "c may have published what nobody here has heard"
        fleet["c"].append(1)
        await wait_all_tasks_blocked()
        assert numbers(monitor) == [1]
        group.cancel_scope.cancel()


async def test_a_peer_that_is_no_longer_one_is_not_waited_for_and_not_heard() -> None:
    async with sites("a", "b") as fleet, anyio.create_task_group() as group:
        Site("c", fleet, group, welcomes=False)
        fleet["a"].exchange.set_peers(["b", "c"])
        monitor = fleet["a"].monitor()
        await wait_all_tasks_blocked()
        assert numbers(monitor) == []
        fleet["a"].exchange.set_peers(["b"])
        await wait_all_tasks_blocked()
        assert numbers(monitor) == [0]
        fleet["a"].exchange.set_peers([])
        await wait_all_tasks_blocked()
        fleet["b"].append(1)
        await wait_all_tasks_blocked()
        assert numbers(monitor) == []
        assert fleet["b"].counts["announced"] == 0, "its listeners have left"
        group.cancel_scope.cancel()


async def test_when_the_last_listener_leaves_the_peers_publish_nothing_more() -> None:
    async with sites("a", "b") as fleet:
        monitor, other = fleet["a"].monitor(), fleet["a"].monitor()
        await wait_all_tasks_blocked()
        monitor.close()
        await wait_all_tasks_blocked()
        heard(other)
        fleet["b"].append(1)
        await wait_all_tasks_blocked()
        assert numbers(other) == [1]
        other.unsubscribe(TOPIC)
        await wait_all_tasks_blocked()
        fleet["b"].append(2)
        assert fleet["b"].counts["announced"] == 1


async def test_a_peer_that_was_killed_and_is_back_is_heard_again_after_a_welcome_that_makes_monitors_replay() -> None:
    async with sites("a", "b") as fleet, anyio.create_task_group() as group:
        monitor = fleet["a"].monitor()
        await wait_all_tasks_blocked()
        fleet["b"].die()
        await anyio.sleep(10)  # virtual
        assert numbers(monitor) == [0]
        fleet["a"].append(1)
        newcomer = fleet["a"].monitor()
        await wait_all_tasks_blocked()
        assert numbers(monitor) == [1]
        assert numbers(newcomer) == []
        Site("b", fleet, group)
        await anyio.sleep(RETRY_LAST_MS / 1_000)  # virtual
        assert set(numbers(monitor)) == set(numbers(newcomer)) == {0}
        fleet["b"].append(2)
        await wait_all_tasks_blocked()
        assert numbers(monitor) == numbers(newcomer) == [2]
        assert ("b", Ending.DROPPED) in fleet["a"].states
        group.cancel_scope.cancel()


async def test_all_listeners_replay_here_and_at_peers() -> None:
    async with sites("a", "b", "c") as fleet:
        monitors = [fleet[name].monitor() for name in "ab"]
        for site in fleet.values():
            site.exchange.join(topic_of(b"h" * 32), lambda _: None)
        assert fleet["a"].exchange.parted, "the links were made before there were hints"
        await wait_all_tasks_blocked()
        for monitor in monitors:
            heard(monitor)
        for _ in range(2):  # the second, which has to be whole, takes the place of the first
            fleet["a"].exchange.replay_all()
        await wait_all_tasks_blocked()
        assert [numbers(monitor) for monitor in monitors] == [[0], [0]]


async def test_hints_reach_each_peer_and_no_monitor_and_no_broker_is_told_who_listens_to_them() -> None:
    hints = topic_of(b"h" * 32)
    async with sites("a", "b", "c") as fleet:
        for name, site in fleet.items():
            site.exchange.set_peers([])
            site.exchange.join(hints, site.hints.append)
            site.exchange.set_peers([peer for peer in fleet if peer != name])
        spy = fleet["b"].monitor(hints)
        await wait_all_tasks_blocked()
        heard(spy)
        fleet["a"].exchange.publish([PEER_TOPIC + hints, b"sealed"])
        await wait_all_tasks_blocked()
        assert [site.hints for site in fleet.values()] == [[], [b"sealed"], [b"sealed"]]
        assert heard(spy) == []
        assert set(fleet["a"].states) == {("b", None), ("c", None)}, "they have welcomed the hints"
        fleet["a"].append(1)
        assert fleet["a"].counts["announced"] == 0
