"""Lifecycle events in `Changes`: what the broker itself appends, in order, for the engine that announces it."""

from __future__ import annotations

from itertools import chain
from typing import Final, get_args

import pytest

from airunner.broker.store.batch import Store
from airunner.broker.store.rows import Changes
from airunner.protocol.events import BrokerBody, Event
from airunner.protocol.fields import JobSpec
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.requests import CancelJob, EnqueueJob
from tests.conformance.driving import Driver, batch, release
from tests.conformance.machine import StoreAndModel
from tests.conformance.memory import MemoryEngine

Places = list[tuple[int, int]]
RETRIED: Final = JobSpec(command="false", retry=RetryPolicy(limit=1, backoff_ms=0))


class Announcing(MemoryEngine):
    """Wants the lifecycle events, and keeps them."""

    announces = True

    def __init__(self) -> None:
        super().__init__()
        self.announced: Places = []

    def save(self, changes: Changes) -> None:
        super().save(changes)
        self.announced += changes.lifecycle


def by_broker(driver: Driver, job_id: str, *, tenant: str = "home") -> list[Event]:
    return [event for event in driver.log(job_id, tenant=tenant) if isinstance(event.body, get_args(BrokerBody))]


def test_each_step_of_a_job_is_announced_in_order_and_its_output_is_not():
    engine = Announcing()
    driver = Driver(Store(engine))
    (job_id,) = driver.enqueue(RETRIED)
    driver.reply(object, release(driver.lease_one()))
    lease = driver.lease_one()
    driver.publish(batch(lease, 0, "some", "output"))
    driver.pass_ms(1_000_000)
    driver.cancel(job_id)
    steps = [event.sequence for event in by_broker(driver, job_id)]
    assert steps == [1, 2, 3, 4, 7, 8, 9]
    assert engine.announced == [(1, sequence) for sequence in steps]


@pytest.mark.parametrize("seed", range(4))
def test_the_model_s_jobs_are_announced_whole_and_each_once(seed: int):
    engine = Announcing()
    both = StoreAndModel(Store(engine), seed)
    both.run()
    logged = [by_broker(both.driver, job.job_id, tenant=job.tenant) for job in both.model.jobs]
    numbers = engine._saved.numbers
    stored = {(numbers[event.job_id], event.sequence) for event in chain(*logged)}
    left = [place for place in engine.announced if place[0] in numbers.values()]
    assert sorted(left) == sorted(stored)


def test_an_engine_that_announces_nothing_gets_none():
    driver = Driver(Store(MemoryEngine()))
    driver.submit()
    applied = driver.apply(driver.ask(driver.dequeue()))
    assert applied.changes is not None
    assert applied.changes.segments
    assert not applied.changes.lifecycle


def test_a_job_whose_list_of_dependents_is_damaged_is_set_aside_and_no_other():
    engine = MemoryEngine()
    driver = Driver(Store(engine))
    (first,) = driver.submit()
    driver.enqueue(JobSpec(command="b", after=(first,)))
    engine._saved.jobs[engine._saved.numbers[first]].dependents = b"\xff"
    driver.refused("corrupt-log", CancelJob(job_id=first))
    driver.refused("corrupt-log", EnqueueJob(jobs=(JobSpec(command="c", after=(first,)),)))
    driver.submit()
