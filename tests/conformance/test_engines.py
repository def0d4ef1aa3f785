"""Engines of stores: each keeps every law, and does what the model does, alone and beside another broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from airunner.broker.store.batch import TRIES_MAX, Store
from airunner.broker.store.contract import Engine, Moved
from airunner.broker.store.rows import Changes, SecretRow
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.errors import Busy, CorruptLog
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobsLeased, QueuesListed, Refused
from airunner.protocol.requests import EnqueueJob, ListQueues
from tests.conformance import counters, laws_log
from tests.conformance.announced import Announced
from tests.conformance.bounded import Bounded
from tests.conformance.conflicts import Conflicting, Unchecked
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS
from tests.conformance.machine import StoreAndModel
from tests.conformance.memory import MemoryEngine


@pytest.fixture(
    params=[lambda: open_sqlite(None), Conflicting, Announced, Bounded],
    ids=["sqlite", "dicts-beside-another-broker", "announced", "bounded"],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with closing(request.param()) as engine:
        yield engine
        if isinstance(engine, Conflicting):
            assert engine.conflicts
        elif isinstance(engine, SqliteEngine):
            counters.require_right(engine)


@pytest.mark.parametrize("law", LAWS)
def test_an_engine_keeps_the_law_and_counts_right(law: str, engine: Engine):
    LAWS[law](Driver(Store(engine)))


@pytest.mark.parametrize("seed", range(16))
def test_an_engine_does_what_the_model_does_and_counts_right(seed: int, engine: Engine):
    StoreAndModel(Store(engine), seed).run()


def test_a_save_without_its_version_check_is_found():
    with pytest.raises(AssertionError):
        laws_log.what_is_stored_is_published_once_though_it_is_repeated(Driver(Store(Unchecked())))


class Fought(MemoryEngine):
    """Others are at every job all the time."""

    saves = 0

    def save(self, changes: Changes) -> None:
        self.saves += 1
        super().save(changes)
        self._now = self._saved
        raise Moved


def test_what_is_moved_again_and_again_is_for_later_and_leaves_nothing():
    engine = Fought()
    driver = Driver(Store(engine))
    with pytest.raises(Busy):
        driver.apply(driver.ask(EnqueueJob(jobs=(JobSpec(command="true"),))))
    assert engine.saves == TRIES_MAX
    assert driver.reply(QueuesListed, ListQueues()).queues == ()


class Damaged(MemoryEngine):
    """The sealed secrets cannot be read."""

    def boxes(self, *_: str) -> dict[str, SecretRow]:
        raise CorruptLog


def test_a_lease_that_is_refused_for_damaged_secrets_takes_no_job_and_hides_none():
    driver = Driver(Store(Damaged()))
    plain, _ = driver.enqueue(JobSpec(command="a"), JobSpec(command="b", secrets=("S",)))
    refused, leased = driver.apply(driver.ask(driver.dequeue(slots=2)), driver.ask(driver.dequeue())).done
    assert isinstance(refused.reply, Refused)
    assert (refused.reply.code, refused.news.appended, refused.news.exhausted) == ("corrupt-log", [], set())
    assert isinstance(leased.reply, JobsLeased)
    assert [(lease.job_id, lease.attempt) for lease in leased.reply.leases] == [(plain, 1)]
