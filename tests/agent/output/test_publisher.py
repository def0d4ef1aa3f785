"""What the broker refuses for now is kept, and sent again when there is room; by the next agent, if this one dies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest

from airunner.agent.flag import Flag
from airunner.agent.output.batching import FLUSH_BYTES, PIPE_WINDOW_MS
from airunner.agent.output.outbox import LATER_S
from airunner.agent.output.publisher import EventPublisher
from airunner.agent.output.recorder import Recorder
from airunner.agent.output.recovery import recover
from airunner.agent.output.spool import Spool, SpoolHeader, spools_in
from airunner.agent.output.spoolroom import SpoolRoom
from airunner.protocol.coding import refusal
from airunner.protocol.errors import IncompleteLog, IndexGap, NoSpace, PeerError, Quota, StaleToken, Unauthenticated
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    EventBody,
    Heartbeat,
    OutputTruncated,
    ProcessEnd,
    Stream,
    decode_bodies,
    encode_bodies,
)
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.message import LeaseRef
from airunner.protocol.names import JobId
from airunner.protocol.replies import BatchStored, JobCompleted, JobEventsPublished, JobReleasedReply, Refused
from airunner.protocol.requests import LAST_BYTES_MAX, PublishJobEvents, ReleaseJob, Request
from airunner.protocol.requestsize import REQUEST_BYTES_MAX, RequestSize
from tests.agent.output.recording import EVERYTHING, recorder_in
from tests.client.wire import edges


class Full:
    """A channel whose broker refuses events `full` times, as a whole or each batch with a code."""

    def __init__(self, full: int, refusal: PeerError | None = None, code: str = Quota.code) -> None:
        self.full = full
        self.refusal = refusal
        self.request_size = RequestSize()
        self.stored: dict[str, int] = {}
        self.asked: list[Request] = []
        self.code = code

    async def ask(self, request: Request, **_: object) -> Any:
        await anyio.lowlevel.checkpoint()
        self.asked.append(request)
        if isinstance(request, ReleaseJob):
            return JobReleasedReply()
        assert isinstance(request, PublishJobEvents)
        self.full -= 1
        if self.full >= 0 and self.refusal is not None:
            raise self.refusal
        batches = tuple(self._store(batch.lease.job_id, batch.first_index, batch.count) for batch in request.batches)
        completions = tuple(
            JobCompleted(state=JobState.COMPLETED)
            if self.stored.get(one.lease.job_id, 0) == one.event_count
            else refusal(IncompleteLog(expected_index=self.stored.get(one.lease.job_id, 0)))
            for one in request.completions
        )
        return JobEventsPublished(batches=batches, completions=completions)

    def _store(self, job_id: str, first_index: int, count: int) -> BatchStored:
        known = self.stored.get(job_id, 0)
        if first_index > known:
            return BatchStored(job_id=job_id, attempt=1, next_index=known, code=IndexGap.code)
        if self.full >= 0:
            return BatchStored(job_id=job_id, attempt=1, next_index=known, code=self.code)
        self.stored[job_id] = first_index + count
        return BatchStored(job_id=job_id, attempt=1, next_index=self.stored[job_id])


@asynccontextmanager
async def publishing(
    folder: Path, channel: Full, jobs: int = 1, cancelled: Flag | None = None
) -> AsyncIterator[tuple[list[Recorder], list[str]]]:
    """The recorders of some attempts whose publisher runs, and what it has said."""
    said: list[str] = []
    publisher = EventPublisher(channel, edges(), said.append, SpoolRoom(EVERYTHING))
    recorders = [recorder_in(folder, number + 1, sink=publisher, cancelled=cancelled) for number in range(jobs)]
    for recorder in recorders:
        publisher.open(recorder.outbox)
    async with anyio.create_task_group() as group:
        group.start_soon(publisher.run)
        yield recorders, said
        group.cancel_scope.cancel()
    for recorder in recorders:
        publisher.close(recorder.outbox)


async def test_results_of_short_jobs_wait_for_others_and_not_for_long(tmp_path: Path) -> None:
    channel = Full(0)
    async with publishing(tmp_path, channel, jobs=3) as (recorders, _):
        for recorder in recorders[:2]:
            recorder.outbox.held = True
        began_s = anyio.current_time()
        assert await settled(recorders[:1]) == [JobState.COMPLETED]
        assert anyio.current_time() == pytest.approx(began_s + LATER_S)
        recorders[1].outbox.finish(Result(exit_code=0))
        await anyio.sleep(LATER_S / 2)  # virtual
        assert len(channel.asked) == 1
        assert await settled(recorders[2:]) == [JobState.COMPLETED]
    assert [len(asked.completions) for asked in channel.asked if isinstance(asked, PublishJobEvents)] == [1, 2]


@pytest.mark.parametrize(("pieces", "requests"), [(4 * 12, 3), (4 * 3, 1)])
async def test_full_batches_of_a_fast_job_are_sent_together_and_within_the_window(
    tmp_path: Path, pieces: int, requests: int
) -> None:
    channel = Full(0)
    channel.request_size.bytes_max = EVERYTHING
    async with publishing(tmp_path, channel) as ([recorder], _):
        await recorder.add_output(Stream.STDOUT, b"begins", 1)
        await anyio.sleep(0.001)  # virtual
        assert len(channel.asked) == 1, "the first output is sent at once"
        for _ in range(pieces):
            await recorder.add_output(Stream.STDOUT, bytes(OUTPUT_BYTES_MAX), 1)
            await anyio.sleep(0.001)  # virtual
        await anyio.sleep(PIPE_WINDOW_MS / 1_000)  # virtual
        assert not recorder.outbox.behind
    assert len(channel.asked) == 1 + requests


async def test_a_result_waits_no_longer_than_usual_beside_the_full_batches_of_another_job(tmp_path: Path) -> None:
    channel = Full(0)
    async with publishing(tmp_path, channel, jobs=2) as ((fast, short), _):
        short.outbox.held = True
        for _ in range(FLUSH_BYTES // OUTPUT_BYTES_MAX + 1):
            await fast.add_output(Stream.STDOUT, bytes(OUTPUT_BYTES_MAX), 1)
            await anyio.sleep(0.001)  # virtual
        began_s = anyio.current_time()
        assert await settled([short]) == [JobState.COMPLETED]
        assert anyio.current_time() == pytest.approx(began_s + LATER_S)
        assert not fast.outbox.spool.pending


async def test_what_is_sent_at_once_does_not_wait_for_what_may_come_later(tmp_path: Path) -> None:
    channel = Full(0)
    async with publishing(tmp_path, channel, jobs=2) as ((prompt, short), _):
        await anyio.sleep(1)  # virtual: the publisher waits
        began_s = anyio.current_time()
        prompt.add(Heartbeat(timestamp_ms=1))
        short.outbox.held = True
        short.outbox.finish(Result(exit_code=0))  # in the same turn of the event loop
        while prompt.outbox.spool.pending:
            await prompt.outbox.changed.wait()
        assert anyio.current_time() == began_s


async def settled(recorders: list[Recorder]) -> list[JobState | None]:
    """How the attempts end, now that their commands have."""
    for recorder in recorders:
        recorder.outbox.finish(Result(exit_code=0))
    return [await recorder.outbox.settled() for recorder in recorders]


def beat_twice(recorder: Recorder) -> None:
    """Two batches."""
    recorder.add(Heartbeat(timestamp_ms=1))
    recorder.outbox.flush()
    recorder.add(Heartbeat(timestamp_ms=2))
    recorder.outbox.flush()


@pytest.mark.parametrize("refused", [None, NoSpace(), Unauthenticated("the token has expired")])
async def test_what_is_refused_for_now_is_kept_and_sent_again_and_said_once(
    tmp_path: Path, refused: PeerError | None
) -> None:
    channel = Full(5, refused)
    began_s = anyio.current_time()
    async with publishing(tmp_path, channel, jobs=2) as (recorders, said):
        for recorder in recorders:
            beat_twice(recorder)
        assert await settled(recorders) == [JobState.COMPLETED] * 2
    assert channel.stored == {"job1": 2, "job2": 2}
    assert len(said) == 1
    assert len(channel.asked) < 12, "it is asked again after a pause, and not at once"
    assert anyio.current_time() > began_s


async def test_when_there_was_room_again_the_next_want_of_it_is_said_too(tmp_path: Path) -> None:
    channel = Full(1)
    async with publishing(tmp_path, channel) as ([recorder], said):
        for stamp in (1, 2):
            channel.full = 2
            recorder.add(Heartbeat(timestamp_ms=stamp))
            await recorder.outbox.deliver()
    assert len(said) == 2


class Newer(Full):
    """A broker that refuses one job, with a code that this agent does not know."""

    def __init__(self, refused: str, *, end: bool) -> None:
        super().__init__(0)
        self.refused = refused
        self.end = end

    async def ask(self, request: PublishJobEvents, **_: object) -> JobEventsPublished:
        reply = await super().ask(request)
        completions = tuple(
            Refused(code="too-tired", message="") if self.end and asked.lease.job_id == self.refused else said
            for asked, said in zip(request.completions, reply.completions, strict=True)
        )
        return JobEventsPublished(batches=reply.batches, completions=completions)

    def _store(self, job_id: str, first_index: int, count: int) -> BatchStored:
        if job_id == self.refused and not self.end:
            return BatchStored(job_id=job_id, attempt=1, code="too-tired")
        return super()._store(job_id, first_index, count)


@pytest.mark.parametrize("end", [False, True])
async def test_a_refusal_that_is_not_known_ends_that_attempt_and_no_other(tmp_path: Path, *, end: bool) -> None:
    async with publishing(tmp_path, Newer("job1", end=end), jobs=2) as (recorders, said):
        for recorder in recorders:
            recorder.add(Heartbeat(timestamp_ms=1))
        assert await settled(recorders) == [None, JobState.COMPLETED]
    [line] = said
    assert line.startswith("job job1 attempt 1 is given up: the broker rejected")
    assert "too-tired" in line


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
    async with publishing(tmp_path, channel, jobs=2) as (recorders, _):
        for recorder in recorders:
            beat_twice(recorder)
        assert await settled(recorders) == [JobState.COMPLETED] * 2
    assert channel.stored == {"job1": 2, "job2": 2}
    assert channel.sizes == [(4, 2), (1, 0), (3, 2)]


class KeepsEndsOnly(Full):
    """A channel whose broker takes nothing but the last few events of an attempt, together with its end."""

    def __init__(self, code: str = Quota.code) -> None:
        super().__init__(0, code=code)
        self.events: list[EventBody] = []
        self.ending: set[str] = set()
        self.sizes = Counter[str]()

    async def ask(self, request: PublishJobEvents, **_: object) -> JobEventsPublished:
        self.ending = {completion.lease.job_id for completion in request.completions}
        self.sizes = Counter[str]()
        for batch in request.batches:
            self.sizes[batch.lease.job_id] += len(batch.events)
        self.events = [body for batch in request.batches for body in decode_bodies(batch.events)]
        return await super().ask(request)

    def _store(self, job_id: str, first_index: int, count: int) -> BatchStored:
        self.full = 0 if job_id not in self.ending or self.sizes[job_id] > LAST_BYTES_MAX else -1
        return super()._store(job_id, first_index, count)

    def kept_only(self, end: ProcessEnd) -> None:
        """What it took of `write_much` is the end."""
        assert self.events == [OutputTruncated(timestamp_ms=3, omitted_bytes=40 * OUTPUT_BYTES_MAX), end]


async def write_much(recorder: Recorder, end: ProcessEnd) -> None:
    for _ in range(40):
        await recorder.add_output(Stream.STDOUT, b"x" * OUTPUT_BYTES_MAX, 1)
    recorder.end_output(2)
    recorder.add(end)


@pytest.mark.parametrize("code", [Quota.code, NoSpace.code])
async def test_a_cancelled_job_ends_without_the_output_for_which_there_is_no_room(tmp_path: Path, code: str) -> None:
    channel = KeepsEndsOnly(code)
    end = ProcessEnd(timestamp_ms=3, pid=1, signal=15)
    async with publishing(tmp_path, channel) as ([recorder], _):
        await write_much(recorder, end)
        await anyio.sleep(60)  # virtual
        assert recorder.outbox.bytes_to_end == math.inf
        recorder.outbox.finish(Result(reason=Reason.CANCELLED))
        assert await recorder.outbox.settled() is JobState.COMPLETED
    channel.kept_only(end)


async def test_a_job_that_is_cancelled_after_its_command_has_ended_waits_for_no_room_either(tmp_path: Path) -> None:
    channel, cancelled = KeepsEndsOnly(), Flag()
    end = ProcessEnd(timestamp_ms=3, pid=1, exit_code=0)
    async with publishing(tmp_path, channel, cancelled=cancelled) as ([recorder], _):
        await write_much(recorder, end)
        recorder.outbox.finish(Result(exit_code=0))
        await anyio.sleep(300)  # virtual
        assert recorder.outbox.state is None, "without a word of its user's, no output is left out"
        cancelled.set()
        with anyio.fail_after(300):
            assert await recorder.outbox.settled() is JobState.COMPLETED
    channel.kept_only(end)


@pytest.mark.parametrize("held", [False, True])
async def test_an_end_is_told_at_once_while_others_have_no_room(tmp_path: Path, *, held: bool) -> None:
    async with publishing(tmp_path, KeepsEndsOnly(), jobs=2) as ([chatty, brief], _):
        for _ in range(2):
            await chatty.add_output(Stream.STDOUT, b"x" * OUTPUT_BYTES_MAX, 1)
        await anyio.sleep(300)  # virtual: it is asked again more and more rarely
        for _ in range(FLUSH_BYTES // OUTPUT_BYTES_MAX):  # a full batch, which may wait for others
            await chatty.add_output(Stream.STDOUT, b"x" * OUTPUT_BYTES_MAX, 1)
        await anyio.sleep(1)  # virtual
        brief.outbox.held = held
        brief.add(Heartbeat(timestamp_ms=1))
        began_s = anyio.current_time()
        assert await settled([brief]) == [JobState.COMPLETED]
        assert anyio.current_time() - began_s < 0.1


JOB = JobId("job")


@pytest.fixture
def left(tmp_path: Path) -> Path:
    spool = Spool.create(tmp_path / "job.1", SpoolHeader(lease=LeaseRef(job_id=JOB, attempt=1, task_token=bytes(32))))
    spool.append(0, 1, encode_bodies([Heartbeat(timestamp_ms=1)]))
    spool.close()
    return spool.path


@pytest.mark.parametrize("refused", [None, NoSpace(), Unauthenticated()])
async def test_what_is_refused_for_now_is_offered_again_and_nothing_is_lost(
    left: Path, refused: PeerError | None
) -> None:
    channel = Full(4, refused, NoSpace.code)
    said: list[str] = []
    await recover([left], channel, edges(), said.append)
    assert spools_in(left.parent) == []
    *published, released = channel.asked
    assert len(published) == 5
    assert isinstance(released, ReleaseJob)
    assert released.lost
    assert len(said) == 2  # once that it is refused, once that it is done


@pytest.mark.parametrize(("final", "code"), [(StaleToken(), ""), (None, "stale-token"), (None, "not-found")])
async def test_what_will_never_be_taken_is_let_go(left: Path, final: PeerError | None, code: str) -> None:
    channel = Full(1, final, code)
    await recover([left], channel, edges(), lambda _: None)
    assert spools_in(left.parent) == []
    assert len(channel.asked) == 1


async def test_a_spool_of_another_format_is_left_as_it_is_and_the_others_are_delivered(left: Path) -> None:
    foreign = left.parent / "another.1"
    newer = msgpack.packb({"format": 3, "lease": {"job": "another"}})
    foreign.write_bytes(newer)
    channel = Full(0)
    said: list[str] = []
    await recover(spools_in(left.parent), channel, edges(), said.append)
    assert spools_in(left.parent) == [foreign]
    assert foreign.read_bytes() == newer
    assert [type(request) for request in channel.asked] == [PublishJobEvents, ReleaseJob]
    assert any("another version of airunner (format 3)" in line for line in said)
