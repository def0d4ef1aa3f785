"""What a job costs the store, held by counts: statements, and calls of functions. Rows are kept between batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final

import apsw
import pytest

from airunner.broker.lifecycle.commands import Applied, Expire
from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.errors import NoSpace
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobCompleted, JobEventsPublished, JobLease, JobsLeased
from airunner.protocol.requests import DequeueJob, EnqueueJob, PublishJobEvents
from tests.conformance.driving import START_MS, Driver, batch, completion
from tests.counting import counted_calls

FRAME_BYTES: Final = 4_096 + 24  # of a page in the journal
# Calls of functions, Python's own included, for a job whose three requests have so many jobs each, and some more.
CALLS_MAX: Final = {
    1: {"enqueue": 180, "lease": 262, "end": 215},
    64: {"enqueue": 32, "lease": 54, "end": 73},
}


def statements(engine: SqliteEngine, work: Callable[[], object]) -> Counter[str]:
    """Count the statements that `work` runs, by their first words."""
    found: Counter[str] = Counter()

    def note(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        words = sql.replace("INTO ", "").split()
        found[" ".join(words[:2]) if words[0] in ("INSERT", "UPDATE") else words[0]] += 1
        return True

    engine._db.exec_trace = note
    work()
    engine._db.exec_trace = None
    return found


def last_events(*leases: JobLease) -> PublishJobEvents:
    """Make the request that publishes an attempt's only events and completes it."""
    return PublishJobEvents(
        batches=tuple(batch(lease, 0, "a", "b") for lease in leases),
        completions=tuple(completion(lease, 2) for lease in leases),
    )


def test_a_life_of_one_job_takes_few_statements(engine: SqliteEngine, driver: Driver) -> None:
    driver.submit()
    driver.lease_one()  # now the store has seen the queue
    counters = {"BEGIN": 1, "INSERT queue": 2, "COMMIT": 1}  # the queue, and its tenant
    assert statements(engine, driver.submit) == {
        **counters,
        "SELECT": 1,  # whether the request was answered before
        "INSERT job": 1,
        "INSERT segment": 1,
        "INSERT record": 1,
    }
    leases: list[JobLease] = []
    assert statements(engine, lambda: leases.append(driver.lease_one())) == {
        **counters,
        "SELECT": 2,  # whether the request was answered before, and what waits
        "UPDATE job": 1,
        "INSERT segment": 1,
    }
    assert statements(engine, lambda: driver.reply(JobEventsPublished, last_events(*leases))) == {
        **counters,
        "SELECT": 1,  # what is due next, since this lease was due first
        "UPDATE job": 1,
        "INSERT segment": 2,
    }


def test_a_life_of_one_job_changes_few_pages(tmp_path: Path) -> None:
    """One page of each tree that has a row of it: each is written twice, and a lone request waits for the first."""
    journal = tmp_path / "store.db-wal"
    with closing(open_sqlite(tmp_path / "store.db")) as engine:
        driver = Driver(Store(engine))
        driver.submit(*["true"] * 1_000)  # so that no tree is one page
        for _ in range(2):  # rows grow as they are leased: the page of the first jobs has been split
            driver.reply(JobEventsPublished, last_events(driver.lease_one()))
        engine._run("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes: list[int] = [0]
        leases: list[JobLease] = []
        for work in (
            driver.submit,
            lambda: leases.append(driver.lease_one()),
            lambda: driver.reply(JobEventsPublished, last_events(*leases)),
        ):
            work()
            sizes.append(journal.stat().st_size // FRAME_BYTES)
    assert [after - before for before, after in pairwise(sizes)] == [12, 9, 8]


@pytest.mark.parametrize("in_batch", CALLS_MAX)
def test_a_job_takes_few_calls_of_functions(driver: Driver, in_batch: int) -> None:
    calls: Counter[str] = Counter()

    def counted(kind: str, work: Callable[[], Applied]) -> Applied:
        with counted_calls() as found:
            applied = work()
        calls[kind] = found.total()
        return applied

    for _ in range(2):  # the first time, caches are filled
        calls.clear()
        jobs = driver.ask(EnqueueJob(jobs=(JobSpec(command="true"),) * in_batch))
        counted("enqueue", lambda jobs=jobs: driver.store.apply([jobs], START_MS))
        dequeue = driver.ask(driver.dequeue(slots=in_batch))
        (leased,) = counted("lease", lambda dequeue=dequeue: driver.store.apply([dequeue], START_MS)).done
        assert isinstance(leased.reply, JobsLeased)
        end = driver.ask(last_events(*leased.reply.leases))
        (ended,) = counted("end", lambda end=end: driver.store.apply([end], START_MS)).done
        assert isinstance(ended.reply, JobEventsPublished)
        assert all(isinstance(completed, JobCompleted) for completed in ended.reply.completions)
    took = {kind: count / in_batch for kind, count in calls.items()}
    assert all(took[kind] <= most for kind, most in CALLS_MAX[in_batch].items()), took


def test_rows_of_a_batch_that_was_not_stored_are_forgotten(
    engine: SqliteEngine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.submit()
    lease = driver.lease_one()
    with monkeypatch.context() as patch:

        def full() -> None:
            engine._undo()
            raise NoSpace

        patch.setattr(engine, "commit", full)
        with pytest.raises(NoSpace):
            driver.publish(batch(lease, 0, "a"))
    assert driver.publish(batch(lease, 0, "a", "b")) == [(2, None)]
    assert [event.body.data for event in driver.log(lease.job_id)[2:]] == [b"a", b"b"]


def test_a_row_that_is_kept_is_that_of_its_own_tenant_only(driver: Driver) -> None:
    driver.submit()
    lease = driver.lease_one()
    refused = driver.reply(JobEventsPublished, last_events(lease), tenant="other")
    assert [batch.code for batch in refused.batches] == ["not-found"]


def test_the_next_instant_is_known_whatever_changes(driver: Driver) -> None:
    engine = driver.store.engine

    def require_right(applied: Applied) -> int | None:
        assert applied.next_due_ms == engine.next_due_ms()
        return applied.next_due_ms

    def step(*requests: EnqueueJob | DequeueJob | PublishJobEvents) -> Applied:
        return driver.apply(*(driver.ask(request) for request in requests))

    assert require_right(step(EnqueueJob(jobs=(JobSpec(command="true"),) * 3))) is None
    first = step(driver.dequeue(slots=1))
    early_ms = require_right(first)
    driver.now_ms += 1_000
    assert require_right(step(driver.dequeue(slots=1))) == early_ms
    (leased,) = first.done
    assert isinstance(leased.reply, JobsLeased)
    assert require_right(step(last_events(*leased.reply.leases))) == early_ms + 1_000
    soon = JobSpec(command="true", not_before_ms=driver.now_ms + 10)
    assert require_right(step(EnqueueJob(jobs=(soon,)))) == soon.not_before_ms
    driver.now_ms += 20
    assert require_right(driver.apply(Expire())) == early_ms + 1_000
