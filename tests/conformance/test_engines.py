"""SQLite keeps every law; and no harm is done where others change the jobs of a batch, or secrets are damaged."""

from __future__ import annotations

from contextlib import closing

import pytest

from airunner.broker.store.batch import TRIES_MAX, Store
from airunner.broker.store.contract import Moved
from airunner.broker.store.rows import Changes, SecretRow
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.errors import Busy, CorruptLog
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobsLeased, QueuesListed, Refused
from airunner.protocol.requests import EnqueueJob, ListQueues
from tests.conformance import counters, laws_log
from tests.conformance.conflicts import Unchecked
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS
from tests.conformance.memory import MemoryEngine


@pytest.mark.parametrize("law", LAWS)
def test_an_engine_keeps_the_law_and_counts_right(law: str):
    with closing(open_sqlite(None)) as engine:
        LAWS[law](Driver(Store(engine)))
        counters.require_right(engine)


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
