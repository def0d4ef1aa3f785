"""The store's disk: measured, judged, and with a ballast that is given up and made again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from airunner.broker import disk as broker_disk
from airunner.broker.disk import LOOK_S, PIECE_BYTES, PLENTY_BYTES, WANTED_BYTES, ServerDisk, StoreDisk
from airunner.broker.health import Health
from airunner.broker.store.open import open_store
from airunner.broker.store.room import Inside, Room
from airunner.protocol.errors import NoSpace
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.requests import EnqueueJob
from tests.agent.output.recording import no_more_than
from tests.conformance.driving import Driver

MIB = 1_048_576
RESERVE = 8 * MIB


class Stage(StoreDisk):
    """A store's disk that has free what the test says, as has the store inside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"
        self.health = Health()
        self.free_bytes = 1_000 * MIB
        self.inside_it = Inside(store_bytes=0, reusable_bytes=0)
        self.tightened: list[tuple[bool, bool]] = []
        self.looks = 0  # at the disk
        self.now_s, self.step_s = 0.0, 1.0
        super().__init__(self.path, self, RESERVE, self.health, self.steady_s)

    def steady_s(self) -> float:
        self.now_s += self.step_s
        return self.now_s

    def inside(self) -> Inside:
        return self.inside_it

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        self.tightened.append((tight, shorten))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    disk = Stage(tmp_path)

    def statvfs(_: str) -> SimpleNamespace:
        disk.looks += 1
        return SimpleNamespace(f_bavail=disk.free_bytes, f_frsize=1)

    monkeypatch.setattr(broker_disk.os, "statvfs", statvfs)
    return disk


def test_the_ballast_is_made_given_up_piece_by_piece_and_made_again(disk: Stage) -> None:
    ballast = disk.path.with_name("store.db-ballast")
    disk.free_bytes = RESERVE
    disk.look()
    assert not ballast.exists(), "there is no room for it beside the reserve"
    disk.free_bytes = 1_000 * MIB
    disk.look()
    assert ballast.stat().st_size == 2 * MIB
    assert ballast.stat().st_blocks * 512 >= 2 * MIB, "it is allocated, and no hole"
    assert ballast.stat().st_mode & 0o777 == 0o600
    disk.free_bytes = 0
    assert disk.look().ballast_bytes == 2 * MIB
    assert [disk.free_ballast() for _ in range(3)] == [True, True, False]
    assert ballast.stat().st_size == 0
    assert PIECE_BYTES == MIB
    disk.free_bytes = 1_000 * MIB
    disk.look()
    assert ballast.stat().st_size == 2 * MIB


def test_health_says_what_is_refused_and_from_then_on_also_between_two_batches(disk: Stage) -> None:
    disk.look()
    assert disk.health.conditions == {}
    disk.free_bytes = 3 * MIB
    assert "3.0 MiB of the store's disk are free, less than 8 (--reserve-mib)" in disk.health.conditions["disk"]
    disk.free_bytes = MIB
    assert "new jobs, leases and output are refused" in disk.health.conditions["disk"]
    disk.free_bytes = 1_000 * MIB
    assert disk.health.conditions == {}
    disk.record_full(ends_stored=False)  # whatever the disk says of itself
    assert "nothing can be stored" in disk.health.conditions["disk"]
    disk.record_fit()
    assert disk.health.conditions == {}


def test_the_journal_is_kept_short_where_the_usual_one_does_not_fit_beside_the_reserve(disk: Stage) -> None:
    disk.path.with_name("store.db-wal").write_bytes(bytes(2 * MIB))
    disk.look()
    disk.free_bytes = RESERVE + 20 * MIB
    disk.look()
    disk.look()
    disk.free_bytes = 1_000 * MIB
    disk.look()
    assert disk.tightened == [(True, True), (False, True)]


def test_where_there_is_plenty_nothing_but_the_disk_is_looked_at(disk: Stage) -> None:
    disk.free_bytes = RESERVE + PLENTY_BYTES
    for _ in range(2):  # the ballast is made
        disk.look()
    disk.inside_it = Inside(store_bytes=1 << 40, reusable_bytes=0)
    assert disk.look().owed_bytes == 0
    disk.free_bytes -= 1
    assert disk.look().owed_bytes > 0


def test_where_there_is_plenty_the_disk_is_looked_at_by_time(disk: Stage) -> None:
    for _ in range(2):  # the ballast is made
        disk.look()
    disk.step_s, before = LOOK_S / 8, disk.looks
    for _ in range(7):
        assert disk.room(disk.look(), WANTED_BYTES) is Room.AMPLE
    assert disk.looks == before
    disk.free_bytes = 0
    for _ in range(2):
        disk.look()
    assert disk.room(disk.look(), 0) is Room.ENDING


def test_where_there_is_plenty_a_batch_that_wants_more_than_there_is_finds_no_room(disk: Stage) -> None:
    disk.look()
    assert disk.room(disk.look(), disk.free_bytes) is Room.ENDING


def test_what_the_journal_holds_beyond_the_end_of_the_store_is_owed(disk: Stage) -> None:
    disk.inside_it = Inside(store_bytes=5 * MIB, reusable_bytes=MIB)
    disk.path.write_bytes(bytes(2 * MIB))
    disk.free_bytes = 5 * MIB
    space = disk.look()
    assert (space.owed_bytes, space.reusable_bytes) == (3 * MIB, MIB)
    assert disk.room(space, 0) is Room.RUNNING


def test_a_quota_or_limit_that_the_disk_does_not_tell_of_is_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        driver = Driver(store)
        (job_id,) = driver.submit("before")
        large = EnqueueJob(jobs=(JobSpec(command="x" * 60_000),) * 20)
        with no_more_than(Path(f"{path}-wal").stat().st_size + 200_000):
            with pytest.raises(NoSpace):
                driver.apply(driver.ask(large))
            assert driver.cancel(job_id) is JobState.CANCELLED
        driver.reply(object, large)


def test_a_bound_of_a_store_on_a_server_is_kept_before_it_is_reached():
    health = Health()
    sizes = [0]
    disk = ServerDisk(health, lambda: sizes[0], 100 * MIB, RESERVE)
    for size, room in ((0, Room.AMPLE), (93 * MIB, Room.RUNNING), (99 * MIB, Room.ENDING), (10 * MIB, Room.AMPLE)):
        sizes[0] = size
        assert disk.room(disk.look(), 0) is room
        assert ("--store-gib" in health.conditions.get("disk", "")) is (room is not Room.AMPLE)
    assert disk.room(disk.look(), 50 * MIB) is Room.ENDING


def test_a_servers_disk_is_full_until_a_batch_fits():
    health = Health()
    disk = ServerDisk(health, lambda: 2**60, None, RESERVE)
    disk.record_full(ends_stored=False)
    assert "the disk of the database server is full: nothing can be stored" in health.conditions["disk"]
    disk.record_fit()
    assert (disk.room(disk.look(), 2**60), health.conditions) == (Room.AMPLE, {})
