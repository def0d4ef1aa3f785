"""The outbox of an attempt: the broker gets the result behind all events, and is asked again until it has it."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import anyio
import msgpack
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.agent.output.recorder import UNACKNOWLEDGED_S, Recorder
from airunner.agent.output.spool import Record, Spool, SpoolFailed
from airunner.protocol.blobs import Slice
from airunner.protocol.compression import BATCH_BYTES_MAX, is_compressed
from airunner.protocol.events import (
    OUTPUT_BYTES_MAX,
    SLICES_MAX,
    Artifact,
    EventBody,
    Output,
    OutputTruncated,
    ProcessError,
    Stream,
    check_batch,
    decode_bodies,
)
from airunner.protocol.job import JobState, Result
from tests.agent.output.recording import EVERYTHING, Sink, no_more_than, recorder_in, taken

RESULT = Result(exit_code=0)
FEW = 8
LONG = b"a line of a build log\n" * 2_000


def with_events(folder: Path, events: int) -> Recorder:
    recorder = recorder_in(folder)
    for number in range(events):
        recorder.add(ProcessError(timestamp_ms=1, message=str(number)))
        recorder.outbox.flush()
    return recorder


async def test_the_end_is_told_once_every_event_is_sent(tmp_path: Path) -> None:
    recorder = with_events(tmp_path, 2)
    assert recorder.outbox.completion() is None, "it has not ended"
    recorder.outbox.finish(RESULT)
    assert recorder.outbox.completion() is None, "its events are not sent"
    assert len(recorder.outbox.unsent(1, EVERYTHING)) == 1
    assert recorder.outbox.completion() is None, "one of them is not sent"
    assert len(taken(recorder)) == 1
    completion = recorder.outbox.completion()
    assert completion is not None
    assert (completion.event_count, completion.result) == (2, RESULT)
    assert recorder.outbox.completion() == completion, "until the broker has answered"
    recorder.outbox.complete(JobState.COMPLETED)
    assert recorder.outbox.completion() is None
    assert await recorder.outbox.settled() is JobState.COMPLETED


async def test_what_the_broker_misses_is_sent_again_before_the_end(tmp_path: Path) -> None:
    recorder = with_events(tmp_path, 3)
    recorder.outbox.finish(RESULT)
    assert len(taken(recorder)) == 3
    recorder.outbox.resend_from(1)
    assert recorder.outbox.completion() is None
    assert [body.message for body in taken(recorder) if isinstance(body, ProcessError)] == ["1", "2"]
    assert recorder.outbox.completion() is not None


async def test_a_broker_that_has_lost_what_it_had_is_not_asked_for_ever(tmp_path: Path) -> None:
    recorder = with_events(tmp_path, 3)
    recorder.outbox.finish(RESULT)
    taken(recorder)
    recorder.outbox.acknowledge(3)
    recorder.outbox.resend_from(1)
    assert recorder.outbox.lost.is_set()
    assert recorder.outbox.completion() is None
    assert await recorder.outbox.settled() is None


async def test_long_batches_are_compressed_once_and_short_ones_stay_as_they_are(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, zstd=True)
    for data in (b"short\n" * 300, LONG, random.Random(1).randbytes(OUTPUT_BYTES_MAX)):
        await recorder.add_output(Stream.STDOUT, data, 1)
        recorder.outbox.flush()
    sent = recorder.outbox.unsent(3, EVERYTHING)
    assert [is_compressed(batch.events) for batch in sent] == [False, True, False]
    assert len(sent[1].events) < len(LONG) // 10
    recorder.outbox.resend_from(0)
    assert recorder.outbox.unsent(3, EVERYTHING) == sent
    assert [len(check_batch(batch.events)) for batch in sent] == [batch.count for batch in sent]
    recorder.outbox.spool.close()
    with (tmp_path / "job1").open("r+b") as file:
        file.truncate((tmp_path / "job1").stat().st_size - 1)
    with closing(Spool.recover(tmp_path / "job1")) as left:
        assert [left.header.batch(record) for record in left.read_from(0, EVERYTHING)] == sent[:2]


async def test_what_comes_fast_is_sent_in_few_batches(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    for _ in range(64):
        await recorder.add_output(Stream.STDOUT, bytes(63_000), 1)
    recorder.outbox.flush()
    assert len(recorder.outbox.unsent(64, EVERYTHING)) <= 15, "of 4 MB"


async def test_a_broker_that_does_not_say_that_it_reads_compressed_batches_gets_none(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    await recorder.add_output(Stream.STDOUT, LONG, 1)
    [sent] = recorder.outbox.unsent(1, EVERYTHING)
    assert msgpack.unpackb(sent.events)[0]["data"] == LONG


async def test_a_full_disk_holds_a_command_up_for_the_broker_and_leaves_nothing_out(tmp_path: Path) -> None:
    sink = Sink()
    recorder = recorder_in(tmp_path, sink=sink)
    expected = {stream: b"".join(b"%s %d\n" % (stream.encode(), n) for n in range(500)) for stream in Stream}
    written = dict.fromkeys(Stream, b"")

    async def write(stream: Stream) -> None:
        for line in expected[stream].splitlines(keepends=True):
            await recorder.add_output(stream, line, 1)

    async def take() -> None:
        while True:
            await anyio.sleep(UNACKNOWLEDGED_S / 2)  # virtual
            for batch in recorder.outbox.unsent(1, EVERYTHING):
                for body in decode_bodies(batch.events):
                    assert isinstance(body, Output)
                    written[body.stream] += body.data
                recorder.outbox.acknowledge(batch.first_index + batch.count)
            recorder.outbox.flush()

    with no_more_than((tmp_path / "job1").stat().st_size):
        async with anyio.create_task_group() as group:
            group.start_soon(take)
            async with anyio.create_task_group() as readers:
                for stream in Stream:
                    readers.start_soon(write, stream)
            recorder.end_output(1)
            await recorder.outbox.deliver()
            group.cancel_scope.cancel()
    assert written == expected


async def test_files_that_a_job_leaves_wait_for_room_and_none_is_left_out(tmp_path: Path) -> None:
    slices = (Slice(bytes(32), 1, 2),) * SLICES_MAX
    files = [Artifact(timestamp_ms=1, path=str(number), slices=slices) for number in range(100)]
    recorder = recorder_in(tmp_path, sink=Sink(1_000))
    recorded: list[Artifact] = []
    got: list[EventBody] = []

    async def record() -> None:
        for file in files:
            await recorder.add_when_room(file)
            recorded.append(file)

    async with anyio.create_task_group() as group:
        group.start_soon(record)
        while len(got) < len(files):
            await wait_all_tasks_blocked()
            assert len(recorded) - len(got) <= FEW
            recorder.outbox.flush()
            for batch in recorder.outbox.unsent(1, EVERYTHING):
                assert len(batch.events) <= BATCH_BYTES_MAX
                got += decode_bodies(batch.events)
                recorder.outbox.acknowledge(batch.first_index + batch.count)
    assert got == files


async def test_a_full_disk_holds_up_nothing_while_the_broker_is_away(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    with no_more_than((tmp_path / "job1").stat().st_size):
        began_s = anyio.current_time()
        for _ in range(100):
            await recorder.add_output(Stream.STDOUT, bytes(OUTPUT_BYTES_MAX), 1)
        assert anyio.current_time() - began_s <= UNACKNOWLEDGED_S
        recorder.end_output(1)
        recorder.outbox.finish(RESULT)
        bodies: list[EventBody] = []
        while recorder.outbox.completion() is None:
            for batch in recorder.outbox.unsent(1, EVERYTHING):
                bodies += decode_bodies(batch.events)
                recorder.outbox.acknowledge(batch.first_index + batch.count)
            recorder.outbox.flush()
    kept = sum(len(body.data) for body in bodies if isinstance(body, Output))
    omitted = sum(body.omitted_bytes for body in bodies if isinstance(body, OutputTruncated))
    assert (kept + omitted, omitted > 0) == (100 * OUTPUT_BYTES_MAX, True)


async def test_a_disk_that_can_be_read_no_more_breaks_the_attempt_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = with_events(tmp_path, 2)

    def fail(*_: object) -> list[Record]:
        raise SpoolFailed("cannot read the spool")

    monkeypatch.setattr(Spool, "read_from", fail)
    assert recorder.outbox.unsent(1, EVERYTHING) == []
    assert recorder.outbox.broken.is_set()
    with pytest.raises(SpoolFailed):
        await recorder.outbox.deliver()
    assert await recorder.outbox.settled() is None
