"""Commit, then speak: the order of the Ledger's effects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker import parking
from airunner.broker.clock import Clock
from airunner.broker.counts import Counts
from airunner.broker.inbox import Alarm, Answer, Asked, Nudged, Swept
from airunner.broker.ledger import NO_SPACE_PAUSE_MS, Ledger
from airunner.broker.store.contract import (
    BATCH_COMMANDS_MAX,
    Appended,
    Ask,
    Command,
    Expire,
    Outcome,
    QueueKey,
    Resume,
    Retain,
)
from airunner.protocol.errors import NoSpace
from airunner.protocol.events import EventRun
from airunner.protocol.job import JobSpec, JobState, Result
from airunner.protocol.messages import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    JobCancelled,
    JobLease,
    JobsEnqueued,
    JobsLeased,
    JobsListed,
    ListJobs,
    Refused,
    ReleaseJob,
    RetryJob,
    StoreRequest,
)
from airunner.protocol.names import JobId, WatchKey
from tests.broker.stage import WALL_MS, Disk, ScriptedStore, acting, asked, dequeue, enqueue

pytestmark = pytest.mark.anyio

DEFAULT = QueueKey("default", "default")
RUN = Appended(WatchKey(bytes(32)), EventRun(first_sequence=1, count=1, attempt=0, events=b"\x90"))
LEASE = JobLease(job_id=JobId("j"), attempt=1, task_token=bytes(32), visibility_ms=60_000, spec=JobSpec(command="true"))

MORE, LAST = Retain(finished_before_ms=2), Retain(finished_before_ms=1)


class Queue:
    """Counts jobs, and no more."""

    def __init__(self) -> None:
        self.waiting = 0

    def __call__(self, command: Command) -> Outcome:
        match command:
            case Ask(request=EnqueueJob(jobs=jobs)):
                self.waiting += len(jobs)
                ids = tuple(JobId("j") for _ in jobs)
                return Outcome(reply=JobsEnqueued(job_ids=ids), appended=(RUN,), ready=frozenset({DEFAULT}))
            case Ask(request=DequeueJob(slots=slots)):
                granted = min(slots, self.waiting)
                self.waiting -= granted
                return Outcome(reply=JobsLeased(leases=(LEASE,) * granted))
            case Ask(request=CancelJob(job_id=job_id)):
                reply = JobCancelled(state=JobState.RUNNING)
                return Outcome(reply=reply, appended=(RUN,), nudged=(JobId(job_id),))
            case Retain():
                return Outcome(more=command == MORE)
            case Ask():
                return Outcome(reply=JobsListed(jobs=(), more=False))
            case Expire():
                self.waiting += 1
                return Outcome(ready=frozenset({DEFAULT}))
            case _:
                return Outcome()


class Stage:
    """A Ledger with its neighbours' inboxes in the test's hand."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.store = ScriptedStore(Queue())
        self.counts = Counts()
        self.asks, self.inbox = anyio.create_memory_object_stream[Asked | Expire | Retain](10_000)
        self.to_gateway, self.answers = anyio.create_memory_object_stream[Sequence[Answer | Nudged]](100)
        self.to_announcer, self.announced = anyio.create_memory_object_stream[Sequence[Appended]](100)
        self.to_timekeeper, self.alarms = anyio.create_memory_object_stream[Alarm](100)
        self.to_janitor, self.swept = anyio.create_memory_object_stream[Swept](100)
        self.room = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        ledger = Ledger(
            self.store,
            self.inbox,
            self.to_gateway,
            self.to_announcer,
            self.to_timekeeper,
            self.to_janitor,
            Clock(lambda: WALL_MS),
            self.disk,
            lambda: self.room,
            self.counts,
        )
        async with acting(ledger.run):
            yield
        for stream in (self.asks, self.inbox, self.to_gateway, self.answers):
            stream.close()
        for stream in (self.to_announcer, self.announced, self.to_timekeeper, self.alarms):
            stream.close()
        for stream in (self.to_janitor, self.swept):
            stream.close()

    def ask(self, *entries: Asked | Expire | Retain) -> None:
        for entry in entries:
            self.asks.send_nowait(entry)

    async def reply(self) -> Answer:
        [answer] = await self.answers.receive()
        assert isinstance(answer, Answer)
        return answer

    def silent(self) -> bool:
        inboxes = (self.answers, self.announced, self.alarms, self.swept)
        waiting = [inbox.statistics() for inbox in inboxes]
        return not any(inbox.current_buffer_used for inbox in waiting)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_it_begins_with_taking_over_what_the_last_broker_left(stage: Stage) -> None:
    async with stage.running():
        assert stage.store.batches == [[Resume()]]


async def test_nothing_is_said_before_it_is_committed(stage: Stage) -> None:
    async with stage.running():
        stage.disk.hold()
        stage.store.next_due_ms = WALL_MS + 5
        stage.ask(asked(1, enqueue("true")))
        await stage.disk.committing.wait()
        await wait_all_tasks_blocked()
        assert stage.silent()
        stage.disk.let_go()
        assert isinstance((await stage.reply()).reply, JobsEnqueued)
        assert await stage.announced.receive() == [RUN]
        assert await stage.alarms.receive() == Alarm(WALL_MS + 5)


async def test_what_comes_during_a_commit_is_one_transaction_up_to_a_bound(stage: Stage) -> None:
    async with stage.running():
        stage.disk.hold()
        stage.ask(asked(1, enqueue("true")))
        await stage.disk.committing.wait()
        stage.ask(*(asked(number, ListJobs()) for number in range(2, BATCH_COMMANDS_MAX + 10)))
        stage.disk.let_go()
        await wait_all_tasks_blocked()
        sizes = [len(batch) for batch in stage.store.batches]
        assert sizes[:2] == [1, 1]
        assert sum(sizes[2:]) == BATCH_COMMANDS_MAX + 8
        assert len(sizes) <= 5
        assert max(sizes) <= BATCH_COMMANDS_MAX


async def test_an_enqueue_takes_a_parked_dequeue_along_in_the_same_transaction(stage: Stage) -> None:
    async with stage.running():
        stage.ask(asked(1, dequeue(wait_ms=30_000), peer=b"agent"))
        await wait_all_tasks_blocked()
        assert stage.silent()
        stage.ask(asked(2, enqueue("true"), peer=b"client"))
        batch = await stage.answers.receive()
        assert [(answer.peer, type(answer.reply)) for answer in batch if isinstance(answer, Answer)] == [
            (b"client", JobsEnqueued),
            (b"agent", JobsLeased),
        ]
        kinds = [type(command.request) for command in stage.store.batches[-1] if isinstance(command, Ask)]
        assert kinds == [EnqueueJob, DequeueJob]


async def test_a_parked_wait_ends_exactly_when_it_is_over_with_nothing(stage: Stage) -> None:
    async with stage.running():
        began_s = anyio.current_time()
        stage.ask(asked(1, dequeue(wait_ms=30_000)))
        assert (await stage.reply()).reply == JobsLeased()
        assert anyio.current_time() - began_s == pytest.approx(30, abs=0.002)


async def test_without_a_wait_nothing_parks(stage: Stage) -> None:
    async with stage.running():
        stage.ask(asked(1, dequeue()))
        assert (await stage.reply()).reply == JobsLeased()


async def test_a_repeat_of_a_parked_request_takes_its_place(stage: Stage) -> None:
    async with stage.running():
        stage.ask(asked(1, dequeue(wait_ms=30_000), peer=b"old"))
        await wait_all_tasks_blocked()
        stage.ask(asked(1, dequeue(wait_ms=30_000), peer=b"new"))
        await wait_all_tasks_blocked()
        stage.ask(asked(2, enqueue("true", "true"), peer=None))
        assert (await stage.reply()).peer == b"new"
        await wait_all_tasks_blocked()
        assert stage.answers.statistics().current_buffer_used == 0


async def test_a_job_that_came_back_goes_to_who_waits(stage: Stage) -> None:
    async with stage.running():
        stage.ask(asked(1, dequeue(wait_ms=30_000)))
        await wait_all_tasks_blocked()
        stage.ask(Expire())
        assert (await stage.reply()).reply == JobsLeased(leases=(LEASE,))


async def test_more_wait_than_there_are_jobs_and_the_rest_waits_on(stage: Stage) -> None:
    async with stage.running():
        stage.ask(*(asked(number, dequeue(wait_ms=30_000)) for number in range(1, 21)))
        await wait_all_tasks_blocked()
        stage.ask(asked(100, enqueue("true", "true"), peer=None))
        [first, second] = await stage.answers.receive()
        assert isinstance(first, Answer)
        assert isinstance(second, Answer)
        assert [first.ask.request_id[-1], second.ask.request_id[-1]] == [1, 2]
        await wait_all_tasks_blocked()
        assert stage.answers.statistics().current_buffer_used == 0


async def test_where_there_is_no_room_to_park_the_answer_is_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PARKED_MAX", 0)
    async with stage.running():
        stage.ask(asked(1, dequeue(wait_ms=30_000)))
        assert (await stage.reply()).reply == JobsLeased()


async def test_a_full_disk_is_said_to_all_who_asked_and_the_next_batch_is_tried(stage: Stage) -> None:
    async with stage.running():
        stage.store.failure = NoSpace()
        stage.ask(asked(1, enqueue("true")))
        refused = (await stage.reply()).reply
        assert isinstance(refused, Refused)
        assert refused.code == "no-space"
        assert stage.announced.statistics().current_buffer_used == 0
        stage.store.failure = None
        stage.ask(asked(2, enqueue("true")))
        assert isinstance((await stage.reply()).reply, JobsEnqueued)


async def test_whoever_only_reads_is_answered_though_the_disk_is_full(stage: Stage) -> None:
    async with stage.running():
        stage.disk.hold()
        stage.ask(asked(1, ListJobs()))
        await stage.disk.committing.wait()
        stage.ask(asked(2, enqueue("true")), asked(3, ListJobs()))
        stage.store.full_for = EnqueueJob
        stage.disk.let_go()
        assert isinstance((await stage.reply()).reply, JobsListed)
        refused, listed = await stage.answers.receive()
        assert isinstance(refused, Answer)
        assert isinstance(refused.reply, Refused)
        assert isinstance(listed, Answer)
        assert isinstance(listed.reply, JobsListed)


async def test_an_expiry_that_met_a_full_disk_is_named_to_the_timekeeper_again(stage: Stage) -> None:
    async with stage.running():
        stage.store.next_due_ms = WALL_MS
        stage.ask(asked(1, ListJobs()))
        assert await stage.alarms.receive() == Alarm(WALL_MS)
        stage.store.failure = NoSpace()
        stage.ask(Expire())
        alarm = await stage.alarms.receive()
        assert alarm.due_ms is not None
        assert alarm.due_ms >= WALL_MS + NO_SPACE_PAUSE_MS


async def test_a_start_on_a_full_disk_is_tried_until_it_succeeds(stage: Stage) -> None:
    stage.store.failure = NoSpace()
    async with stage.running():
        stage.ask(asked(1, ListJobs()))
        stage.store.failure = None
        assert isinstance((await stage.reply()).reply, JobsListed)
        assert stage.store.batches[-2:] == [[Resume()], [asked(1, ListJobs()).ask]]


async def test_after_an_expiry_the_next_instant_is_always_named(stage: Stage) -> None:
    async with stage.running():
        for _ in range(3):
            stage.ask(Expire())
            assert await stage.alarms.receive() == Alarm(None)


async def test_what_it_does_is_counted(stage: Stage) -> None:
    async with stage.running():
        stage.ask(asked(1, enqueue("true")))
        await stage.reply()
        await wait_all_tasks_blocked()
        assert (stage.counts["commits"], stage.counts["commands"], stage.counts["events"]) == (2, 2, 1)


async def test_a_holder_is_nudged_only_when_the_cancel_is_committed(stage: Stage) -> None:
    async with stage.running():
        stage.disk.hold()
        stage.ask(asked(1, CancelJob(job_id="j")))
        await stage.disk.committing.wait()
        await wait_all_tasks_blocked()
        assert stage.silent()
        stage.disk.let_go()
        [answer, nudged] = await stage.answers.receive()
        assert isinstance(answer, Answer)
        assert answer.reply == JobCancelled(state=JobState.RUNNING)
        assert nudged == Nudged((JobId("j"),))


async def test_a_cancel_that_met_a_full_disk_nudges_nobody(stage: Stage) -> None:
    async with stage.running():
        stage.store.failure = NoSpace()
        stage.ask(asked(1, CancelJob(job_id="j")))
        assert isinstance((await stage.reply()).reply, Refused)


@pytest.mark.parametrize(("step", "more"), [(MORE, True), (LAST, False)])
async def test_the_janitor_is_told_when_its_step_is_committed(stage: Stage, step: Retain, *, more: bool) -> None:
    async with stage.running():
        stage.disk.hold()
        stage.ask(step)
        await stage.disk.committing.wait()
        await wait_all_tasks_blocked()
        assert stage.silent()
        stage.disk.let_go()
        assert await stage.swept.receive() == Swept(more)
        assert stage.answers.statistics().current_buffer_used == 0


async def test_a_step_of_retention_that_met_a_full_disk_lets_the_janitor_rest(stage: Stage) -> None:
    async with stage.running():
        stage.store.failure = NoSpace()
        stage.ask(MORE)
        assert await stage.swept.receive() == Swept(more=False)


async def test_a_step_of_retention_shares_its_commit_with_who_waits(stage: Stage) -> None:
    async with stage.running():
        stage.disk.hold()
        stage.ask(asked(1, enqueue("true")))
        await stage.disk.committing.wait()
        stage.ask(LAST, asked(2, CancelJob(job_id="j")))
        stage.disk.let_go()
        await stage.swept.receive()
        assert len(stage.store.batches[-1]) == 2


@pytest.mark.parametrize("request_", [enqueue("true"), RetryJob(job_id="j")])
async def test_without_room_the_store_is_told_so_by_whoever_produces(stage: Stage, request_: EnqueueJob) -> None:
    async with stage.running():
        for room in (True, False, True):
            stage.room = room
            stage.ask(asked(1, request_))
            await stage.reply()
            [command] = stage.store.batches[-1]
            assert isinstance(command, Ask)
            assert command.room is room


@pytest.mark.parametrize(
    "request_",
    [
        dequeue(),
        CancelJob(job_id="j"),
        ReleaseJob(job_id="j", attempt=1, task_token=bytes(32)),
        CompleteJob(job_id="j", attempt=1, task_token=bytes(32), event_count=0, result=Result(exit_code=0)),
    ],
)
async def test_without_room_what_runs_may_end(stage: Stage, request_: StoreRequest) -> None:
    stage.room = False
    async with stage.running():
        entry = asked(1, request_)
        stage.ask(entry)
        await stage.answers.receive()
        assert stage.store.batches[-1] == [entry.ask]
