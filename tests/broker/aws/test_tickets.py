"""Tickets say "look here": lost, late or tripled they change nothing, and there are never many."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import anyio
import pytest

from airunner.broker.aws.ports import BATCH_BYTES_MAX, BATCH_MAX, DELAY_S_MAX, AwsFault
from airunner.broker.aws.tickets import (
    CHAINS_MAX,
    CONDITION,
    PACE_S,
    READY_MAX,
    SLOT_MS,
    TICKET_BYTES_MAX,
    TIMER_MS_MIN,
    Tickets,
)
from airunner.broker.bus import EVERY_QUEUE
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.fairqueue import OwnCommand
from airunner.broker.health import Health
from airunner.broker.lifecycle.commands import Expire
from airunner.broker.store.rows import Changes, JobRow, QueueKey
from airunner.protocol.names import JobId, WatchKey
from tests.broker.aws.queues import Line, MemoryQueue
from tests.broker.stage import WALL_MS, ToLedger, acting

CI = QueueKey("acme", "ci", "os=linux")
DAY_S = 86_400


class Site:
    """Tickets of one broker, and what they had it look at."""

    def __init__(self, queue: MemoryQueue, name: str = "a") -> None:
        self.queue = queue
        self.ledger = ToLedger[OwnCommand](10_000)
        self.looked: list[tuple[float, Collection[QueueKey] | None]] = []
        self.counts, self.health = Counts(), Health()
        clock = Clock(lambda: WALL_MS + int(anyio.current_time() * 1_000))
        self.tickets = Tickets(
            Line(queue), Line(queue), self.ledger, self._look, clock, name, self.counts, self.health, lambda: 0.5
        )

    def _look(self, queues: Collection[QueueKey] | None) -> None:
        self.looked.append((anyio.current_time(), queues))

    def delay(self, *delays_s: float) -> None:
        """Commit a batch with jobs that are delayed for so long from now."""
        now_ms = WALL_MS + int(anyio.current_time() * 1_000)
        self.tickets.note(Changes(added=[job(now_ms + int(delay_s * 1_000)) for delay_s in delays_s]))

    def expired(self) -> list[OwnCommand]:
        commands: list[OwnCommand] = []
        while self.ledger.received.statistics().current_buffer_used:
            commands.append(self.ledger.received.receive_nowait())
        return commands


def job(due_ms: int | None) -> JobRow:
    return JobRow(
        number=1,
        job_id=JobId("j"),
        tenant="acme",
        queue="ci",
        needs="",
        gate=1,
        state="SCHEDULED",
        priority=0,
        owner="o",
        watch_key=WatchKey(bytes(32)),
        submitted_ms=WALL_MS,
        due_ms=due_ms,
        max_attempts=1,
    )


@asynccontextmanager
async def sites(queue: MemoryQueue, *names: str) -> AsyncIterator[list[Site]]:
    """Brokers that share the queue."""
    opened = [Site(queue, name) for name in names]
    async with AsyncExitStack() as ends:
        for site in opened:
            await ends.enter_async_context(acting(site.tickets.run))
        yield opened
    for site in opened:
        site.ledger.close()


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


async def pass_(seconds: float) -> None:
    await anyio.sleep(seconds)  # virtual


async def test_a_bell_makes_its_queues_ready_where_it_is_received_and_is_deleted(queue: MemoryQueue) -> None:
    async with sites(queue, "a", "b") as (a, b):
        a.tickets.ring({CI})
        await pass_(1)
        assert [queues for _, queues in (*a.looked, *b.looked)] == [[CI]]
        assert not queue.stored
        assert (a.counts["tickets_sent"], a.counts["tickets_heard"] + b.counts["tickets_heard"]) == (1, 1)


async def test_what_becomes_ready_within_a_second_shares_a_bell(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        for at in range(200):
            a.tickets.ring({QueueKey("acme", f"q{at}")})
            await pass_(0.01)
        await pass_(PACE_S)
        assert len({at_s for at_s, _ in queue.sent}) <= 4
        assert {key for _, queues in a.looked for key in queues or ()} == {
            QueueKey("acme", f"q{at}") for at in range(200)
        }


async def test_many_queues_take_several_tickets_and_too_many_one_for_every_queue(queue: MemoryQueue) -> None:
    long = "x=" + "y" * 2_000
    async with sites(queue, "a") as (a,):
        some = {QueueKey("acme", f"q{at}", long) for at in range(50)}
        a.tickets.ring(some)
        await pass_(2)
        assert 1 < len(queue.sent) < BATCH_MAX
        assert {key for _, queues in a.looked for key in queues or ()} == some
        assert max(len(message.body) for _, message in queue.sent) <= TICKET_BYTES_MAX + 100
        queue.sent.clear()
        a.tickets.ring({QueueKey("acme", f"q{at}", long) for at in range(200)})
        await pass_(2)
        a.tickets.ring({QueueKey("acme", f"q{at}") for at in range(READY_MAX + 1)})
        await pass_(2)
        a.tickets.ring({EVERY_QUEUE})
        await pass_(2)
        assert [json.loads(message.body)["queues"] for _, message in queue.sent] == [None] * 3
        assert [queues for _, queues in a.looked[-3:]] == [None] * 3


async def test_needs_in_any_script_are_sent_in_ascii(queue: MemoryQueue) -> None:
    odd = QueueKey("acme", "ci", "who=\uffff\x00\U0001f600")
    async with sites(queue, "a") as (a,):
        a.tickets.ring({odd})
        await pass_(1)
        assert queue.sent[0][1].body.isascii()
        assert a.looked[0][1] == [odd]


async def test_a_batch_of_tickets_fits_in_a_call() -> None:
    assert BATCH_MAX * (TICKET_BYTES_MAX + 512) <= BATCH_BYTES_MAX


async def test_a_timer_of_three_days_is_a_chain_that_ends_in_one_look(queue: MemoryQueue) -> None:
    queue.wait_s = DELAY_S_MAX  # 26,000 calls that find nothing show no more
    async with sites(queue, "a", "b") as (a, b):
        a.delay(3 * DAY_S)
        await pass_(3 * DAY_S - 1)
        assert not a.looked + b.looked
        assert not a.expired() + b.expired()
        await pass_(SLOT_MS / 1_000 + 2)
        assert [queues for _, queues in a.looked + b.looked] == [None]
        assert a.expired() + b.expired() == [Expire()]
        assert 3 * DAY_S / DELAY_S_MAX <= len(queue.sent) <= 3 * DAY_S / DELAY_S_MAX + 2
        await pass_(DAY_S)
        assert not queue.stored


async def test_a_timer_comes_after_its_delay_and_within_the_minute(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        a.delay(TIMER_MS_MIN / 1_000)
        await pass_(TIMER_MS_MIN / 1_000 + SLOT_MS / 1_000 + 1)
        ((looked_s, _),) = a.looked
        assert TIMER_MS_MIN <= looked_s * 1_000 <= TIMER_MS_MIN + SLOT_MS + 1_000


async def test_tripled_tickets_do_not_multiply(queue: MemoryQueue) -> None:
    queue.copies = 3
    async with sites(queue, "a", "b") as (a, b):
        a.delay(DAY_S)
        most = 0
        for _ in range(DAY_S // 600):
            await pass_(600)
            most = max(most, len(queue.stored))
        assert most <= 2 * queue.copies, "one link of each broker, in three copies"
        assert len(queue.sent) <= 2 * (DAY_S / DELAY_S_MAX + 2)
        await pass_(DELAY_S_MAX)
        assert a.looked + b.looked, "and it comes"
        assert not queue.stored


async def test_a_chain_that_is_heard_before_it_is_begun_is_one_chain(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        due_ms = WALL_MS + 3_640_000
        queue.put(json.dumps({"kind": "timer", "broker": "a", "due_ms": due_ms}))  # of its process before
        await pass_(2)
        a.delay(3_600)
        await pass_(3)
        assert len(queue.sent) == 1
        a.tickets.ring({CI})
        await pass_(2)
        assert len(a.looked) == 1, "it goes on"


async def test_a_lost_link_ends_the_chain_and_nothing_else(queue: MemoryQueue) -> None:
    queue.lose = lambda _message: len(queue.sent) == 3
    async with sites(queue, "a") as (a,):
        a.delay(DAY_S)
        await pass_(DAY_S + 60)
        assert (len(queue.sent), a.looked) == (3, [])
        a.tickets.ring({CI})
        await pass_(1)
        assert len(a.looked) == 1


async def test_late_tickets_look_late(queue: MemoryQueue) -> None:
    queue.late_s = 400
    async with sites(queue, "a") as (a,):
        a.delay(2_000)
        await pass_(2_000 + 2 * 400 + 60)
        assert len(a.looked) == 1
        assert len(queue.sent) == 2, "the link that came late was followed by none that was not needed"


async def test_short_delays_have_no_timer_and_those_of_a_minute_share_one(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        a.delay(1, 10, TIMER_MS_MIN / 1_000 - 1)
        await pass_(2)
        assert not queue.sent
        now_s = anyio.current_time()
        minute_s = 3_600 - (WALL_MS / 1_000 + now_s) % 60
        a.delay(*(minute_s + at / 100 for at in range(1, 5_000)))
        await pass_(2)
        assert len(queue.sent) == 1


async def test_a_retry_that_is_set_later_has_a_timer_of_its_own(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        before, after = job(None), job(WALL_MS + 3_600_000)
        a.tickets.note(Changes(changed=[(before, after), (after, after), (after, job(None))]))
        await pass_(1)
        assert [json.loads(message.body)["due_ms"] for _, message in queue.sent] == [WALL_MS + 3_640_000]


async def test_chains_are_bounded_and_begun_a_few_a_second(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        a.delay(*(120 + at * 60 for at in range(CHAINS_MAX + 50)))
        await pass_(60)
        assert len({message.body for _, message in queue.sent}) == CHAINS_MAX
        assert a.counts["tickets_left_out"] == 50
        assert min(b - a for a, b in pairwise(sorted({at_s for at_s, _ in queue.sent}))) >= PACE_S
        await pass_((CHAINS_MAX + 10) * 60)
        a.delay(DAY_S)
        await pass_(1)
        assert a.counts["tickets_left_out"] == 50, "those that are over make room"


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"kind":"timer","broker":"x","due_ms":-1}', '{"kind":"ready","broker":"x","queues":[["a"]]}'],
)
async def test_a_message_that_is_no_ticket_is_dropped(queue: MemoryQueue, body: str) -> None:
    async with sites(queue, "a") as (a,):
        queue.put(body)
        queue.put('{"kind":"ready","broker":"x","queues":null}')
        await pass_(1)
        assert (a.counts["tickets_dropped"], len(a.looked), queue.stored) == (1, 1, {})


async def test_a_queue_that_fails_is_reported_and_tried_again(queue: MemoryQueue) -> None:
    async with sites(queue, "a") as (a,):
        await pass_(1)
        queue.fault = AwsFault("AccessDenied: no")
        a.tickets.ring({CI})
        await pass_(30)
        assert "AccessDenied: no; nothing is lost" in a.health.conditions[CONDITION]
        assert a.counts["tickets_lost"] == 1
        queue.fault = None
        await pass_(30)
        assert CONDITION in a.health.conditions, "it may still not send"
        queue.refused = 1
        a.tickets.ring({CI})
        await pass_(5)
        assert (a.health.conditions, a.counts["tickets_lost"], a.looked) == ({}, 2, [])
        a.tickets.ring({CI})
        await pass_(5)
        assert len(a.looked) == 1


async def test_a_queue_that_does_not_wait_is_not_asked_all_the_time(
    queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def receive() -> list[object]:
        await anyio.lowlevel.checkpoint()
        asked.append(anyio.current_time())
        return []

    monkeypatch.setattr(queue, "receive", receive)
    async with sites(queue, "a"):
        await pass_(20)
    assert len(asked) <= 22
