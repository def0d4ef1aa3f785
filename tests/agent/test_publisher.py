"""What the broker refuses for now is kept, and sent again when there is room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from trio.testing import MockClock

from airunner.agent.publisher import Publisher
from airunner.agent.spoolroom import SpoolRoom
from airunner.protocol.coding import refusal
from airunner.protocol.errors import IncompleteLog, IndexGap, NoSpace, Quota
from airunner.protocol.events import Heartbeat
from airunner.protocol.job import JobState, Result
from airunner.protocol.messages import BatchStored, JobCompleted, JobEventsPublished, PublishJobEvents, Refused
from airunner.protocol.requestsize import REQUEST_BYTES_MAX, RequestSize
from tests.agent.journaling import EVERYTHING, journal_in
from tests.client.wire import edges

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Full:
    """A channel whose broker has no room for events, `full` times."""

    def __init__(self, full: int, refuse: Callable[[], None] | None = None) -> None:
        self.full = full
        self.refuse = refuse
        self.request_size = RequestSize()
        self.stored: dict[str, int] = {}
        self.asked = 0

    async def ask(self, request: PublishJobEvents, **_: object) -> JobEventsPublished:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        self.full -= 1
        if self.full >= 0 and self.refuse is not None:
            self.refuse()
        batches = tuple(self._store(batch.job_id, batch.first_index, batch.count) for batch in request.batches)
        completions = tuple(
            JobCompleted(state=JobState.COMPLETED)
            if self.stored.get(one.job_id, 0) == one.event_count
            else refusal(IncompleteLog(expected_index=self.stored.get(one.job_id, 0)))
            for one in request.completions
        )
        return JobEventsPublished(batches=batches, completions=completions)

    def _store(self, job_id: str, first_index: int, count: int) -> BatchStored:
        known = self.stored.get(job_id, 0)
        if first_index > known:
            return BatchStored(job_id=job_id, attempt=1, next_index=known, code=IndexGap.code)
        if self.full >= 0:
            return BatchStored(job_id=job_id, attempt=1, next_index=known, code=Quota.code)
        self.stored[job_id] = first_index + count
        return BatchStored(job_id=job_id, attempt=1, next_index=self.stored[job_id])


def _no_space() -> None:
    raise NoSpace


@pytest.mark.parametrize("refuse", [None, _no_space])
async def test_what_there_is_no_room_for_is_kept_and_sent_again_and_said_once(
    tmp_path: Path, refuse: Callable[[], None] | None
) -> None:
    said: list[str] = []
    channel = Full(5, refuse)
    publisher = Publisher(channel, edges(), said.append, SpoolRoom(EVERYTHING))
    journals = [journal_in(tmp_path, number, sink=publisher) for number in (1, 2)]
    began_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(publisher.run)
        for journal in journals:
            publisher.open(journal)
            journal.add(Heartbeat(timestamp_ms=1))
            journal.cut()
            journal.add(Heartbeat(timestamp_ms=2))
            journal.finish(Result(exit_code=0))
        states = [await journal.settled() for journal in journals]
        group.cancel_scope.cancel()
    assert states == [JobState.COMPLETED] * 2
    assert channel.stored == {"job1": 2, "job2": 2}
    assert len(said) == 1
    assert channel.asked < 12, "it is asked again after a pause, and not at once"
    assert anyio.current_time() > began_s
    for journal in journals:
        publisher.close(journal)


async def test_when_there_was_room_again_the_next_want_of_it_is_said_too(tmp_path: Path) -> None:
    said: list[str] = []
    channel = Full(1)
    publisher = Publisher(channel, edges(), said.append, SpoolRoom(EVERYTHING))
    journal = journal_in(tmp_path, 1, sink=publisher)
    publisher.open(journal)
    async with anyio.create_task_group() as group:
        group.start_soon(publisher.run)
        for stamp in (1, 2):
            channel.full = 2
            journal.add(Heartbeat(timestamp_ms=stamp))
            await journal.deliver()
        group.cancel_scope.cancel()
    assert len(said) == 2
    publisher.close(journal)


class Newer(Full):
    """A broker that refuses one job, with a code that this agent does not know."""

    def __init__(self, refused: str, *, end: bool) -> None:
        super().__init__(0)
        self.refused = refused
        self.end = end

    async def ask(self, request: PublishJobEvents, **_: object) -> JobEventsPublished:
        reply = await super().ask(request)
        completions = tuple(
            Refused(code="too-tired", message="") if self.end and asked.job_id == self.refused else said
            for asked, said in zip(request.completions, reply.completions, strict=True)
        )
        return JobEventsPublished(batches=reply.batches, completions=completions)

    def _store(self, job_id: str, first_index: int, count: int) -> BatchStored:
        if job_id == self.refused and not self.end:
            return BatchStored(job_id=job_id, attempt=1, code="too-tired")
        return super()._store(job_id, first_index, count)


@pytest.mark.parametrize("end", [False, True])
async def test_a_refusal_that_is_not_known_ends_that_attempt_and_no_other(tmp_path: Path, *, end: bool) -> None:
    said: list[str] = []
    publisher = Publisher(Newer("job1", end=end), edges(), said.append, SpoolRoom(EVERYTHING))
    journals = [journal_in(tmp_path, number, sink=publisher) for number in (1, 2)]
    async with anyio.create_task_group() as group:
        group.start_soon(publisher.run)
        for journal in journals:
            publisher.open(journal)
            journal.add(Heartbeat(timestamp_ms=1))
            journal.finish(Result(exit_code=0))
        states = [await journal.settled() for journal in journals]
        group.cancel_scope.cancel()
    assert states == [None, JobState.COMPLETED]
    [line] = said
    assert line.startswith("job job1 attempt 1 is ended: the broker refuses")
    assert "too-tired" in line
    for journal in journals:
        publisher.close(journal)


class Breaking(Full):
    """A channel that loses its first connection with a request on it, and asks for less on the next."""

    def __init__(self) -> None:
        super().__init__(0)
        self.sizes: list[tuple[int, int]] = []

    async def ask(self, request: PublishJobEvents, *, smaller: Callable[[], PublishJobEvents]) -> JobEventsPublished:
        if not self.sizes:
            self._note(request)
            self.request_size.bytes_max = 1
            request = smaller()
            self.request_size.bytes_max = REQUEST_BYTES_MAX
        self._note(request)
        return await super().ask(request)

    def _note(self, request: PublishJobEvents) -> None:
        self.sizes.append((len(request.batches), len(request.completions)))


async def test_what_a_lost_connection_did_not_carry_is_sent_in_smaller_pieces_and_each_end_behind_its_events(
    tmp_path: Path,
) -> None:
    channel = Breaking()
    publisher = Publisher(channel, edges(), lambda _: None, SpoolRoom(EVERYTHING))
    journals = [journal_in(tmp_path, number, sink=publisher) for number in (1, 2)]
    for journal in journals:
        for stamp in (1, 2):
            journal.add(Heartbeat(timestamp_ms=stamp))
            journal.cut()
        publisher.open(journal)
        journal.finish(Result(exit_code=0))
    async with anyio.create_task_group() as group:
        group.start_soon(publisher.run)
        states = [await journal.settled() for journal in journals]
        group.cancel_scope.cancel()
    assert states == [JobState.COMPLETED] * 2
    assert channel.stored == {"job1": 2, "job2": 2}
    assert channel.sizes == [(4, 2), (1, 0), (3, 2)]
