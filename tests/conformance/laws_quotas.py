"""The laws of what a tenant may have, that every Store keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from airunner.broker.quotas import Quotas
from airunner.protocol.job import JobSpec, JobState, encode_spec
from airunner.protocol.messages import CancelJob, EnqueueJob, JobsEnqueued, PublishJobEvents, RetryJob
from airunner.protocol.retrypolicy import RetryPolicy
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion, release

JOB: Final = JobSpec(command="true")
SPEC_BYTES: Final = len(encode_spec(JOB))
PIECE: Final = "x" * 10_000


def _jobs(count: int) -> EnqueueJob:
    return EnqueueJob(jobs=(JOB,) * count)


def no_more_jobs_wait_than_a_tenant_may_have(driver: Driver) -> None:
    driver.quotas = Quotas(waiting_max=3)
    driver.reply(JobsEnqueued, _jobs(2))
    driver.refused("quota", _jobs(2))
    driver.reply(JobsEnqueued, _jobs(1))
    driver.refused("quota", _jobs(1))
    driver.reply(JobsEnqueued, _jobs(3), tenant="other")
    driver.refused("quota", _jobs(1), tenant="other")


def what_was_submitted_before_is_answered_though_the_quota_is_reached(driver: Driver) -> None:
    driver.quotas = Quotas(waiting_max=1)
    first = driver.reply(JobsEnqueued, _jobs(1), request_id=b"0123456789abcdef")
    assert driver.reply(JobsEnqueued, _jobs(1), request_id=b"0123456789abcdef") == first


def whatever_ends_a_wait_makes_room_and_whatever_begins_one_takes_it(driver: Driver) -> None:
    driver.quotas = Quotas(waiting_max=1)
    retried = JobSpec(command="true", retry=RetryPolicy(limit=1, backoff_ms=1_000, backoff_max_ms=1_000))
    (job_id,) = driver.enqueue(retried)
    lease = driver.lease_one()
    (second,) = driver.reply(JobsEnqueued, _jobs(1)).job_ids
    driver.reply(object, CancelJob(job_id=second))
    driver.reply(object, release(lease))
    driver.refused("quota", _jobs(1))
    lease = driver.lease_one()
    driver.pass_ms(VISIBILITY_MS)
    driver.refused("quota", _jobs(1))
    lease = driver.lease_one()
    driver.reply(object, completion(lease, exit_code=1))
    assert driver.job(job_id).due_ms is not None
    driver.refused("quota", _jobs(1))
    driver.pass_ms(1_000)
    driver.refused("quota", _jobs(1))
    assert driver.complete(driver.lease_one()) is JobState.COMPLETED
    driver.reply(JobsEnqueued, RetryJob(job_id=job_id))
    driver.refused("quota", RetryJob(job_id=job_id))


def what_a_tenant_keeps_is_bounded_in_bytes_and_what_runs_goes_on(driver: Driver) -> None:
    driver.submit()
    lease = driver.lease_one()
    driver.quotas = Quotas(bytes_max=3 * len(PIECE))
    for index in range(3):
        driver.reply(JobsEnqueued, _jobs(1))
        driver.reply(object, PublishJobEvents(batches=(batch(lease, index, PIECE),)))
    driver.refused("quota", _jobs(1))
    driver.reply(JobsEnqueued, _jobs(1), tenant="other")
    driver.reply(object, PublishJobEvents(batches=(batch(lease, 3, PIECE),), completions=(completion(lease, 4),)))
    assert driver.state(lease.job_id) is JobState.COMPLETED
    driver.refused("quota", RetryJob(job_id=lease.job_id))


def what_is_removed_makes_room(driver: Driver) -> None:
    for _ in range(3):
        driver.submit()
        lease = driver.lease_one()
        last = PublishJobEvents(batches=(batch(lease, 0, PIECE),), completions=(completion(lease, 1),))
        driver.reply(object, last)
    driver.quotas = Quotas(bytes_max=SPEC_BYTES)
    driver.refused("quota", _jobs(1))
    while driver.retain(finished_before_ms=driver.now_ms + 1).more:
        pass
    driver.reply(JobsEnqueued, _jobs(1))
    driver.refused("quota", _jobs(1))


LAWS: Final[tuple[Callable[[Driver], None], ...]] = (
    no_more_jobs_wait_than_a_tenant_may_have,
    what_was_submitted_before_is_answered_though_the_quota_is_reached,
    whatever_ends_a_wait_makes_room_and_whatever_begins_one_takes_it,
    what_a_tenant_keeps_is_bounded_in_bytes_and_what_runs_goes_on,
    what_is_removed_makes_room,
)
