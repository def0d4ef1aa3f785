"""The store's disk: measured, judged, and with a ballast that is given up and made again."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from airunner.broker import disk as broker_disk
from airunner.broker.disk import PIECE_BYTES, PLENTY_BYTES, StoreDisk
from airunner.broker.health import Health
from airunner.broker.store.open import open_store
from airunner.broker.store.room import Inside, Room
from airunner.protocol.errors import NoSpace
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.requests import EnqueueJob
from tests.conformance.driving import Driver

MIB = 1_048_576
RESERVE = 8 * MIB


class Measured:
    """A store that takes and has free inside what the test says."""

    def __init__(self) -> None:
        self.inside_it = Inside(store_bytes=0, reusable_bytes=0)
        self.tightened: list[tuple[bool, bool]] = []

    def inside(self) -> Inside:
        return self.inside_it

    def tighten(self, *, tight: bool, shorten: bool) -> None:
        self.tightened.append((tight, shorten))


class Free:
    """What statvfs says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes = 1_000 * MIB
        monkeypatch.setattr(broker_disk.os, "statvfs", lambda _: SimpleNamespace(f_bavail=self.free_bytes, f_frsize=1))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    return Free(monkeypatch)


def test_the_ballast_is_made_given_up_piece_by_piece_and_made_again(tmp_path: Path, free: Free) -> None:
    ballast = tmp_path / "store.db-ballast"
    disk = StoreDisk(tmp_path / "store.db", Measured(), RESERVE, Health())
    free.free_bytes = RESERVE
    disk.look()
    assert not ballast.exists(), "there is no room for it beside the reserve"
    free.free_bytes = 1_000 * MIB
    disk.look()
    assert ballast.stat().st_size == 2 * MIB
    assert ballast.stat().st_blocks * 512 >= 2 * MIB, "it is allocated, and no hole"
    assert ballast.stat().st_mode & 0o777 == 0o600
    free.free_bytes = 0
    assert disk.look().ballast_bytes == 2 * MIB
    assert [disk.spare() for _ in range(3)] == [True, True, False]
    assert ballast.stat().st_size == 0
    assert PIECE_BYTES == MIB
    free.free_bytes = 1_000 * MIB
    disk.look()
    assert ballast.stat().st_size == 2 * MIB


def test_health_says_what_is_refused_and_from_then_on_also_between_two_batches(tmp_path: Path, free: Free) -> None:
    health = Health()
    disk = StoreDisk(tmp_path / "store.db", Measured(), RESERVE, health)
    disk.look()
    assert health.conditions == {}
    free.free_bytes = 3 * MIB
    assert "3.0 MiB of the store's disk are free, less than 8 (--reserve-mib)" in health.conditions["disk"]
    free.free_bytes = MIB
    assert "new jobs, leases and output are refused" in health.conditions["disk"]
    free.free_bytes = 1_000 * MIB
    assert health.conditions == {}
    disk.full(kept=False)  # whatever the disk says of itself
    assert "nothing can be stored" in health.conditions["disk"]
    disk.fits()
    assert health.conditions == {}


def test_the_journal_is_kept_short_where_the_usual_one_does_not_fit_beside_the_reserve(
    tmp_path: Path, free: Free
) -> None:
    store = Measured()
    (tmp_path / "store.db-wal").write_bytes(bytes(2 * MIB))
    disk = StoreDisk(tmp_path / "store.db", store, RESERVE, Health())
    disk.look()
    free.free_bytes = RESERVE + 20 * MIB
    disk.look()
    disk.look()
    free.free_bytes = 1_000 * MIB
    disk.look()
    assert store.tightened == [(True, True), (False, True)]


def test_where_there_is_plenty_nothing_but_the_disk_is_looked_at(tmp_path: Path, free: Free) -> None:
    store = Measured()
    disk = StoreDisk(tmp_path / "store.db", store, RESERVE, Health())
    free.free_bytes = RESERVE + PLENTY_BYTES
    for _ in range(2):  # the ballast is made
        disk.look()
    store.inside_it = Inside(store_bytes=1 << 40, reusable_bytes=0)
    assert disk.look().owed_bytes == 0
    free.free_bytes -= 1
    assert disk.look().owed_bytes > 0


def test_what_the_journal_holds_beyond_the_end_of_the_store_is_owed(tmp_path: Path, free: Free) -> None:
    store = Measured()
    store.inside_it = Inside(store_bytes=5 * MIB, reusable_bytes=MIB)
    (tmp_path / "store.db").write_bytes(bytes(2 * MIB))
    disk = StoreDisk(tmp_path / "store.db", store, RESERVE, Health())
    free.free_bytes = 5 * MIB
    space = disk.look()
    assert (space.owed_bytes, space.reusable_bytes) == (3 * MIB, MIB)
    assert disk.room(space, 0) is Room.RUNNING


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process may be larger; as with a quota, the disk says that it has room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_or_limit_that_the_disk_does_not_tell_of_is_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        driver = Driver(store)
        (job_id,) = driver.submit("before")
        large = EnqueueJob(jobs=(JobSpec(command="x" * 60_000),) * 20)
        with file_size_limit(Path(f"{path}-wal").stat().st_size + 200_000):
            with pytest.raises(NoSpace):
                driver.apply(driver.ask(large))
            assert driver.cancel(job_id) is JobState.CANCELLED
        driver.reply(object, large)
