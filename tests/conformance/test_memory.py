"""An engine of dicts keeps the law, alone and beside another broker."""

from __future__ import annotations

import pytest
from hypothesis import settings

from airunner.broker.store.batch import TRIES_MAX, Store
from airunner.broker.store.contract import Changes, Moved, SecretRow
from airunner.protocol.errors import Busy, CorruptLog
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobsLeased, QueuesListed, Refused
from airunner.protocol.requests import EnqueueJob, ListQueues
from tests.conformance import laws_log
from tests.conformance.conflicts import Conflicting, Unchecked
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS
from tests.conformance.machine import StoreAndModel
from tests.conformance.memory import MemoryEngine


@pytest.mark.parametrize("law", LAWS)
def test_in_dicts(law: str):
    LAWS[law](Driver(Store(MemoryEngine())))


@pytest.mark.parametrize("law", LAWS)
def test_beside_another_broker(law: str):
    engine = Conflicting()
    LAWS[law](Driver(Store(engine)))
    assert engine.conflicts


class BesideAnotherBroker(StoreAndModel):
    make = staticmethod(lambda: Store(Conflicting()))


TestBesideAnotherBroker = pytest.mark.timeout(120)(BesideAnotherBroker.TestCase)
TestBesideAnotherBroker.settings = settings(max_examples=40, stateful_step_count=50)


def test_a_save_without_its_version_check_is_found():
    with pytest.raises(AssertionError):
        laws_log.repeats_are_stored_once(Driver(Store(Unchecked())))


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
    refused, leased = driver.apply(driver.ask(driver.dequeue(slots=2)), driver.ask(driver.dequeue())).outcomes
    assert isinstance(refused.reply, Refused)
    assert (refused.reply.code, refused.appended, refused.exhausted) == ("corrupt-log", (), frozenset())
    assert isinstance(leased.reply, JobsLeased)
    assert [(lease.job_id, lease.attempt) for lease in leased.reply.leases] == [(plain, 1)]
