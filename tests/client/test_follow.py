"""A client follows jobs of a real broker over a network that loses what it is told to lose."""

from __future__ import annotations

import cProfile
import gc
from collections.abc import Callable
from math import inf

import anyio
import pytest
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from airunner.broker.lifecycle.commands import StoreReply, TenantRequest
from airunner.broker.lifecycle.reading import replay_job
from airunner.broker.requests import KINDS, Kind
from airunner.broker.store.contract import Engine
from airunner.certs.principal import Role
from airunner.client import follower
from airunner.client.client import Client
from airunner.client.follower import PAGES_MAX
from airunner.protocol.errors import BadRequest
from airunner.protocol.events import Event, Output
from airunner.protocol.follow import SILENCE_FIRST_MS
from airunner.protocol.requests import ReplayJobEvents
from airunner.transport.memory import MemorySubscriber
from airunner.transport.ports import Frames, Sent
from tests.client.wire import Wire, brokered
from tests.client.working import Worker

SILENCE_S = SILENCE_FIRST_MS / 1_000
everywhere = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


def output(events: list[Event]) -> bytes:
    return b"".join(event.body.data for event in events if isinstance(event.body, Output))


async def whole(client: Client, job_id: str, from_sequence: int = 1) -> list[Event]:
    return [event async for event in client.follow(job_id, from_sequence)]


@everywhere
async def test_every_follower_sees_every_event_once_and_in_order_from_the_sequence_that_it_asks_for() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="count")
        early: list[Event] = []

        async def follow() -> None:
            early.extend(await whole(client, job.id))

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await (await Worker.lease(client)).run(50)
        assert [event.sequence for event in early] == list(range(1, 56))
        assert [event.kind for event in early[:3]] == ["JOB_SCHEDULED", "JOB_LEASED", "PROCESS_START"]
        assert early[-1].kind == "JOB_FINISHED"
        assert output(early) == b"".join(b"%d\n" % line for line in range(50))
        assert await whole(client, job.id) == early
        assert await whole(client, job.id, from_sequence=5) == early[4:]
        assert [event async for event in client.replay(job.id, 5)] == early[4:]


@pytest.mark.parametrize("one_in", [3, 1])
async def test_what_the_live_socket_loses_is_asked_for(one_in: int) -> None:
    async with brokered() as (wire, client), anyio.create_task_group() as group:
        wire.loses = lambda frames: bool(frames[1] or one_in == 1) and len(wire.published) % one_in == 0
        job = await client.submit(command="count")
        worker = await Worker.lease(client)
        group.start_soon(worker.run, 100)
        events = await whole(client, job.id)
        assert [event.sequence for event in events] == list(range(1, 106))


async def test_a_client_that_reads_nothing_leaves_no_more_pages_waiting_than_the_bound() -> None:
    async with brokered() as (wire, client), anyio.create_task_group() as group:
        jobs = [await client.submit(command="count") for _ in range(PAGES_MAX + 3)]
        wire.send = lambda *_: Sent.DONE
        for job in jobs:
            group.start_soon(whole, client, job.id)
        await wait_all_tasks_blocked()
        assert wire.asked.count("ReplayJobEvents") == PAGES_MAX
        group.cancel_scope.cancel()


async def test_live_events_need_no_further_request() -> None:
    """Asking again and again would hide a deaf socket; once followed, events come by themselves."""
    async with brokered() as (wire, client):
        job = await client.submit(command="count")
        worker = await Worker.lease(client)
        async with client.follow(job.id) as events:
            first = [await anext(events), await anext(events)]
            await welcomed(wire)
            await worker.print(b"live")
            with anyio.fail_after(0.5):  # well before the first silence is asked after
                event = await anext(events)
        assert [seen.sequence for seen in [*first, event]] == [1, 2, 3]
        assert output([event]) == b"live"


async def test_a_live_event_reaches_a_waiting_monitor_without_the_followers_task() -> None:
    count = 20
    profile = cProfile.Profile()
    async with brokered() as (wire, client):
        job = await client.submit(command="count")
        worker = await Worker.lease(client)
        async with client.follow(job.id) as events:
            await anext(events), await anext(events)
            await welcomed(wire)
            await wait_all_tasks_blocked()
            profile.enable()
            for _ in range(count):
                await worker.print(b"live")
                await anext(events)
            profile.disable()
    turns = {getattr(entry.code, "co_qualname", ""): entry.callcount for entry in profile.getstats()}
    assert turns["Follower._hear"] == count
    assert turns.get("Follower._feed", 0) < count / 2, "only because a silence would be asked after sooner now"


async def test_the_last_event_is_shown_also_when_it_comes_as_the_follower_stops_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the instant of its deadline its wait is cancelled, and it has not run yet."""
    scopes: list[anyio.CancelScope] = []
    heard: list[Callable[[Frames], None]] = []

    class Remembering:
        """anyio, whose scopes the test can cancel."""

        def __getattr__(self, name: str) -> object:
            return getattr(anyio, name)

        def CancelScope(self, deadline: float = inf) -> anyio.CancelScope:  # noqa: N802 - anyio's own name
            scopes.append(anyio.CancelScope(deadline=deadline))
            return scopes[-1]

    async def read(_: MemorySubscriber, accept: Callable[[Frames], None]) -> None:
        heard.append(accept)
        await anyio.sleep_forever()

    monkeypatch.setattr(follower, "anyio", Remembering())
    monkeypatch.setattr(MemorySubscriber, "read", read)
    async with brokered() as (wire, client):
        job = await client.submit(command="count")
        async with client.follow(job.id) as events:
            seen = [await anext(events)]
            await welcomed(wire)
            heard[0](wire.published.pop())
            await wait_all_tasks_blocked()
            wire.published.clear()
            await client.cancel(job.id)
            scopes[-1].cancel()
            heard[0](wire.published.pop())
            seen += [event async for event in events]
        assert seen[-1].kind == "JOB_FINISHED"


async def test_one_by_one_or_in_batches_each_event_comes_once() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="count")
        await (await Worker.lease(client)).run(3)
        async with client.follow(job.id) as events:
            seen = [await anext(events)]
            while batch := await events.next_batch():
                seen += batch
        assert seen == [event async for event in client.replay(job.id)]


async def test_of_some_kinds_only_those_come() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="count")
        await (await Worker.lease(client)).run(3)
        seen = [event async for event in client.follow(job.id, kinds=["JOB_LEASED", "PROCESS_END"])]
        assert [(event.kind, event.sequence) for event in seen] == [("JOB_LEASED", 2), ("PROCESS_END", 7)]
        assert [event async for event in client.replay(job.id, kinds=["PROCESS_END"])] == seen[1:]
        with pytest.raises(BadRequest, match="'NONSENSE' is not a kind of event"):
            client.follow(job.id, kinds=["NONSENSE"])


async def welcomed(wire: Wire) -> None:
    while not any(not frames[1] for frames in wire.published):
        await anyio.lowlevel.checkpoint()


@everywhere
async def test_many_follows_share_one_connection_of_each_kind() -> None:
    async with brokered() as (wire, client), anyio.create_task_group() as group:
        jobs = [await client.submit(command="count") for _ in range(20)]
        ends: list[str] = []

        async def one(job_id: str) -> None:
            ends.append((await whole(client, job_id))[-1].kind)

        for job in jobs:
            group.start_soon(one, job.id)
        for number in range(20):
            await (await Worker.lease(client, bytes([number]) * 32)).run(3)
        with anyio.fail_after(10):
            while len(ends) < 20:
                await anyio.lowlevel.checkpoint()
        assert set(ends) == {"JOB_FINISHED"}
        assert (len(wire.links), len(wire.ears)) == (1, 1)
        assert wire.ears[0].topics == set(), "nobody listens, nothing is subscribed"


async def test_a_slow_monitor_holds_up_nobody_and_loses_nothing() -> None:
    async with brokered() as (_, client):
        job = await client.submit(command="count")
        worker = await Worker.lease(client)
        async with client.follow(job.id) as events:
            seen = [await anext(events)]
            await worker.run(500)  # far more than a follow holds
            began = anyio.current_time()
            seen += [event async for event in events]
        assert [event.sequence for event in seen] == list(range(1, 506))
        assert anyio.current_time() - began < SILENCE_S, "asked for at once, not after a silence"


@everywhere
@pytest.mark.parametrize("leave", ["break", "close"])
async def test_leaving_early_leaves_nothing_behind(leave: str) -> None:
    async with brokered() as (wire, client):
        job = await client.submit(command="count")
        await Worker.lease(client)
        if leave == "break":
            async for _ in client.follow(job.id):
                await welcomed(wire)
                break
            gc.collect()
        else:
            async with client.follow(job.id) as events:
                await anext(events)
                await welcomed(wire)
        with anyio.fail_after(5):
            while wire.ears[0].topics:
                await anyio.lowlevel.checkpoint()


async def test_a_connection_that_breaks_is_made_again_and_nothing_is_lost() -> None:
    async with brokered() as (wire, client), anyio.create_task_group() as group:
        job = await client.submit(command="count")
        worker = await Worker.lease(client)
        async with client.follow(job.id) as events:
            seen = [await anext(events)]
            wire.links[0].close()
            group.start_soon(worker.run, 10)
            seen += [event async for event in events]
        assert [event.sequence for event in seen] == list(range(1, 16))
        assert len(wire.links) > 1
        assert wire.asked.count("WatchJob") == 1, "another broker would publish elsewhere"


async def followed_live(wire: Wire, client: Client) -> tuple[str, list[str]]:
    """Follow a job from its first event to its end; return its id, and what was asked until it was followed live."""
    job = await client.submit(command="count")
    worker = await Worker.lease(client)
    async with anyio.create_task_group() as group, client.follow(job.id) as events:
        await anext(events)
        await wait_all_tasks_blocked()
        asked = list(wire.asked)
        assert len(wire.ears) == 1
        group.start_soon(worker.run, 10)
        assert len([event async for event in events]) == 14
    return job.id, asked


async def test_the_first_page_brings_what_is_live_and_a_finished_job_is_only_replayed() -> None:
    async with brokered() as (wire, client):
        job_id, asked = await followed_live(wire, client)
        assert "WatchJob" not in asked
        del wire.requests[:]
        client._entered.channel.request_size.bytes_max = 256  # so that its log is several pages
        assert len(await whole(client, job_id)) == 15
        assert (set(wire.asked), len(wire.asked) > 1) == ({"ReplayJobEvents"}, True)


async def test_a_job_is_followed_live_at_a_broker_of_before_whose_pages_bring_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def page(engine: Engine, command: TenantRequest, request: ReplayJobEvents) -> StoreReply:
        return replay_job(engine, command, replace(request, watch=False))

    monkeypatch.setitem(KINDS, ReplayJobEvents, Kind[ReplayJobEvents](role=Role.READ, look_up=page))
    async with brokered() as (wire, client):
        _, asked = await followed_live(wire, client)
        assert asked.count("WatchJob") == 1


async def test_what_happened_before_the_subscription_stood_is_asked_for_when_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subscribe, held = MemorySubscriber.subscribe, list[tuple[MemorySubscriber, bytes]]()
    monkeypatch.setattr(MemorySubscriber, "subscribe", lambda *subscription: held.append(subscription))
    async with brokered() as (_, client):
        job = await client.submit(command="count")
        worker = await Worker.lease(client)
        async with client.follow(job.id) as events:
            await anext(events)
            await anext(events)
            while not held:
                await anyio.lowlevel.checkpoint()
            await worker.print(b"between")
            began = anyio.current_time()
            subscribe(*held[0])
            assert output([await anext(events)]) == b"between"
            assert anyio.current_time() - began < SILENCE_S


async def test_a_second_listener_is_told_that_the_subscription_stands() -> None:
    async with brokered() as (wire, client):
        live, topic = client._entered.live, b"t" * 16
        heard: dict[str, list[bytes]] = {"first": [], "second": []}
        leave_first = live.listen(wire.endpoint, topic, heard["first"].append)
        await welcomed(wire)
        while not heard["first"]:
            await anyio.lowlevel.checkpoint()
        leave_second = live.listen(wire.endpoint, topic, heard["second"].append)
        assert heard == {"first": [b""], "second": [b""]}
        leave_first()
        assert wire.ears[0].topics == {topic}
        leave_second()
        assert wire.ears[0].topics == set()


async def test_a_job_that_cannot_be_is_refused_before_it_is_sent() -> None:
    async with brokered() as (wire, client):
        metadata = {f"{number}": "" for number in range(65)}
        for more in ({"command": ""}, {"timeout_seconds": 0}, {"colour": "red"}, {"metadata": metadata}):
            with pytest.raises(BadRequest):
                await client.submit(**{"command": "x", **more})
        with pytest.raises(BadRequest):
            await client.submit_many([])
        with pytest.raises(BadRequest):
            client.follow("x", from_sequence=0)
        assert wire.links == []


@everywhere
async def test_the_callers_own_error_comes_out_as_it_is() -> None:
    async def fail(client: Client) -> None:
        async with Client(reach=client._reach) as inner:
            await inner.submit(command="true")
            raise ZeroDivisionError

    async with brokered() as (_, client):
        with pytest.raises(ZeroDivisionError):
            await fail(client)


async def test_a_client_that_is_cancelled_ends() -> None:
    async with brokered() as (_, client):
        with anyio.move_on_after(3) as scope:
            async with Client(reach=client._reach) as inner:
                job = await inner.submit(command="never leased")
                await whole(inner, job.id)
        assert scope.cancelled_caught
