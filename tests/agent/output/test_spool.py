"""The spool keeps its promises on a real file: nothing lost, nothing torn, nobody else reads it."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airunner.agent.output.spool import (
    RECLAIM_BYTES_MIN,
    ForeignSpool,
    NotASpool,
    Spool,
    SpoolFailed,
    SpoolHeader,
)
from airunner.protocol.compression import BATCH_BYTES_MAX
from airunner.protocol.message import LeaseRef
from tests.agent.output.recording import no_more_than

LEASE = {"job_id": "0192-job", "attempt": 3, "task_token": b"t" * 32}
HEADER = SpoolHeader(lease=LeaseRef(job_id="0192-job", attempt=3, task_token=b"t" * 32))
EVERYTHING = 1 << 30


@pytest.fixture
def spool(tmp_path: Path) -> Generator[Spool]:
    made = Spool.create(tmp_path / "job.3", HEADER)
    yield made
    made.close()


@contextmanager
def found(spool: Spool) -> Iterator[Spool]:
    """What the next agent finds of it."""
    spool.close()
    with closing(Spool.recover(spool.path)) as again:
        yield again


def firsts(spool: Spool, from_index: int, bytes_max: int = EVERYTHING) -> list[int]:
    """Of each record that is read, its first event."""
    return [record.first_index for record in spool.read_from(from_index, bytes_max)]


def events(spool: Spool) -> list[tuple[int, int, bytes]]:
    return [(r.first_index, r.count, r.events) for r in spool.read_from(spool.kept_index, EVERYTHING)]


def test_a_record_is_in_the_file_as_soon_as_append_returns(spool: Spool) -> None:
    spool.append(0, 2, b"\x92\xff\x00")
    with spool.path.open("rb") as file:
        header, record = msgpack.Unpacker(file)  # plain MessagePack, nothing of ours
    assert header == {"lease": LEASE, "format": 2}
    assert record == {"first_index": 0, "count": 2, "events": b"\x92\xff\x00"}


def test_file_and_folder_are_closed_to_others_whatever_the_umask_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "agent" / "spool"
    before = os.umask(0)
    try:
        Spool.create(folder / "job.3", HEADER).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "job.3").stat().st_mode) == 0o600


def test_a_spool_that_exists_is_never_written_over(spool: Spool) -> None:
    spool.append(0, 1, b"kept")
    with pytest.raises(SpoolFailed, match="File exists"):
        Spool.create(spool.path, HEADER)
    assert events(spool) == [(0, 1, b"kept")]


def test_an_agent_that_restarts_finds_what_the_last_one_left_to_the_byte(spool: Spool) -> None:
    spool.append(0, 2, b"\x92\xff\x00")
    spool.append(2, 3, b"b")
    written = [(0, 2, b"\x92\xff\x00"), (2, 3, b"b")]
    assert events(spool) == written
    with found(spool) as left:
        assert left.header == HEADER
        assert events(left) == written
        assert (left.next_index, left.pending) == (5, True)
        left.append(5, 1, b"c")
        assert events(left)[-1] == (5, 1, b"c")


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=80), max_size=6), st.data())
def test_a_torn_tail_is_ignored_wherever_it_is_torn(
    tmp_path_factory: pytest.TempPathFactory, batches: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "spool"
    spool = Spool.create(path, HEADER)
    ends = [path.stat().st_size]
    for index, batch in enumerate(batches):
        spool.append(index, 1, batch)
        ends.append(path.stat().st_size)
    spool.close()
    cut = data.draw(st.integers(min_value=ends[0], max_value=ends[-1]))
    os.truncate(path, cut)

    whole = sum(end <= cut for end in ends) - 1
    with found(spool) as left:
        assert events(left) == [(index, 1, batch) for index, batch in enumerate(batches[:whole])]
        left.append(whole, 1, b"next")
        with found(left) as again:
            assert events(again)[-1] == (whole, 1, b"next")


@pytest.mark.parametrize(
    "tail",
    [
        *(b"\0" * 100, b"\xc1" * 10, b"\xc6\xff\xff\xff\xff", b"\x81\xa1x\x01", b"\xdd\xff\xff\xff\xff"),
        msgpack.packb({"first_index": 7, "count": 1, "events": b"does not follow"}),
    ],
)
def test_garbage_behind_the_last_record_is_ignored(spool: Spool, tail: bytes) -> None:
    spool.append(0, 1, b"whole")
    with spool.path.open("ab") as file:
        file.write(tail)
    with found(spool) as left:
        assert events(left) == [(0, 1, b"whole")]


@pytest.mark.parametrize("content", [b"", b"\x84", b"\xc0", b"hello", msgpack.packb({"job_id": "x"})])
def test_a_file_without_a_whole_header_is_not_a_spool(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spool"
    path.write_bytes(content)
    with pytest.raises(NotASpool):
        Spool.recover(path)


def test_another_versions_spool_is_not_thrown_away_as_none(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    for header in ({**LEASE, "format": 1}, {"lease": LEASE, "format": 3}):
        path.write_bytes(msgpack.packb(header))
        with pytest.raises(ForeignSpool, match="another version"):
            Spool.recover(path)


def test_a_link_is_not_followed(tmp_path: Path, spool: Spool) -> None:
    link = tmp_path / "link"
    link.symlink_to(spool.path)
    with pytest.raises(SpoolFailed):
        Spool.recover(link)


def test_reading_stops_at_the_bound_and_goes_on_from_there(spool: Spool) -> None:
    for index in range(10):
        spool.append(2 * index, 2, b"%d" % index * 100)
    assert firsts(spool, 0, 250) == [0, 2]
    assert firsts(spool, 4, 350) == [4, 6, 8]
    assert firsts(spool, 0, 250) == [0, 2], "and back, when it must be sent again"
    assert firsts(spool, 18, 1) == [18], "one, however small the bound"
    assert firsts(spool, 7, 1) == [6], "a record is found by any of its events"
    assert firsts(spool, 20) == []


def test_what_is_acknowledged_is_not_read_again(spool: Spool) -> None:
    for index in range(4):
        spool.append(2 * index, 2, b"%d" % index)
    spool.acknowledge(5)  # in the middle of a record: it stays
    assert firsts(spool, spool.kept_index) == [4, 6]
    spool.acknowledge(3)  # an older word changes nothing
    assert spool.kept_index == 4
    spool.acknowledge(8)
    assert (spool.pending, spool.pending_bytes, firsts(spool, 8)) == (False, 0, [])


def test_all_acknowledged_gives_the_space_back_and_keeps_the_count(spool: Spool) -> None:
    for index in range(4):
        spool.append(index, 1, b"x" * BATCH_BYTES_MAX)
    assert spool.path.stat().st_size > RECLAIM_BYTES_MIN
    spool.acknowledge(4)
    assert spool.path.stat().st_size < 500
    with found(spool) as left:
        assert (left.kept_index, left.next_index, left.pending) == (4, 4, False)
        left.append(4, 1, b"after")
        with found(left) as again:
            assert (again.kept_index, again.next_index, events(again)) == (4, 5, [(4, 1, b"after")])


def test_what_is_acknowledged_gives_its_room_back_though_something_is_always_left(spool: Spool) -> None:
    for index in range(500):
        spool.append(index, 1, b"%04d" % index + bytes(1_000))
        spool.read_from(index, EVERYTHING)
        spool.acknowledge(index)  # the newest never is
        assert spool.path.stat().st_blocks * 512 < 2 * RECLAIM_BYTES_MIN
    assert [index for index, _, _ in events(spool)] == [499]
    spool.append(500, 1, b"next")
    with found(spool) as left:
        assert [(index, raw[:4]) for index, _, raw in events(left)][-2:] == [(499, b"0499"), (500, b"next")]
        assert left.kept_index > 400
        left.append(501, 1, b"one more")
        left.acknowledge(502)
        assert not left.pending


def test_records_that_a_power_cut_took_are_not_numbered_again(spool: Spool) -> None:
    spool.append(0, 1, b"a")
    with found(spool) as left:
        left.acknowledge(6)  # the broker has five that this disk has lost
        left.append(6, 1, b"b")
        with found(left) as again:
            assert events(again) == [(6, 1, b"b")]


def test_what_a_full_disk_refuses_is_sent_from_memory_and_then_the_disk_is_tried_again(spool: Spool) -> None:
    spool.append(0, 1, b"before")
    size = spool.path.stat().st_size
    with no_more_than(size + 100):
        spool.append(1, 2, b"x" * 1_000)
    assert (spool.full, spool.pending, spool.next_index) == (True, True, 3)
    assert spool.path.stat().st_size == size, "there is no torn record"
    assert events(spool) == [(0, 1, b"before"), (1, 2, b"x" * 1_000)]
    assert (firsts(spool, 0, 500), firsts(spool, 2, 1)) == ([0], [1])
    spool.acknowledge(1)
    assert (spool.full, events(spool)) == (True, [(1, 2, b"x" * 1_000)])
    spool.acknowledge(3)
    assert (spool.full, spool.pending) == (False, False)
    spool.append(3, 1, b"after")
    assert events(spool) == [(3, 1, b"after")]
    with found(spool) as left:
        assert events(left) == [(3, 1, b"after")], "no gap hides it from the next agent"


def test_what_a_full_disk_refused_can_be_dropped_like_any_record_and_the_next_takes_its_place(spool: Spool) -> None:
    spool.append(0, 1, b"kept")
    with no_more_than(spool.path.stat().st_size):
        spool.append(1, 2, b"x" * 1_000)
    spool.truncate(3)
    assert spool.full, "nothing was from that event on"
    spool.truncate(1)
    spool.append(1, 1, b"less")
    assert (spool.full, events(spool)) == (False, [(0, 1, b"kept"), (1, 1, b"less")])


def test_a_disk_that_takes_nothing_at_all_loses_nothing_either(spool: Spool) -> None:
    with no_more_than(spool.path.stat().st_size):
        for index in range(3):
            spool.append(index, 1, b"%d" % index)
            assert [raw for _, _, raw in events(spool)] == [b"%d" % index]
            spool.acknowledge(index + 1)
    spool.append(3, 1, b"from memory")  # until the place that was reached can be marked
    assert spool.full
    spool.acknowledge(4)
    spool.append(4, 1, b"on disk")
    assert not spool.full
    with found(spool) as left:
        assert (left.kept_index, events(left)) == (4, [(4, 1, b"on disk")])


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    spool = Spool.create(tmp_path / "a", HEADER)
    spool.append(0, 1, b"x")
    spool.remove()
    spool.close()
    (tmp_path / "b").write_bytes(b"\xc1")
    with pytest.raises(NotASpool):
        Spool.recover(tmp_path / "b")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not (tmp_path / "a").exists()
