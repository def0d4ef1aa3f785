"""What the Ledger tells holders and the Janitor, and what it takes while the disk has no room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from airunner.broker.inbox import Nudged, Response, Swept
from airunner.broker.lifecycle.commands import Retain
from airunner.broker.store.room import Room
from airunner.protocol.errors import NoSpace
from airunner.protocol.job import JobState, Result
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobCancelled
from airunner.protocol.requests import CancelJob, CompleteJob, ReleaseJob, RetryJob, StoreRequest
from tests.broker.ledgering import LAST, MORE, Stage
from tests.broker.stage import LEASE, asked, dequeue, enqueue

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.running():
        yield stage


async def test_a_holder_is_nudged_only_when_the_cancel_is_committed(stage: Stage) -> None:
    stage.disk.hold()
    stage.ask(asked(1, CancelJob(job_id="j")))
    await stage.disk.committing.wait()
    await wait_all_tasks_blocked()
    assert stage.silent()
    stage.disk.let_go()
    [answer] = await stage.answers.receive()
    [nudged] = await stage.answers.receive()
    assert isinstance(answer, Response)
    assert answer.reply == JobCancelled(state=JobState.RUNNING)
    assert nudged == Nudged("default", (JobId("j"),))


@pytest.mark.parametrize(("step", "more"), [(MORE, True), (LAST, False)])
async def test_the_janitor_is_told_when_its_step_is_committed(stage: Stage, step: Retain, *, more: bool) -> None:
    stage.disk.hold()
    stage.ask(step)
    await stage.disk.committing.wait()
    await wait_all_tasks_blocked()
    assert stage.silent()
    stage.disk.let_go()
    assert await stage.swept.receive() == Swept(more)
    assert stage.answers.statistics().current_buffer_used == 0


async def test_a_step_of_retention_that_met_a_full_disk_lets_the_janitor_rest(stage: Stage) -> None:
    stage.store.failure = NoSpace()
    stage.ask(MORE)
    assert await stage.swept.receive() == Swept(more=False)


async def test_a_step_of_retention_shares_its_commit_with_who_waits(stage: Stage) -> None:
    stage.disk.hold()
    stage.ask(asked(1, enqueue("true")))
    await stage.disk.committing.wait()
    stage.ask(LAST, asked(2, CancelJob(job_id="j")))
    stage.disk.let_go()
    await stage.swept.receive()
    assert len(stage.store.batches[-1]) == 2


@pytest.mark.parametrize(
    "request_",
    [
        enqueue("true"),
        RetryJob(job_id="j"),
        dequeue(),
        CancelJob(job_id="j"),
        ReleaseJob(lease=LEASE.ref),
        CompleteJob(lease=LEASE.ref, event_count=0, result=Result(exit_code=0)),
    ],
)
async def test_how_much_room_there_is_is_told_the_store_with_each_request(stage: Stage, request_: StoreRequest) -> None:
    """What the store makes of it is its own law."""
    for room in (Room.AMPLE, Room.RUNNING, Room.KEEPING, Room.AMPLE):
        stage.left.left = room
        entry = asked(1, request_)
        stage.ask(entry)
        await stage.news()
        assert stage.store.batches[-1] == [replace(entry.command, room=room)]
