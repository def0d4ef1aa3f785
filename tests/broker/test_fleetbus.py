"""What one broker commits wakes the requests that are parked at another, and a hint that is lost is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.bus import EVERY_QUEUE, BatchNews, LocalBus
from airunner.broker.fleetbus import HINT_BYTES_MAX, HINT_NAMES_MAX, READY_MAX, FleetBus, Hint
from airunner.broker.inbox import Alarm, Nudged, Pending, Response
from airunner.broker.lifecycle.commands import Appended
from airunner.broker.store.rows import QueueKey
from airunner.certs.sealed import NONCE_BYTES, hint_key, seal, topic_of
from airunner.protocol.frames import PEER_TOPIC
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobsEnqueued, JobsLeased
from airunner.protocol.requests import EnqueueJob
from tests.broker.ledgering import Stage
from tests.broker.relaying import Site, sites
from tests.broker.stage import Inbox, dequeue, edges, enqueue
from tests.conformance.driving import Driver

FLEET: Final = hint_key(b"0" * 40)
CI: Final = QueueKey("acme", "ci", "os=linux")
READY: Final = BatchNews(ready={CI})
NUDGED: Final = Nudged("acme", (JobId("j"),))


class Voice:
    """The bus of one broker, and what it tells its neighbours; `seq` stands for the number in its row."""

    def __init__(self, site: Site, seq: int = 0) -> None:
        self.site, self.seq, self.woken = site, seq, 0
        self.ledger: Stage | None = None
        self.forgotten: list[Collection[QueueKey] | None] = []
        self.rung: list[Collection[QueueKey]] = []
        self.gateway = Inbox[Sequence[Response | Nudged]]()
        self.announcer = Inbox[Sequence[Appended]]()
        self.to_timekeeper, self.alarms = anyio.create_memory_object_stream[Alarm](100)
        self.local = LocalBus(self.gateway, self.announcer, self.to_timekeeper)
        self.bus = FleetBus(
            self.local,
            site.exchange,
            self.gateway,
            FLEET,
            site.name,
            lambda: self.seq,
            self.wake,
            edges(),
            site.counts,
            self.forgotten.append,
            self.rung.append,
        )

    def wake(self) -> None:
        self.woken += 1
        if self.ledger is not None:
            self.ledger.asks.wake()

    async def commit(self, news: BatchNews = READY) -> None:
        """Publish the news of a batch; its number rises with each that makes something ready."""
        self.seq += bool(news.ready)
        self.bus.publish(news)
        await wait_all_tasks_blocked()

    def took(self) -> set[QueueKey]:
        return self.bus.take_ready()

    def close(self) -> None:
        for stream in (self.gateway, self.announcer, self.to_timekeeper, self.alarms):
            stream.close()


@asynccontextmanager
async def voices(**seqs: int) -> AsyncIterator[list[Voice]]:
    """Buses of a fleet, each of which knows the others and has heard all that was committed."""
    async with sites(*seqs) as fleet:
        found = [Voice(fleet[name], seq) for name, seq in seqs.items()]
        for voice in found:
            others = [other.site.name for other in found if other is not voice]
            voice.bus.set_peers({name: name for name in others})
            voice.bus._heard.update({name: seqs[name] for name in others})
        for site in fleet.values():  # what knows the hints' topic connects again
            site.exchange.set_peers([])
            site.exchange.set_peers([name for name in fleet if name != site.name])
        await wait_all_tasks_blocked()
        try:
            yield found
        finally:
            for voice in found:
                voice.close()


async def test_a_batch_that_was_stored_unseen_is_hinted_at_as_every_queue_and_a_lost_hint_of_it_is_noticed() -> None:
    async with voices(a=0, b=0) as (a, b):
        a.seq += 1  # by a commit of which nothing was known
        a.bus.replay_all()
        await wait_all_tasks_blocked()
        assert (b.took(), b.bus.heard) == ({EVERY_QUEUE}, {"a": 1})
        b.bus._heard["a"] = 0  # if it was lost
        await a.commit()
        assert (b.took(), b.bus.heard) == ({EVERY_QUEUE}, {"a": 2})
        await a.commit()
        assert b.took() == {CI}


async def test_the_engine_looks_anew_in_what_others_have_made_ready_and_only_there() -> None:
    async with voices(a=0, b=0) as (a, b):
        await a.commit()
        assert (a.took(), a.forgotten) == ({CI}, [])
        assert (b.took(), b.forgotten) == ({CI}, [{CI}])
        b.bus.ready_all()
        assert (b.took(), b.forgotten[1:]) == ({EVERY_QUEUE}, [None])


async def test_a_bell_is_rung_for_ready_queues_while_there_are_others_and_makes_them_ready_where_it_is_heard() -> None:
    async with voices(a=0, b=0) as (a, b):
        await a.commit()
        assert a.rung == [{CI}]
        b.took()
        b.bus.make_ready([CI])
        assert (b.took(), b.forgotten[-1]) == ({CI}, {CI})
        b.bus.make_ready(None)
        assert (b.took(), b.forgotten[-1]) == ({EVERY_QUEUE}, None)
        a.bus.set_peers({})
        await a.commit()
        assert len(a.rung) == 1, "what is ready here is tried here"
        a.took()


async def test_ready_queues_and_nudges_reach_the_others_sealed_and_numbered() -> None:
    async with voices(a=7, b=0, c=0) as (a, b, c):
        spy = a.site.monitor(PEER_TOPIC + topic_of(FLEET))
        await a.commit(BatchNews(ready={CI}, nudged=[NUDGED]))
        for other in (b, c):
            assert (other.took(), other.woken, other.bus.heard["a"]) == ({CI}, 1, 8)
            assert other.gateway.received.receive_nowait() == [NUDGED]
        assert (a.took(), a.woken) == ({CI}, 0)
        await a.commit(BatchNews(nudged=[NUDGED]))
        assert (b.took(), b.woken) == (set(), 1)
        assert b.gateway.received.receive_nowait() == [NUDGED]
        await a.commit(BatchNews())
        assert [a.site.counts[name] for name in ("hints", "hints_heard", "hints_dropped")] == [2, 0, 0]
        assert b.site.counts["hints_missed"] == 0
        sealed = [frames[1] for frames in spy.events._messages]
        assert not any(b"acme" in payload or b"linux" in payload for payload in sealed)


async def test_a_hint_after_a_lost_one_makes_everything_ready_and_so_does_a_broker_not_heard_before() -> None:
    async with voices(a=0, b=0) as (a, b):
        a.seq += 1  # a batch whose hint was lost
        a.bus._hinted_seq += 1
        await a.commit(BatchNews(nudged=[NUDGED]))
        assert (b.took(), b.woken, b.bus.heard) == ({EVERY_QUEUE}, 1, {"a": 1})
        await a.commit()
        assert b.took() == {CI}
        b.bus.set_peers({})
        b.bus.set_peers({"a": "a"})
        await wait_all_tasks_blocked()
        await a.commit()
        assert (b.took(), b.bus.heard) == ({EVERY_QUEUE}, {"a": 3})
        assert b.site.counts["hints_missed"] == 1, "and one that has begun to be heard has lost none"
        a.bus._hinted_seq = a.seq = 0  # it was started again, with a new row
        await a.commit()
        assert (b.took(), b.bus.heard) == ({EVERY_QUEUE}, {"a": 1})


async def test_while_the_bus_is_cut_the_number_heard_shows_what_is_missing() -> None:
    async with voices(a=0, b=0) as (a, b):
        b.site.part("a")
        await a.commit()
        await anyio.sleep(1)  # virtual
        assert (b.took(), b.bus.heard["a"], a.seq) == (set(), 0, 1)
        b.bus.miss({"a": 0})
        assert b.woken == 0
        b.bus.miss({"a": 1, "c": 7})
        assert (b.took(), b.woken, b.bus.heard) == ({EVERY_QUEUE}, 1, {"a": 1, "c": 7})
        assert b.site.counts["hints_missed"] == 1


async def test_numbers_that_need_no_hint_are_covered_by_the_next_and_alone_it_sends_none() -> None:
    async with voices(a=0, b=0) as (a, b):
        a.seq += 1  # jobs that the same batch has leased
        await a.commit(BatchNews())
        assert (b.took(), b.bus.heard["a"]) == (set(), 1)
        a.bus.set_peers({})
        await a.commit()
        assert a.site.counts["hints"] == 1
        a.bus.set_peers({"b": "b"})
        await a.commit()
        assert (b.took(), b.bus.heard["a"]) == ({EVERY_QUEUE}, 3), "of one batch it was not told"


@pytest.mark.parametrize(
    "news",
    [
        BatchNews(ready={QueueKey("acme", f"queue {number}") for number in range(HINT_NAMES_MAX + 1)}),
        BatchNews(ready={QueueKey("acme", "q", "x" * HINT_BYTES_MAX)}),
    ],
    ids=["names", "bytes"],
)
async def test_a_hint_that_would_be_too_long_says_that_everything_is_ready(news: BatchNews) -> None:
    async with voices(a=0, b=0) as (a, b):
        await a.commit(news)
        assert (b.took(), b.bus.heard["a"], b.site.counts["hints_missed"]) == ({EVERY_QUEUE}, 1, 0)


async def test_what_no_broker_of_the_fleet_has_sealed_is_dropped_and_counted() -> None:
    def sealed(key: bytes, payload: bytes) -> bytes:
        return seal(key, payload, bytes(NONCE_BYTES))

    async with voices(a=0, b=0) as (a, b):
        hint = msgspec.msgpack.encode(Hint("a", 0, 9, None, [NUDGED]))
        for payload in (b"x", hint, sealed(hint_key(b"1" * 40), hint), sealed(FLEET, b"\xc1"), sealed(FLEET, b"\x80")):
            a.site.exchange.publish([PEER_TOPIC + topic_of(FLEET), payload])
            await wait_all_tasks_blocked()
        assert (b.took(), b.woken, b.bus.heard, b.site.counts["hints_dropped"]) == (set(), 0, {"a": 0}, 5)
        assert b.gateway.received.statistics().current_buffer_used == 0
        a.site.exchange.publish([PEER_TOPIC + topic_of(FLEET), sealed(FLEET, hint.replace(b"\xa1a", b"\xa1b"))])
        await wait_all_tasks_blocked()
        assert (b.took(), b.woken) == (set(), 0), "it does not hear itself"


async def test_ready_queues_that_nobody_takes_do_not_pile_up() -> None:
    async with voices(a=0, b=0) as (a, b):
        for number in range(0, READY_MAX + 1, 100):
            await a.commit(BatchNews(ready={QueueKey("acme", str(number + more)) for more in range(100)}))
        assert b.took() == {EVERY_QUEUE}


@pytest.mark.parametrize("cut", [False, True])
async def test_a_job_submitted_at_one_broker_is_leased_to_the_agent_that_is_parked_at_another(
    driver: Driver, *, cut: bool
) -> None:
    """Both Ledgers have the same store; of a cut bus the number tells."""
    async with voices(a=0, b=0) as (a, b):
        stages = Stage(), Stage()
        for stage, voice in zip(stages, (a, b), strict=True):
            stage.store = driver.store
            stage.bus = voice.bus
            voice.ledger = stage
        there, here = stages
        async with there.running(), here.running():
            parked = [dequeue("ci", wait_ms=25_000, tags=tags) for tags in ({}, {"os": "linux"}, {"gpu": "1"})]
            there.ask(*[Pending(b"agent", driver.ask(request)) for request in parked])
            await wait_all_tasks_blocked()
            if cut:
                a.site.part("b")
            job = msgspec.structs.replace(enqueue("true", queue="ci").jobs[0], require={"gpu": "1"})
            b.seq += 1
            here.ask(Pending(b"client", driver.ask(EnqueueJob(jobs=(job,)))))
            assert isinstance((await here.reply()).reply, JobsEnqueued)
            await wait_all_tasks_blocked()
            if cut:
                assert there.silent()
                a.bus.ready_all()
            answer = await there.reply()
            assert answer.command.request == parked[2]
            assert isinstance(answer.reply, JobsLeased)
            assert len(answer.reply.leases) == 1
            await wait_all_tasks_blocked()
            assert there.silent()
