"""A damaged page or row costs the jobs that it is about, and no others; and never the broker, but where all is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from airunner.broker.checking import check_store
from airunner.broker.lifecycle.commands import Expire
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol import replies, requests
from airunner.protocol.errors import EXIT_IO, OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from tests.broker.store.sqlite.damaging import PAGE_BYTES, damage_page_with
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion, packed, release

SEGMENTS = 60
ID = b"d" * 16


@contextmanager
def opened(path: Path) -> Iterator[tuple[SqliteEngine, Driver]]:
    engine = open_sqlite(path)
    try:
        yield engine, Driver(Store(engine))
    finally:
        engine.close()


def break_writes(engine: SqliteEngine, change: str, which: str) -> None:
    """From now on such a change meets damage: a trigger that fails in the words in which SQLite says so of a page."""
    engine._db.create_scalar_function("damage", _damage)
    engine._db.execute(f"CREATE TEMP TRIGGER broken BEFORE {change} WHEN {which} BEGIN SELECT damage(); END")


def _damage() -> None:
    raise apsw.CorruptError("database disk image is malformed")


def code(reply: object) -> str:
    return reply.code


def long_job(driver: Driver, word: str) -> str:
    """A finished job whose log takes several pages, each of them its own."""
    driver.submit(word)
    lease = driver.lease_one()
    for index in range(SEGMENTS):
        piece = f"{word}-{index:04}-" * 40
        driver.reply(replies.JobEventsPublished, requests.PublishJobEvents(batches=(batch(lease, index, piece),)))
    driver.reply(replies.JobCompleted, completion(lease, SEGMENTS))
    return lease.job_id


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[tuple[SqliteEngine, Driver, str, str]]:
    """A store in which one page of the first of two logs is damaged; and both jobs' ids."""
    path = tmp_path / "store.db"
    with opened(path) as (_, driver):
        broken, whole = (long_job(driver, word) for word in ("broken", "whole"))
    damage_page_with(path, b"broken-0030-")
    assert [fault.job_id for fault in check_store(path).faults if fault.job_id] == [broken]
    with opened(path) as (engine, driver):
        driver.now_ms += VISIBILITY_MS
        yield engine, driver, broken, whole


def test_a_damaged_log_is_refused_and_every_other_is_served(damaged: tuple[SqliteEngine, Driver, str, str]) -> None:
    engine, driver, broken, whole = damaged
    before = driver.reply(replies.JobEventsReplayed, requests.ReplayJobEvents(job_id=broken)).next_sequence
    assert 3 < before < SEGMENTS
    refused = driver.refused("corrupt-log", requests.ReplayJobEvents(job_id=broken, from_sequence=before))
    assert "airunner store check" in refused.message
    assert len(driver.log(whole)) == SEGMENTS + 3
    assert driver.job(broken).state is JobState.COMPLETED
    assert {job.id for job in driver.reply(replies.JobsListed, requests.ListJobs()).jobs} == {broken, whole}
    assert driver.log(driver.ended("new")[0])
    assert engine.damage == (2, 0), "by the first page, which ends before it, and by the next"


def test_retention_leaves_a_damaged_log_and_goes_on(damaged: tuple[SqliteEngine, Driver, str, str]) -> None:
    engine, driver, broken, whole = damaged
    steps = 0
    while driver.retain(finished_before_ms=driver.now_ms).news.more:
        steps += 1
        assert steps < 100
    for job_id in (broken, whole):
        driver.refused("not-found", requests.GetJob(job_id=job_id))
    assert set(engine._db.execute("SELECT DISTINCT number FROM segment")) == {(1,)}


def test_a_hole_in_a_log_is_no_end_of_it_and_what_cannot_be_decoded_is_refused(
    engine: SqliteEngine, driver: Driver
) -> None:
    job_id = long_job(driver, "x")
    engine._db.execute("UPDATE segment SET events = x'c1' WHERE first_sequence = 12")
    driver.refused("corrupt-log", requests.ReplayJobEvents(job_id=job_id, from_timestamp_ms=1, from_sequence=12))
    engine._db.execute("DELETE FROM segment WHERE first_sequence IN (10, ?)", (SEGMENTS + 3,))
    before = driver.reply(replies.JobEventsReplayed, requests.ReplayJobEvents(job_id=job_id))
    assert (len(before.runs), before.next_sequence) == (9, 10)
    page = requests.ReplayJobEvents(job_id=job_id, from_sequence=10)
    assert "event 10 of this job's log is missing" in driver.refused("corrupt-log", page).message
    driver.refused("corrupt-log", requests.ReplayJobEvents(job_id=job_id, from_sequence=SEGMENTS + 3))
    assert not driver.reply(
        replies.JobEventsReplayed, requests.ReplayJobEvents(job_id=job_id, from_sequence=SEGMENTS + 4)
    ).runs


def test_a_check_finds_a_compressed_segment_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(path) as (engine, driver):
        lease = driver.started()
        driver.publish(*(packed(batch(lease, index, "x" * 9_000)) for index in range(2)))
        assert driver.reply(replies.JobCompleted, completion(lease, 2)).state is JobState.COMPLETED
    assert (check_store(path).faults, check_store(path).events) == ((), 5)
    with opened(path) as (engine, _):
        engine._db.execute("UPDATE segment SET events = substr(events, 1, length(events) - 1) WHERE first_sequence = 3")
    assert [fault.job_id for fault in check_store(path).faults] == [lease.job_id]


def test_a_job_whose_spec_cannot_be_decoded_is_not_leased_and_those_behind_it_are(
    engine: SqliteEngine, driver: Driver
) -> None:
    first, second = driver.submit("first", "second")
    engine._db.execute("UPDATE job SET spec = x'c1' WHERE job_id = ?", (first,))
    assert [lease.job_id for lease in driver.lease(slots=2)] == [second]
    driver.refused("corrupt-log", requests.GetJob(job_id=first))
    assert driver.lease() == ()


@pytest.mark.parametrize("length", [3_500, 20_000])  # a row with a page of its own, and a value with several
def test_a_job_whose_row_cannot_be_read_or_written_costs_no_other(length: int, tmp_path: Path) -> None:
    """Whether it is met first by a request that names it, or by a lease; and though nothing else is written then."""
    path = tmp_path / "store.db"
    with opened(path) as (_, driver):
        words = ("first", "broken", "whole")  # the first lies where the table begins, and grows from
        first, broken, whole = (driver.submit(word * (length // len(word)))[0] for word in words)
    damage_page_with(path, b"brokenbroken", of_one_value=length > PAGE_BYTES)
    with opened(path) as (engine, driver):
        driver.draw(8)
        asks = driver.ask(requests.CancelJob(job_id=broken)), driver.ask(requests.CancelJob(job_id=first))
        refused, cancelled = (outcome.reply for outcome in driver.apply(*asks).done)
        assert code(refused) == "corrupt-log"
        assert cancelled == replies.JobCancelled(state=JobState.CANCELLED)
    with opened(path) as (engine, driver):
        assert [lease.job_id for lease in driver.lease(slots=3)] == [whole]
        driver.refused("corrupt-log", requests.GetJob(job_id=broken))
        assert engine.damage[1] == 1


def test_where_the_end_of_all_jobs_is_damaged_those_before_it_run_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with opened(path) as (_, driver):
        first, _, broken = (driver.submit(word * 700)[0] for word in ("first", "second", "broken"))
    damage_page_with(path, b"brokenbroken")
    with opened(path) as (_, driver):
        driver._drawn = 100  # not an id again
        driver.refused("corrupt-log", requests.EnqueueJob(jobs=(JobSpec(command="new"),)))
        assert driver.lease_one().job_id == first
        driver.refused("corrupt-log", requests.CancelJob(job_id=broken))


def test_damage_to_one_running_job_takes_neither_events_nor_leases_of_others(
    engine: SqliteEngine, driver: Driver
) -> None:
    """Met by what is written: events, ends, renewals and expiries."""
    driver.submit("broken", "whole", "brief")
    broken, whole, brief = driver.lease(slots=3)
    break_writes(engine, "INSERT ON segment", "new.number = 1")
    reply = driver.reply(
        replies.JobEventsPublished,
        requests.PublishJobEvents(
            batches=(batch(whole, 0, "a"), batch(broken, 0, "a"), batch(brief, 0, "a")),
            completions=(completion(broken, 1), completion(brief, 1)),
        ),
    )
    assert [stored.code for stored in reply.batches] == [None, "corrupt-log", None]
    refused, ended = reply.completions
    assert code(refused) == "corrupt-log"
    assert ended == replies.JobCompleted(state=JobState.COMPLETED)
    driver.refused("corrupt-log", release(broken))
    driver.refused("corrupt-log", requests.CancelJob(job_id=broken.job_id))
    driver.now_ms += VISIBILITY_MS + 1
    assert driver.apply(Expire()).next_due_ms is None
    assert [driver.state(lease.job_id) for lease in (broken, whole)] == [JobState.RUNNING, JobState.SCHEDULED]


def test_a_row_that_cannot_be_renewed_loses_its_lease_and_gets_no_period_at_a_start_and_no_other(
    engine: SqliteEngine, driver: Driver
) -> None:
    driver.submit("whole", "broken", "broken too")
    leases = driver.lease(slots=3)
    driver.now_ms += 1
    break_writes(engine, "UPDATE ON job", "old.number > 1")
    request = requests.UpdateJob(leases=tuple(lease.ref for lease in leases), visibility_ms=VISIBILITY_MS)
    verdicts = [lease.verdict for lease in driver.reply(replies.JobsUpdated, request).leases]
    assert verdicts == [replies.Verdict.KEPT, replies.Verdict.LOST, replies.Verdict.LOST]
    driver.now_ms += 10 * VISIBILITY_MS
    assert driver.renew_all().next_due_ms == driver.now_ms + VISIBILITY_MS
    assert engine.damage[1] == 2


def test_a_job_that_cannot_be_added_is_refused_and_the_others_are_taken(engine: SqliteEngine, driver: Driver) -> None:
    break_writes(engine, "INSERT ON job", "new.owner = 'o'")
    broken = driver.ask(requests.EnqueueJob(jobs=(JobSpec(command="a", owner="o"),)))
    whole = driver.ask(requests.EnqueueJob(jobs=(JobSpec(command="b"),)))
    refused, taken = (outcome.reply for outcome in driver.apply(broken, whole).done)
    assert code(refused) == "corrupt-log"
    assert driver.lease_one().job_id == taken.job_ids[0]


def test_a_request_whose_record_cannot_be_read_or_written_is_refused_and_the_others_are_answered(
    engine: SqliteEngine, driver: Driver
) -> None:
    request = requests.EnqueueJob(jobs=(JobSpec(command="a"),))
    driver.outcome(request, request_id=ID)
    engine._db.execute("UPDATE record SET job_ids = CAST(x'ff' AS TEXT)")
    outcomes = driver.apply(driver.ask(request, request_id=ID), driver.ask(request)).done
    assert [type(outcome.reply) for outcome in outcomes] == [replies.Refused, replies.JobsEnqueued]
    other = ID.replace(b"d", b"e")
    break_writes(engine, "INSERT ON record", f"new.request_id = x'{other.hex()}'")
    outcomes = driver.apply(driver.ask(request, request_id=other), driver.ask(request)).done
    assert [type(outcome.reply) for outcome in outcomes] == [replies.Refused, replies.JobsEnqueued]


def test_records_that_cannot_be_removed_stop_no_retention(engine: SqliteEngine, driver: Driver) -> None:
    driver.ended("a")
    break_writes(engine, "DELETE ON record", "TRUE")
    driver.now_ms += 10**9
    driver.sweep(finished_before_ms=driver.now_ms)
    assert driver.reply(replies.JobsListed, requests.ListJobs()).jobs == ()


def test_damage_that_no_job_and_no_request_is_about_ends_the_broker_in_words(
    engine: SqliteEngine, driver: Driver
) -> None:
    break_writes(engine, "INSERT ON queue", "TRUE")
    with pytest.raises(OperatorError, match="airunner store check") as raised:
        driver.submit("a")
    assert raised.value.exit_code == EXIT_IO
    assert "\n" not in raised.value.message
