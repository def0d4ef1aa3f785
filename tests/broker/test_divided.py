"""A batch that the store divides: each request is answered once and stored once, whatever comes between portions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from airunner.broker.inbox import Response
from airunner.broker.store.batch import TRIES_MAX
from airunner.broker.store.contract import Moved
from airunner.broker.store.rows import Changes
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobsEnqueued, Refused
from airunner.protocol.requests import EnqueueJob
from tests.broker.test_outage import Line
from tests.conformance.remote import Cut, RemoteEngine

REQUESTS = 5  # each a portion
TEN = EnqueueJob(jobs=(JobSpec(command="true"),) * 10)


class Divided(RemoteEngine):
    """A portion has room for one of the requests; `next_cut`: where the line is cut, after so many more of them."""

    rows_max = 20
    bytes_max = 4 * 1_048_576

    def __init__(self) -> None:
        super().__init__()
        self.next_cut: tuple[int, Cut] | None = None
        self.moved_after: int | None = None  # portions, after which one is decided again and again, until it is refused
        self._tries = TRIES_MAX

    def save(self, changes: Changes) -> None:
        if self.moved_after == len(self._saved.jobs) // 10 and self._tries:
            self._tries -= 1
            self._now = self._saved
            raise Moved
        super().save(changes)

    def commit(self) -> None:
        super().commit()
        if self.next_cut is not None:
            after, cut = self.next_cut
            self.next_cut = (after - 1, cut) if after > 1 else None
            self.cuts = [cut] if after == 1 else []


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line(Divided())
    async with line.stage.running():
        line.engine.steps.clear()
        yield line


async def replies(line: Line) -> list[object]:
    found: list[object] = []
    while len(found) < REQUESTS:
        found += [answer.reply for answer in await line.stage.answers.receive() if isinstance(answer, Response)]
    return found


@pytest.mark.parametrize("cut", [Cut.LOADING, Cut.SAVING, Cut.COMMITTING, Cut.COMMITTED])
@pytest.mark.parametrize("after", [1, 2, 4])
async def test_a_batch_that_is_cut_off_between_two_portions_is_stored_once_and_replayed(
    line: Line, cut: Cut, after: int
) -> None:
    assert isinstance(line.engine, Divided)
    line.engine.next_cut = (after, cut)
    line.send(*[TEN] * REQUESTS)
    assert [type(reply) for reply in await replies(line)] == [JobsEnqueued] * REQUESTS
    assert line.jobs() == 10 * REQUESTS
    assert line.replays == 1
    commits = line.engine.steps.count("commit")
    assert commits == after + (cut is Cut.COMMITTED) + 1 + REQUESTS, "the renewal of the leases, and the batch again"
    assert not line.stage.answers.statistics().current_buffer_used


async def test_the_requests_of_a_refused_portion_are_refused_and_the_others_are_answered_and_told(line: Line) -> None:
    assert isinstance(line.engine, Divided)
    line.engine.moved_after = 2
    line.send(*[TEN] * REQUESTS)
    told = await replies(line)
    assert [type(reply) for reply in told] == [JobsEnqueued, JobsEnqueued, Refused, JobsEnqueued, JobsEnqueued]
    assert isinstance(told[2], Refused)
    assert told[2].code == "busy"
    assert line.jobs() == 40
    assert len(await line.stage.announced.receive()) == 40
    assert not line.replays
