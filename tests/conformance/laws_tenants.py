"""The laws that keep tenants apart where their names are the same, that every Store keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from airunner.broker.store.needs import NEEDS_MAX
from airunner.broker.store.quotas import Quotas
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.queues import QueueMode, QueueSummary
from airunner.protocol.replies import JobsLeased, QueuesListed, QueueUpdated, SecretRemoved, SecretSet, SecretsListed
from airunner.protocol.requests import (
    BOX_BYTES_MAX,
    BOXES_BYTES_MAX,
    ENQUEUE_MAX,
    CancelJob,
    EnqueueJob,
    ListQueues,
    ListSecrets,
    RemoveSecret,
    SetSecret,
    UpdateQueue,
)
from tests.conformance.driving import VISIBILITY_MS, Driver

ID: Final = b"r" * REQUEST_ID_BYTES
OTHER: Final = "other"


def _queues(driver: Driver, tenant: str) -> tuple[QueueSummary, ...]:
    return driver.reply(QueuesListed, ListQueues(), tenant=tenant).queues


def _update(driver: Driver, mode: QueueMode, tenant: str) -> None:
    driver.reply(QueueUpdated, UpdateQueue(queue="default", mode=mode), tenant=tenant)


def _fill(driver: Driver, tenant: str) -> None:
    """As many sealed bytes as a queue holds."""
    for number in range(BOXES_BYTES_MAX // BOX_BYTES_MAX):
        box = SetSecret(queue="default", name=f"S{number}", box=bytes(BOX_BYTES_MAX))
        driver.reply(SecretSet, box, tenant=tenant)


def the_needs_of_one_crowd_out_no_others(driver: Driver) -> None:
    kinds = [JobSpec(command="true", require={"n": str(number)}) for number in range(NEEDS_MAX)]
    for first in range(0, NEEDS_MAX, ENQUEUE_MAX):
        driver.enqueue(*kinds[first : first + ENQUEUE_MAX], tenant=OTHER)
    one_more = EnqueueJob(jobs=(JobSpec(command="true", require={"n": "more"}),))
    driver.refused("bad-request", one_more, tenant=OTHER)
    driver.enqueue(*one_more.jobs)


def what_another_needs_stands_before_no_job_of_ones_own(driver: Driver) -> None:
    driver.enqueue(JobSpec(command="true", require={"a": "1"}), tenant=OTHER)
    (ours,) = driver.enqueue(JobSpec(command="true", require={"b": "1"}))
    leased = driver.reply(JobsLeased, driver.dequeue(tags={"a": "1", "b": "1"}))
    assert [lease.job_id for lease in leased.leases] == [ours]


def what_needs_as_much_as_anothers_that_ended_is_still_found(driver: Driver) -> None:
    tags = {"a": "1"}
    theirs = driver.enqueue(*[JobSpec(command="true", require=tags)] * 2, tenant=OTHER)
    (ours,) = driver.enqueue(JobSpec(command="true", require=tags))
    driver.cancel(ours)
    driver.reply(object, CancelJob(job_id=theirs[0]), tenant=OTHER)
    leased = driver.reply(JobsLeased, driver.dequeue(tags=tags), tenant=OTHER)
    assert [lease.job_id for lease in leased.leases] == [theirs[1]]


def the_ends_of_ones_waits_make_no_room_for_another(driver: Driver) -> None:
    driver.submit(tenant=OTHER)
    driver.submit()
    driver.quotas = Quotas(waiting_max=1)
    driver.lease_one()
    driver.refused("quota", EnqueueJob(jobs=(JobSpec(command="true"),)), tenant=OTHER)
    driver.submit()


def the_jobs_of_one_are_counted_in_no_queue_of_another(driver: Driver) -> None:
    driver.submit("waiting", "running", tenant=OTHER)
    driver.lease(tenant=OTHER)
    before = _queues(driver, OTHER)
    driver.submit("a", "b")
    driver.complete(driver.lease_one())
    driver.lease_one()
    driver.pass_ms(VISIBILITY_MS - 1)
    assert _queues(driver, OTHER) == before


def the_oldest_of_a_queue_is_its_own_tenants(driver: Driver) -> None:
    driver.submit(tenant=OTHER)
    driver.now_ms += 5_000
    driver.submit()
    assert driver.queue().oldest_ms == driver.now_ms


def who_opens_a_queue_opens_no_others_of_its_name(driver: Driver) -> None:
    _update(driver, QueueMode.PAUSED, OTHER)
    _update(driver, QueueMode.PAUSED, "home")
    _update(driver, QueueMode.OPEN, "home")
    assert [one.mode for one in _queues(driver, OTHER)] == [QueueMode.PAUSED]
    driver.submit(tenant=OTHER)
    assert driver.lease(tenant=OTHER) == ()


def an_empty_queue_that_is_opened_is_gone_whoever_uses_its_name(driver: Driver) -> None:
    driver.submit(tenant=OTHER)
    _update(driver, QueueMode.PAUSED, "home")
    _update(driver, QueueMode.OPEN, "home")
    assert _queues(driver, "home") == ()
    assert len(_queues(driver, OTHER)) == 1


def a_queue_goes_with_its_own_tenants_last_job(driver: Driver) -> None:
    driver.ended("old")
    driver.now_ms += 10
    (job_id,) = driver.submit(tenant=OTHER)
    driver.reply(object, CancelJob(job_id=job_id), tenant=OTHER)
    while driver.retain(finished_before_ms=driver.now_ms).more:
        pass
    assert _queues(driver, "home") == ()
    assert len(_queues(driver, OTHER)) == 1, "its job is still there"


def the_same_request_and_seed_are_granted_to_each_its_own(driver: Driver) -> None:
    """And a repeat gives the other's lease no time."""
    (theirs,) = driver.submit(tenant=OTHER)
    request = driver.dequeue()
    granted = driver.reply(JobsLeased, request, tenant=OTHER, request_id=ID)
    assert driver.reply(JobsLeased, request, request_id=ID) == JobsLeased(), "nothing of ours waits"
    (ours,) = driver.submit()
    driver.now_ms += VISIBILITY_MS // 2
    for _ in range(2):
        leased = driver.reply(JobsLeased, request, request_id=ID)
        assert [lease.job_id for lease in leased.leases] == [ours]
    assert [lease.job_id for lease in granted.leases] == [theirs]
    driver.pass_ms(VISIBILITY_MS // 2)
    assert driver.job(theirs, tenant=OTHER).state is JobState.SCHEDULED, "its time is over"
    assert driver.state(ours) is JobState.RUNNING


def the_boxes_of_one_leave_anothers_queue_its_room(driver: Driver) -> None:
    _fill(driver, OTHER)
    _fill(driver, "home")
    driver.refused("quota", SetSecret(queue="default", name="MORE", box=bytes(BOX_BYTES_MAX)))


def who_removes_a_secret_removes_no_others_of_its_name(driver: Driver) -> None:
    for tenant in ("home", OTHER):
        driver.reply(SecretSet, SetSecret(queue="default", name="A", box=tenant.encode()), tenant=tenant)
    driver.reply(SecretRemoved, RemoveSecret(queue="default", name="A"))
    assert driver.reply(SecretsListed, ListSecrets()).secrets == ()
    driver.enqueue(JobSpec(command="true", secrets=("A",)), tenant=OTHER)
    (lease,) = driver.lease(tenant=OTHER)
    assert lease.sealed == {"A": OTHER.encode()}


LAWS: Final[tuple[Callable[[Driver], None], ...]] = (
    the_needs_of_one_crowd_out_no_others,
    what_another_needs_stands_before_no_job_of_ones_own,
    what_needs_as_much_as_anothers_that_ended_is_still_found,
    the_ends_of_ones_waits_make_no_room_for_another,
    the_jobs_of_one_are_counted_in_no_queue_of_another,
    the_oldest_of_a_queue_is_its_own_tenants,
    who_opens_a_queue_opens_no_others_of_its_name,
    an_empty_queue_that_is_opened_is_gone_whoever_uses_its_name,
    a_queue_goes_with_its_own_tenants_last_job,
    the_same_request_and_seed_are_granted_to_each_its_own,
    the_boxes_of_one_leave_anothers_queue_its_room,
    who_removes_a_secret_removes_no_others_of_its_name,
)
