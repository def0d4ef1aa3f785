"""What is left out of a log is its middle, and the log says how much."""

from __future__ import annotations

from pathlib import Path

import anyio
from hypothesis import given
from hypothesis import strategies as st

from airunner.agent.output.outputlimit import Gap, OutputLimit, Piece
from airunner.agent.output.recorder import UNACKNOWLEDGED_S
from airunner.protocol.events import Output, OutputTruncated, Stream
from tests.agent.output.recording import Sink, recorder_in, taken

pieces = st.lists(st.tuples(st.sampled_from(Stream), st.binary(min_size=1, max_size=40)), max_size=30)


def told(going_on: list[Piece | Gap]) -> tuple[bytes, list[int]]:
    """The bytes, and the gaps."""
    data = b"".join(one.data for one in going_on if isinstance(one, Piece))
    return data, [one.omitted_bytes for one in going_on if isinstance(one, Gap)]


@given(pieces, st.integers(0, 300), st.integers(0, 60))
def test_head_and_tail_are_kept_and_all_else_is_counted(
    written: list[tuple[Stream, bytes]], log_bytes: int, tail_bytes: int
) -> None:
    limit = OutputLimit(log_bytes, tail_bytes)
    going_on = [one for stream, data in written for one in limit.add(Piece(stream, data, 1), room=True)]
    going_on += limit.flush()
    whole = b"".join(data for _, data in written)
    kept, gaps = told(going_on)
    if len(whole) <= log_bytes:
        assert (kept, gaps) == (whole, [])
    else:
        head = len(told(going_on[: [isinstance(one, Gap) for one in going_on].index(True)])[0])
        assert kept == whole[:head] + whole[len(whole) - len(kept) + head :]
        assert gaps == [len(whole) - len(kept)]
        split = 3  # bytes of a character that are left out with its others
        assert max(0, log_bytes - min(tail_bytes, log_bytes) - split) <= head
        assert log_bytes - split <= len(kept) <= log_bytes
    by_stream = [b"".join(one.data for one in going_on if isinstance(one, Piece) and one.stream is s) for s in Stream]
    assert sum(map(len, by_stream)) == len(kept)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.booleans()), max_size=40), st.integers(1, 60))
def test_what_there_was_no_room_for_is_counted_where_it_is_missing(
    written: list[tuple[bytes, bool]], tail_bytes: int
) -> None:
    limit = OutputLimit(1 << 30, tail_bytes)
    length = 0
    for data, room in written:
        for one in limit.add(Piece(Stream.STDOUT, data, 1), room=room):
            length += one.omitted_bytes if isinstance(one, Gap) else len(one.data)
        if room:
            assert not limit.holding
    length += sum(one.omitted_bytes if isinstance(one, Gap) else len(one.data) for one in limit.flush())
    assert length == sum(len(data) for data, _ in written)


async def test_a_broker_that_is_away_holds_a_command_up_only_for_a_moment(tmp_path: Path) -> None:
    sink = Sink(spool_bytes_max=1_000_000)
    recorder = recorder_in(tmp_path, sink=sink)
    block = b"x" * 65_536
    began_s = anyio.current_time()
    for _ in range(100):
        await recorder.add_output(Stream.STDOUT, block, 1)
    assert UNACKNOWLEDGED_S <= anyio.current_time() - began_s < 2 * UNACKNOWLEDGED_S
    head = taken(recorder)
    assert not any(isinstance(body, OutputTruncated) for body in head)
    recorder.outbox.acknowledge(len(head))
    await recorder.add_output(Stream.STDOUT, b"there is room again", 2)
    bodies = taken(recorder)
    assert isinstance(bodies[0], OutputTruncated)
    shown = sum(len(body.data) for body in head + bodies if isinstance(body, Output))
    assert shown + bodies[0].omitted_bytes == 100 * len(block) + len(b"there is room again")
    assert isinstance(bodies[-1], Output)
    assert bodies[-1].data.endswith(b"there is room again")


async def test_a_broker_that_answers_is_waited_for_and_nothing_is_left_out(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, sink=Sink(spool_bytes_max=1_000_000))
    got = 0

    async def slow_broker() -> None:
        nonlocal got
        count = 0
        while True:
            await anyio.sleep(UNACKNOWLEDGED_S / 2)  # virtual
            bodies = taken(recorder)
            assert not any(isinstance(body, OutputTruncated) for body in bodies)
            got += sum(len(body.data) for body in bodies if isinstance(body, Output))
            count += len(bodies)
            recorder.outbox.acknowledge(count)

    async with anyio.create_task_group() as group:
        group.start_soon(slow_broker)
        for _ in range(200):
            await recorder.add_output(Stream.STDOUT, b"x" * 65_536, 1)
        await anyio.sleep(UNACKNOWLEDGED_S)  # virtual
        group.cancel_scope.cancel()
    assert got == 200 * 65_536


async def test_what_is_settled_gives_its_room_to_others(tmp_path: Path) -> None:
    sink = Sink(spool_bytes_max=500_000)
    first, second = recorder_in(tmp_path, 1, sink=sink), recorder_in(tmp_path, 2, sink=sink)
    for _ in range(9):
        await first.add_output(Stream.STDOUT, b"x" * 65_536, 1)
    assert sink.room.full
    first.outbox.free_room()
    assert not sink.room.full
    await second.add_output(Stream.STDOUT, b"y", 1)
    assert taken(second) == [Output(stream=Stream.STDOUT, data=b"y", timestamp_ms=1)]
