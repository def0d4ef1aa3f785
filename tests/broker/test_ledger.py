"""Commit, then speak: the order of the Ledger's effects, and what it takes while the disk has no room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from airunner.broker import ledger, parking
from airunner.broker.inbox import Alarm, Nudged, Response, Swept
from airunner.broker.ledger import BATCH_UNITS_MAX, NO_SPACE_PAUSE_MS
from airunner.broker.lifecycle.commands import Command, Done, Expire, News, RenewAll, TenantRequest
from airunner.broker.store.room import Room
from airunner.protocol.coding import refusal
from airunner.protocol.errors import NoSpace, NotFound
from airunner.protocol.fields import DEFAULT_QUEUE, JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobCancelled, JobsEnqueued, JobsLeased, JobsListed, QueueMode, Refused
from airunner.protocol.requests import (
    QUEUES_MAX,
    CancelJob,
    DequeueJob,
    EnqueueJob,
    GetJob,
    ListJobs,
    StoreRequest,
    UpdateQueue,
)
from tests.broker.ledgering import DEFAULT, LAST, MORE, RUN, Stage
from tests.broker.stage import LEASE, WALL_MS, ScriptedStore, asked, dequeue, enqueue
from tests.broker.test_calls import calls


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.running():
        yield stage


async def test_it_begins_with_taking_over_what_the_last_broker_left(stage: Stage) -> None:
    assert stage.store.batches == [[RenewAll()]]


async def test_nothing_is_said_to_anybody_before_it_is_committed_together(stage: Stage) -> None:
    stage.store.next_due_ms = WALL_MS + 5
    await stage.hold(asked(1, enqueue("true")), asked(2, CancelJob(job_id="j")), LAST)
    assert stage.silent()
    stage.disk.let_go()
    enqueued, cancelled = await stage.answers.receive()
    assert isinstance(enqueued.reply, JobsEnqueued)
    assert cancelled.reply == JobCancelled(state=JobState.RUNNING)
    assert await stage.answers.receive() == [Nudged("default", (JobId("j"),))]
    assert await stage.announced.receive() == [RUN, RUN]
    assert await stage.alarms.receive() == Alarm(WALL_MS + 5)
    assert await stage.swept.receive() == Swept(more=False)
    assert (stage.counts["commits"], stage.counts["commands"], stage.counts["events"]) == (2, 4, 2)


async def test_a_lone_request_takes_few_calls_and_no_turn_of_the_loop_but_the_commits(stage: Stage) -> None:
    for number in range(2):
        stage.disk.hold()
        stage.asks.send_nowait(asked(number, enqueue("true")))
        before = calls(stage.asks.wake)
        assert len(stage.disk.waiting) == 1
        after = calls(stage.disk.let_go)
        assert before + after <= 128
    await stage.answers.receive()
    (enqueued,) = stage.answers.receive_nowait()
    assert isinstance(enqueued, Response)
    assert isinstance(enqueued.reply, JobsEnqueued)


async def test_between_two_batches_of_look_ups_other_tasks_have_a_turn(stage: Stage) -> None:
    stage.ask(*(asked(number, GetJob(job_id="j")) for number in range(BATCH_UNITS_MAX + 1)))
    assert len(stage.answers.receive_nowait()) == BATCH_UNITS_MAX
    assert stage.silent()
    assert len(await stage.answers.receive()) == 1


async def test_where_nothing_has_changed_nothing_waits_for_the_disk(stage: Stage) -> None:
    stage.store.wrote = False
    stage.disk.hold()
    stage.ask(asked(1, dequeue(wait_ms=0)))
    await wait_all_tasks_blocked()
    assert not stage.silent()


async def test_what_comes_during_a_commit_is_one_transaction_up_to_a_bound(stage: Stage) -> None:
    await stage.hold(asked(1, enqueue("true")))
    stage.ask(*(asked(number, CancelJob(job_id="j")) for number in range(2, ScriptedStore.batch_max + 10)))
    stage.disk.let_go()
    await wait_all_tasks_blocked()
    sizes = [len(batch) for batch in stage.store.batches]
    assert sizes[:2] == [1, 1]
    assert sum(sizes[2:]) == ScriptedStore.batch_max + 8
    assert sizes[2] == max(sizes) == BATCH_UNITS_MAX


async def test_an_enqueue_takes_a_parked_dequeue_along_and_replies_keep_the_order_of_the_batch(stage: Stage) -> None:
    stage.ask(asked(1, dequeue(wait_ms=30_000), peer=b"agent"))
    await wait_all_tasks_blocked()
    assert stage.silent()
    before = len(stage.store.batches)
    alone = UpdateQueue(queue=DEFAULT_QUEUE, mode=QueueMode.OPEN)  # it comes behind, in a batch of its own
    stage.ask(asked(2, enqueue("true"), peer=b"client"), asked(3, alone, peer=b"operator"))
    batch = await stage.answers.receive()
    assert [(answer.peer, type(answer.reply)) for answer in batch if isinstance(answer, Response)] == [
        (b"client", JobsEnqueued),
        (b"agent", JobsLeased),
    ]
    kinds = [type(command.request) for command in stage.store.batches[before] if isinstance(command, TenantRequest)]
    assert kinds == [EnqueueJob, DequeueJob]


async def test_agents_that_wait_are_not_tried_for_a_job_that_another_was_leased(stage: Stage) -> None:
    stage.ask(*(asked(number, dequeue(wait_ms=30_000), peer=b"agent") for number in range(1, 5)))
    await wait_all_tasks_blocked()
    before = len(stage.store.batches)
    stage.ask(asked(9, enqueue("true"), peer=b"client"))
    await wait_all_tasks_blocked()
    assert [len(batch) for batch in stage.store.batches[before:]] == [2]


@pytest.mark.parametrize("wait_ms", [30_000, 0])
async def test_a_wait_ends_exactly_when_it_is_over_with_nothing(stage: Stage, wait_ms: int) -> None:
    began_s = anyio.current_time()
    stage.ask(asked(1, dequeue(wait_ms=wait_ms)))
    assert (await stage.reply()).reply == JobsLeased()
    assert anyio.current_time() - began_s == pytest.approx(wait_ms / 1_000, abs=0.002)


async def test_a_job_that_came_back_goes_to_who_waits(stage: Stage) -> None:
    stage.ask(asked(1, dequeue(wait_ms=30_000)))
    await wait_all_tasks_blocked()
    stage.ask(Expire())
    assert (await stage.reply()).reply == JobsLeased(leases=(LEASE,))


async def test_an_agent_is_told_that_a_job_had_waited(stage: Stage) -> None:
    stage.ask(Expire())
    await wait_all_tasks_blocked()
    stage.ask(asked(1, dequeue(wait_ms=30_000)))
    assert (await stage.reply()).reply == JobsLeased(leases=(LEASE,), queued=True)


async def test_where_there_is_no_room_to_park_the_asker_is_told_to_come_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PLACES_MAX", 0)
    stage.ask(asked(1, dequeue(wait_ms=30_000)))
    refused = (await stage.reply()).reply
    assert refused.code == "busy"


@pytest.mark.parametrize("request_", [enqueue("true"), CancelJob(job_id="j"), GetJob(job_id="j"), ListJobs()])
async def test_a_full_disk_is_said_to_all_who_asked_and_the_next_batch_is_tried(
    stage: Stage, request_: StoreRequest
) -> None:
    stage.store.failure = NoSpace()
    stage.ask(asked(1, request_))
    refused = (await stage.reply()).reply
    assert refused.code == "no-space"
    assert stage.silent()
    stage.store.failure = None
    stage.ask(asked(2, request_))
    assert not isinstance((await stage.reply()).reply, Refused)


async def test_whoever_only_reads_waits_for_no_commit_of_others(stage: Stage) -> None:
    stage.disk.hold()
    stage.ask(asked(1, GetJob(job_id="j")))
    assert (await stage.reply()).peer == b"peer"
    assert not stage.disk.committing.is_set(), "it waits for no thread either"
    stage.ask(asked(2, enqueue("true")), asked(3, GetJob(job_id="j")))
    assert (await stage.reply()).command.request == GetJob(job_id="j")
    assert stage.silent()
    stage.disk.let_go()
    assert isinstance((await stage.reply()).reply, JobsEnqueued)


async def test_after_an_expiry_the_next_instant_is_always_named_also_when_it_met_a_full_disk(stage: Stage) -> None:
    for _ in range(3):
        stage.ask(Expire())
        assert await stage.alarms.receive() == Alarm(None)
    stage.store.next_due_ms = WALL_MS
    stage.ask(asked(1, enqueue("true")))
    assert await stage.alarms.receive() == Alarm(WALL_MS)
    stage.store.failure = NoSpace()
    stage.ask(Expire())
    assert (await stage.alarms.receive()).due_ms >= WALL_MS + NO_SPACE_PAUSE_MS


async def test_the_timekeeper_is_woken_only_for_an_earlier_instant(stage: Stage) -> None:
    sent: list[Alarm] = []
    for due_ms in (WALL_MS + 9, WALL_MS + 99, None, WALL_MS + 9, WALL_MS + 5, None):
        stage.store.next_due_ms = due_ms
        stage.ask(asked(1, enqueue("true")))
        await wait_all_tasks_blocked()
        while stage.alarms.statistics().current_buffer_used:
            sent.append(stage.alarms.receive_nowait())
    assert sent == [Alarm(WALL_MS + 9), Alarm(WALL_MS + 5)]
    stage.ask(Expire())
    assert await stage.alarms.receive() == Alarm(None), "it has come too early, and is told what is next"


async def test_a_start_on_a_full_disk_is_tried_until_it_succeeds_and_meanwhile_no_lease_expires() -> None:
    stage = Stage()
    stage.store.full_for = (RenewAll, EnqueueJob)
    stage.store.next_due_ms = WALL_MS
    async with stage.running():
        stage.ask(asked(1, ListJobs()), asked(2, enqueue("true")), asked(3, CancelJob(job_id="j")))
        replies = [(await stage.reply()).reply, *(answer.reply for answer in await stage.news())]
        assert [type(reply) for reply in replies] == [JobsListed, Refused, Refused]
        stage.ask(asked(4, CancelJob(job_id="j")))
        assert [type(answer.reply) for answer in await stage.news()] == [JobCancelled]
        assert stage.alarms.statistics().current_buffer_used == 0
        stage.store.full_for = ()
        assert await stage.alarms.receive() == Alarm(WALL_MS)
        assert stage.store.batches[-1] == [RenewAll()]


async def test_what_meets_a_full_disk_is_tried_as_what_ends_or_keeps_something(stage: Stage) -> None:
    """The store is asked again with all of it, and refuses what would add anything."""
    stage.store.full_at = Room.AMPLE
    stage.ask(asked(1, CancelJob(job_id="j")))
    assert [type(answer.reply) for answer in await stage.news()] == [JobCancelled]
    assert stage.left.told == [True]
    stage.store.full_at = None
    stage.ask(asked(2, CancelJob(job_id="j")))
    await stage.news()
    assert stage.left.told == [True, None]


async def test_the_ballast_is_given_up_piece_by_piece_for_what_ends_or_keeps_something(stage: Stage) -> None:
    stage.left.pieces = 3
    stage.store.full_times = 3
    before = len(stage.store.batches)
    stage.ask(asked(1, CancelJob(job_id="j")))
    assert [type(answer.reply) for answer in await stage.news()] == [JobCancelled]
    assert (len(stage.store.batches) - before, stage.left.pieces) == (4, 1)


async def test_who_finds_no_place_in_a_full_batch_waits_on(stage: Stage) -> None:
    parked = ScriptedStore.batch_max + 20
    stage.ask(*(asked(number, dequeue(wait_ms=30_000)) for number in range(1, parked + 1)))
    await wait_all_tasks_blocked()
    stage.ask(*(asked(1_000 + number, enqueue(*["true"] * 64), peer=None) for number in range(5)))
    answered: set[int] = set()
    while len(answered) < parked:
        batch = await stage.answers.receive()
        answered |= {int.from_bytes(one.command.request_id, "big") for one in batch if isinstance(one, Response)}
    assert answered == set(range(1, parked + 1))
    assert max(len(batch) for batch in stage.store.batches) <= ScriptedStore.batch_max


async def test_who_asks_is_charged_for_what_it_cost_the_store() -> None:
    """Also where it was refused, was only read, or found nothing and waits on."""
    stage = Stage()
    costs = {GetJob: 2, CancelJob: 3, DequeueJob: 5, EnqueueJob: 7}

    def answer(command: Command) -> Done:
        if not isinstance(command, TenantRequest):
            return Done(None, News(), cost=11)
        cost = costs[type(command.request)]
        match command.request:
            case EnqueueJob():
                return Done(refusal(NotFound()), News(ready={DEFAULT}), cost)
            case DequeueJob():
                return Done(JobsLeased(), News(exhausted={DEFAULT}), cost)
        return Done(refusal(NotFound()), News(), cost)

    stage.store.answer = answer
    async with stage.running():
        stage.ask(asked(1, GetJob(job_id="j")), asked(2, CancelJob(job_id="j")), asked(3, dequeue(wait_ms=30_000)))
        await wait_all_tasks_blocked()
        stage.ask(asked(4, enqueue("true"), peer=None), Expire())
        await wait_all_tasks_blocked()
        assert stage.charged == [(1, 2), (2, 3), (3, 5), (4, 7), (3, 5)]


async def test_what_is_much_work_shares_its_transaction_with_little(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many queues, or many pieces of metadata, or a list that looks through many jobs."""
    monkeypatch.setattr(ledger, "BATCH_UNITS_MAX", 8)
    pairs = {f"n{number}": "" for number in range(64)}
    noted = EnqueueJob(jobs=(JobSpec(command="true", metadata=pairs),) * 3)
    broad = dequeue(*(f"q{number}" for number in range(QUEUES_MAX)), slots=16)
    mixed = ListJobs(owner="o", queue="q")
    await stage.hold(asked(1, enqueue("true")))
    dear = (noted, broad, noted, mixed, mixed, ListJobs())
    stage.ask(*(asked(number, request) for number, request in enumerate(dear, start=2)))
    stage.disk.let_go()
    await wait_all_tasks_blocked()
    assert [len(batch) for batch in stage.store.batches] == [1] * 8


async def test_a_tenant_of_cheap_requests_is_not_held_up_by_one_of_dear_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is dear that was measured to be, whatever its price."""
    stage = Stage()
    monkeypatch.setattr(ledger, "BATCH_UNITS_MAX", 20)

    def answer(command: Command) -> Done:
        if not isinstance(command, TenantRequest):
            return Done(None, News())
        return Done(refusal(NotFound()), News(), cost=10 if command.tenant == "dear" else 1)

    stage.store.answer = answer
    async with stage.running():
        stage.disk.hold()
        stage.ask(asked(1, CancelJob(job_id="j"), tenant="dear"))
        await stage.disk.committing.wait()
        for number in range(100):
            stage.ask(asked(number, CancelJob(job_id="j"), tenant="dear"))
            stage.ask(asked(number, CancelJob(job_id="j"), tenant="cheap"))
        stage.disk.let_go()
        await wait_all_tasks_blocked()
        asks = [command for batch in stage.store.batches for command in batch if isinstance(command, TenantRequest)]
        order = [ask.tenant for ask in asks]
        last_cheap = len(order) - order[::-1].index("cheap")
        assert order[:last_cheap].count("dear") < 25


async def test_the_janitor_is_told_whether_there_is_more_and_rests_where_its_step_met_a_full_disk(
    stage: Stage,
) -> None:
    for step, failure, more in ((MORE, None, True), (LAST, None, False), (MORE, NoSpace(), False)):
        stage.store.failure = failure
        stage.ask(step)
        assert await stage.swept.receive() == Swept(more)
    assert stage.silent()


async def test_how_much_room_there_is_is_told_the_store_with_each_request(stage: Stage) -> None:
    """What the store makes of it is its own law."""
    for room in (Room.AMPLE, Room.RUNNING, Room.ENDING, Room.AMPLE):
        stage.left.left = room
        entries = [asked(number, request) for number, request in enumerate((CancelJob(job_id="j"), dequeue()))]
        stage.ask(*entries)
        await wait_all_tasks_blocked()
        assert stage.store.batches[-1] == [replace(entry.command, room=room) for entry in entries]
