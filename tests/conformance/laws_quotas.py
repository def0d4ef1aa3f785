"""The laws of what a tenant may have, that every Store keeps."""

from __future__ import annotations

from typing import Final

from airunner.broker.lifecycle.retention import RECORDS_KEPT_MS
from airunner.broker.store.quotas import Quotas
from airunner.broker.store.room import Room
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, encode_spec
from airunner.protocol.replies import JobCompleted, JobEventsPublished, JobsEnqueued, QueueMode, Refused
from airunner.protocol.requests import (
    LAST_BYTES_MAX,
    EnqueueJob,
    PublishJobEvents,
    RemoveSecret,
    RetryJob,
    SetSecret,
    UpdateQueue,
)
from tests.conformance.driving import Driver, batch, completion

JOB: Final = JobSpec(command="true")
SPEC_BYTES: Final = len(encode_spec(JOB))
PIECE: Final = "x" * 10_000


def _jobs(count: int) -> EnqueueJob:
    return EnqueueJob(jobs=(JOB,) * count)


def no_more_jobs_wait_than_a_tenant_may_have(driver: Driver) -> None:
    (done,) = driver.ended()
    driver.quotas = Quotas(waiting_max=3)
    first = driver.reply(JobsEnqueued, _jobs(2), request_id=b"0123456789abcdef")
    driver.refused("quota", _jobs(2))
    driver.reply(JobsEnqueued, _jobs(1))
    driver.refused("quota", _jobs(1))
    driver.refused("quota", RetryJob(job_id=done))
    assert driver.reply(JobsEnqueued, _jobs(2), request_id=b"0123456789abcdef") == first, "it was submitted before"
    driver.reply(JobsEnqueued, _jobs(3), tenant="other")
    driver.refused("quota", _jobs(1), tenant="other")


def what_a_tenant_keeps_is_bounded_in_bytes_and_what_runs_goes_on(driver: Driver) -> None:
    lease = driver.started()
    driver.quotas = Quotas(bytes_max=3 * len(PIECE))
    for index in range(3):
        driver.reply(JobsEnqueued, _jobs(1))
        driver.publish(batch(lease, index, PIECE))
    driver.refused("quota", _jobs(1))
    driver.reply(JobsEnqueued, _jobs(1), tenant="other")
    driver.reply(object, PublishJobEvents(batches=(batch(lease, 3, PIECE),), completions=(completion(lease, 4),)))
    assert driver.state(lease.job_id) is JobState.COMPLETED
    driver.refused("quota", RetryJob(job_id=lease.job_id))


def what_is_removed_makes_room(driver: Driver) -> None:
    for _ in range(3):
        lease = driver.started()
        last = PublishJobEvents(batches=(batch(lease, 0, PIECE),), completions=(completion(lease, 1),))
        driver.reply(object, last)
    driver.quotas = Quotas(bytes_max=SPEC_BYTES)
    driver.refused("quota", _jobs(1))
    driver.now_ms += 2 * RECORDS_KEPT_MS
    driver.sweep(finished_before_ms=driver.now_ms)
    driver.reply(JobsEnqueued, _jobs(1))
    driver.refused("quota", _jobs(1))


def a_queue_that_is_kept_without_jobs_is_something_that_a_tenant_has(driver: Driver) -> None:
    """What makes an end of something is let through."""
    driver.set_mode(QueueMode.PAUSED, "before")
    driver.submit(queue="used")
    driver.reply(object, SetSecret(queue="q", name="S", box=b"sealed"))
    driver.quotas = Quotas(bytes_max=0)
    driver.refused("quota", UpdateQueue(queue="new", mode=QueueMode.PAUSED))
    driver.refused("quota", UpdateQueue(queue="new", mode=QueueMode.DRAINING))
    driver.refused("quota", SetSecret(queue="q", name="T", box=b"sealed"))
    for name in ("used", "before"):
        driver.set_mode(QueueMode.DRAINING, name)
        driver.set_mode(QueueMode.OPEN, name)
    driver.set_mode(QueueMode.OPEN, "new")
    driver.refused("quota", UpdateQueue(queue="before", mode=QueueMode.PAUSED))
    driver.reply(object, RemoveSecret(queue="q", name="S"))
    driver.refused("no-space", UpdateQueue(queue="new", mode=QueueMode.PAUSED), room=Room.RUNNING)
    driver.quotas = Quotas()
    driver.set_mode(QueueMode.PAUSED, "new")


def a_remembered_answer_is_something_that_a_tenant_has(driver: Driver) -> None:
    """Until it is forgotten, though what it is about is not there any more."""
    driver.quotas = Quotas(bytes_max=2_000)
    changes = 0
    while (
        not isinstance(driver.outcome(UpdateQueue(queue="q", mode=QueueMode.PAUSED)).reply, Refused) and changes < 100
    ):
        driver.set_mode(QueueMode.OPEN, "q")
        changes += 2
    assert changes < 100
    driver.refused("quota", _jobs(1))
    driver.now_ms += 2 * RECORDS_KEPT_MS
    driver.sweep(finished_before_ms=driver.now_ms)
    driver.reply(JobsEnqueued, _jobs(1))


def what_runs_may_log_until_its_tenant_has_twice_as_much(driver: Driver) -> None:
    """A repeat is answered, the others go on, and what is refused comes later."""
    lease = driver.started()
    driver.quotas = Quotas(bytes_max=2 * len(PIECE))
    published = 0
    while driver.publish(batch(lease, published, PIECE)) == [(published + 1, None)]:
        published += 1
        assert published < 5
    assert published in (3, 4)
    assert driver.publish(batch(lease, published - 1, PIECE)) == [(published, None)], "it is stored already"
    assert driver.publish(batch(lease, published, "x")) == [(published, "quota")]
    others = driver.started(tenant="other")
    assert driver.publish(batch(others, 0, PIECE), tenant="other") == [(1, None)]
    driver.quotas = Quotas(bytes_max=3 * len(PIECE))
    assert driver.publish(batch(lease, published, PIECE)) == [(published + 1, None)]


def a_small_end_is_let_through_and_a_large_one_waits(driver: Driver) -> None:
    driver.submit("small", "large")
    small, large = driver.lease(slots=2)
    driver.quotas = Quotas(bytes_max=0)
    much = [batch(large, index, PIECE) for index in range(LAST_BYTES_MAX // len(PIECE) + 1)]
    request = PublishJobEvents(
        batches=(*much, batch(small, 0, PIECE)), completions=(completion(large, len(much)), completion(small, 1))
    )
    reply = driver.reply(JobEventsPublished, request)
    assert [one.code for one in reply.batches] == ["quota", *["index-gap"] * (len(much) - 1), None]
    refused, ended = reply.completions
    assert isinstance(refused, Refused)
    assert (refused.code, refused.expected_index) == ("incomplete-log", 0)
    assert ended == JobCompleted(state=JobState.COMPLETED)
    assert driver.complete(large) is JobState.COMPLETED, "an end without a log takes no room"
