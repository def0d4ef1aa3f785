"""A damaged page or row costs the jobs that it is about, and no others; and never the broker, but where all is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airunner.broker.store.contract import Expire
from airunner.broker.store.sqlite.check import check_store
from airunner.broker.store.sqlite.damage import Damaged
from airunner.broker.store.sqlite.store import SqliteStore, open_store
from airunner.protocol.errors import EXIT_DAMAGED, OperatorError
from airunner.protocol.job import JobState
from airunner.protocol.messages import (
    CancelJob,
    GetJob,
    JobCompleted,
    JobEventsPublished,
    JobEventsReplayed,
    JobsListed,
    JobsUpdated,
    ListJobs,
    PublishJobEvents,
    Refused,
    ReplayJobEvents,
    UpdateJob,
    Verdict,
)
from tests.broker.store.sqlite.damaging import damage_page_with
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion, ref, release

SEGMENTS = 60


@contextmanager
def opened(path: Path) -> Iterator[tuple[SqliteStore, Driver]]:
    store = open_store(f"sqlite:///{path}")
    try:
        yield store, Driver(store)
    finally:
        store.close()


def long_job(driver: Driver, word: str) -> str:
    """A finished job whose log takes several pages, each of them its own."""
    driver.submit(word)
    lease = driver.lease_one()
    for index in range(SEGMENTS):
        piece = f"{word}-{index:04}-" * 40
        driver.reply(JobEventsPublished, PublishJobEvents(batches=(batch(lease, index, piece),)))
    driver.reply(JobCompleted, completion(lease, SEGMENTS))
    return lease.job_id


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[tuple[SqliteStore, Driver, str, str]]:
    """A store in which one page of the first of two logs is damaged; and both jobs' ids."""
    path = tmp_path / "store.db"
    with opened(path) as (_, driver):
        broken, whole = (long_job(driver, word) for word in ("broken", "whole"))
    damage_page_with(path, b"broken-0030-")
    assert [fault.job_id for fault in check_store(path).faults if fault.job_id] == [broken]
    with opened(path) as (store, driver):
        driver.now_ms += VISIBILITY_MS
        yield store, driver, broken, whole


def test_a_damaged_log_is_refused_and_every_other_is_served(damaged: tuple[SqliteStore, Driver, str, str]) -> None:
    store, driver, broken, whole = damaged
    refused = driver.refused("corrupt-log", ReplayJobEvents(job_id=broken))
    assert "airunner store check" in refused.message
    assert len(driver.log(whole)) == SEGMENTS + 3
    assert driver.job(broken).state is JobState.COMPLETED
    assert {job.id for job in driver.reply(JobsListed, ListJobs()).jobs} == {broken, whole}
    assert driver.log(driver.ended("new")[0])
    assert store.aside.met == 1


def test_retention_leaves_a_damaged_log_and_goes_on(damaged: tuple[SqliteStore, Driver, str, str]) -> None:
    store, driver, broken, whole = damaged
    steps = 0
    while driver.retain(finished_before_ms=driver.now_ms).more:
        steps += 1
        assert steps < 100
    for job_id in (broken, whole):
        driver.refused("not-found", GetJob(job_id=job_id))
    left = {number for (number,) in store._connection.execute("SELECT DISTINCT number FROM doomed")}
    assert left == {1}


def test_a_hole_in_a_log_is_no_end_of_it(tmp_path: Path) -> None:
    with opened(tmp_path / "store.db") as (store, driver):
        job_id = long_job(driver, "x")
        store._connection.execute("DELETE FROM event WHERE first_sequence IN (10, ?)", (SEGMENTS + 3,))
        page = ReplayJobEvents(job_id=job_id)
        assert "event 10 of this job's log is missing" in driver.refused("corrupt-log", page).message
        driver.refused("corrupt-log", ReplayJobEvents(job_id=job_id, from_sequence=SEGMENTS + 3))
        assert not driver.reply(JobEventsReplayed, ReplayJobEvents(job_id=job_id, from_sequence=SEGMENTS + 4)).runs


def test_a_segment_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "store.db") as (store, driver):
        job_id = long_job(driver, "x")
        store._connection.execute("UPDATE event SET events = x'c1' WHERE first_sequence = 10")
        driver.refused("corrupt-log", ReplayJobEvents(job_id=job_id, from_timestamp_ms=1, from_sequence=10))


def test_a_job_whose_row_cannot_be_decoded_is_not_leased_and_those_behind_it_are(tmp_path: Path) -> None:
    with opened(tmp_path / "store.db") as (store, driver):
        first, second = driver.submit("first", "second")
        store._connection.execute("UPDATE job SET spec = x'c1' WHERE job_id = ?", (first,))
        assert [lease.job_id for lease in driver.lease()] == [second]
        driver.refused("corrupt-log", GetJob(job_id=first))
        assert driver.lease() == ()


def test_a_job_whose_page_cannot_be_read_is_not_leased_and_those_behind_it_are(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(path) as (_, driver):
        _, second = driver.submit("broken" * 3_000, "second")
    damage_page_with(path, b"broken" * 300, of_one_value=True)
    with opened(path) as (store, driver):
        assert [lease.job_id for lease in driver.lease()] == [second]
        assert len(store.aside) == 1


def test_damage_to_one_running_job_takes_neither_events_nor_leases_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Met by what is written: events, ends, renewals and expiries."""
    with opened(tmp_path / "store.db") as (store, driver):
        driver.submit("broken", "whole", "brief")
        broken, whole, brief = driver.lease(slots=3)
        insert = store._log._insert

        def damaged_insert(number: int, *rest: object) -> object:
            if number == 1:
                raise Damaged("database disk image is malformed", number)
            return insert(number, *rest)

        monkeypatch.setattr(store._log, "_insert", damaged_insert)
        reply = driver.reply(
            JobEventsPublished,
            PublishJobEvents(
                batches=(batch(whole, 0, "a"), batch(broken, 0, "a"), batch(brief, 0, "a")),
                completions=(completion(broken, 1), completion(brief, 1)),
            ),
        )
        assert [one.code for one in reply.batches] == [None, "corrupt-log", None]
        refused, ended = reply.completions
        assert isinstance(refused, Refused)
        assert refused.code == "corrupt-log"
        assert ended == JobCompleted(state=JobState.COMPLETED)
        driver.refused("corrupt-log", release(broken))
        driver.refused("corrupt-log", CancelJob(job_id=broken.job_id))
        driver.now_ms += VISIBILITY_MS + 1
        applied = driver.apply(Expire())
        assert applied.next_due_ms is None
        assert [driver.state(lease.job_id) for lease in (broken, whole)] == [JobState.RUNNING, JobState.SCHEDULED]


def test_a_row_that_cannot_be_renewed_loses_its_lease_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store.db") as (store, driver):
        driver.submit("broken", "whole")
        broken, whole = driver.lease(slots=2)
        renewed = store._leases._renewed

        def damaged_renewal(tenant: str, one: object, *rest: int) -> object:
            if one == ref(broken):
                raise Damaged("disk I/O error")
            return renewed(tenant, one, *rest)

        monkeypatch.setattr(store._leases, "_renewed", damaged_renewal)
        request = UpdateJob(leases=(ref(broken), ref(whole)), visibility_ms=VISIBILITY_MS)
        verdicts = [one.verdict for one in driver.reply(JobsUpdated, request).leases]
        assert verdicts == [Verdict.LOST, Verdict.KEPT]


def test_a_start_gives_each_lease_its_period_but_the_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(path) as (_, driver):
        driver.submit("whole", "broken" * 3_000)
        driver.lease(slots=2)
    with opened(path) as (store, driver):
        # A trigger stands for a row that cannot be written: SQLite says so in the same words.
        store._connection.create_scalar_function("damage", _damage)
        store._connection.execute(
            "CREATE TEMP TRIGGER broken BEFORE UPDATE ON job WHEN old.number = 2 BEGIN SELECT damage(); END"
        )
        driver.now_ms += 10 * VISIBILITY_MS
        assert driver.resume().next_due_ms == driver.now_ms + VISIBILITY_MS
        assert len(store.aside) == 1


def _damage() -> None:
    import apsw

    raise apsw.CorruptError("database disk image is malformed")


def test_damage_that_no_command_is_about_ends_the_broker_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store.db") as (store, driver):

        def write() -> None:
            raise Damaged("database disk image is malformed")

        monkeypatch.setattr(store._usage, "write", write)
        with pytest.raises(OperatorError, match="airunner store check") as raised:
            driver.submit("a")
        assert raised.value.exit_code == EXIT_DAMAGED
        assert "\n" not in raised.value.message
