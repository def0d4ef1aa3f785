"""Copies of a store that is being written to, and what a check of a store finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from airunner.broker.checking import check_store
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite import copying
from airunner.broker.store.sqlite.copying import StoreCopy
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobCompleted, JobEventsPublished, JobsEnqueued, JobsLeased
from airunner.protocol.requests import EnqueueJobWithStdin, PublishJobEvents
from tests.conformance.driving import Driver, batch, completion

PAGES = 2  # a step
MANY = 12  # jobs, of some pages each


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PAGES_A_STEP", PAGES)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    opened = open_sqlite(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "copy.db", os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


def logged(driver: Driver, jobs: int) -> list[str]:
    """Ended jobs with something to read in their logs."""
    job_ids: list[str] = []
    for number in range(jobs):
        job = JobSpec(command=f"job {number}", stdin_bytes=6_000)
        job_ids += driver.reply(JobsEnqueued, EnqueueJobWithStdin(job=job, stdin=b"i" * 6_000)).job_ids
        (lease,) = driver.reply(JobsLeased, driver.dequeue(stdin=True)).leases
        pieces = [f"marker of {number} " + "x" * 4_000 for _ in range(3)]
        driver.reply(JobEventsPublished, PublishJobEvents(batches=(batch(lease, 0, *pieces),)))
        driver.reply(JobCompleted, completion(lease, 3))
    return job_ids


def finish(copy: StoreCopy) -> None:
    while not copy.done:
        copy.step()


def test_a_copy_is_the_store_as_it_is_at_its_last_step(
    engine: SqliteEngine, driver: Driver, target: int, tmp_path: Path
) -> None:
    before = logged(driver, MANY)
    copy = engine.copy_to(target)
    during: list[str] = []
    while not copy.done:
        during += logged(driver, 1) if len(during) < MANY else []
        copied, pages = copy.step()
        assert 0 < copied <= pages
    copy.close()
    logged(driver, 1)
    assert len(during) == MANY
    report = check_store(tmp_path / "copy.db")
    assert (report.jobs, report.faults) == (2 * MANY, ())
    restored = open_sqlite(tmp_path / "copy.db")
    again = Driver(Store(restored))
    for job_id in before + during:
        assert again.log(job_id) == driver.log(job_id)
    restored.close()


def test_a_copy_that_finds_no_room_says_so_and_one_that_is_given_up_leaves_the_store_as_it_was(
    engine: SqliteEngine, driver: Driver, target: int
) -> None:
    logged(driver, 3)
    full = os.open("/dev/full", os.O_RDWR)
    copy = engine.copy_to(full)
    with pytest.raises(OSError, match="No space left"):
        finish(copy)
    copy.close()
    os.close(full)
    copy = engine.copy_to(target)
    copy.step()
    copy.close()
    logged(driver, 1)


@pytest.mark.parametrize("content", [b"", b"a text\n" * 1_000])
def test_a_file_that_is_no_store_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(OperatorError, match="not a store of airunner's"):
        check_store(tmp_path / "other")
    with pytest.raises(OperatorError, match="no store at"):
        check_store(tmp_path / "missing")


DAMAGES = {
    "DELETE FROM segment WHERE number = 2 AND first_sequence = 0": "input has 0 bytes and should have 6000",
    "DELETE FROM segment WHERE number = 2 AND first_sequence = 3": "a hole: event 3 is missing",
    "UPDATE segment SET count = 1 WHERE number = 2 AND first_sequence = 3": "has 3 events and should have 1",
    "UPDATE segment SET events = x'c1' WHERE number = 2 AND first_sequence = 3": "cannot be read",
    "DELETE FROM segment WHERE number = 2 AND first_sequence = 6": "ends with event 5 instead of 6",
    "UPDATE job SET last_sequence = 5 WHERE number = 2; DELETE FROM segment WHERE number = 2 AND first_sequence = 6": (
        "ends with OUTPUT instead of JOB_FINISHED"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_log_that_is_not_whole_is_named_by_its_job(
    engine: SqliteEngine, driver: Driver, damage: str, tmp_path: Path
) -> None:
    job_ids = logged(driver, 3)
    engine.close()
    connection = apsw.Connection(str(tmp_path / "store.db"))
    connection.execute(damage)
    connection.close()
    (fault,) = check_store(tmp_path / "store.db").faults
    assert fault.job_id == job_ids[1]
    assert DAMAGES[damage] in fault.words
