"""The laws of removing what has finished that every Store keeps."""

from __future__ import annotations

from airunner.broker.lifecycle.retention import (
    BYTES_PER_STEP,
    JOBS_PER_STEP,
    PIECES_PER_STEP,
    RECORDS_KEPT_MS,
    RECORDS_PER_STEP,
    SEGMENTS_PER_PIECE,
)
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.replies import JobLease, JobsEnqueued, JobsListed, JobsUpdated, QueuesListed, Verdict
from airunner.protocol.requests import (
    PAGE_SIZE_MAX,
    CancelJob,
    EnqueueJob,
    GetJob,
    ListJobs,
    ListQueues,
    ReplayJobEvents,
    RetryJob,
    SearchLog,
    UpdateJob,
    WatchJob,
)
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, batch, completion

ID = b"r" * REQUEST_ID_BYTES
SEGMENTS_PER_STEP = PIECES_PER_STEP * SEGMENTS_PER_PIECE


def _there(driver: Driver, *, tenant: str = "home") -> set[str]:
    return {job.id for job in driver.reply(JobsListed, ListJobs(page_size=PAGE_SIZE_MAX), tenant=tenant).jobs}


def _large(driver: Driver, runs: int, run_bytes: int, *, tenant: str = "home") -> str:
    """A finished job with a log of so many runs."""
    lease = _running(driver, runs, run_bytes, tenant=tenant)
    driver.reply(object, completion(lease, runs), tenant=tenant)
    return lease.job_id


def _running(driver: Driver, runs: int, run_bytes: int, *, tenant: str = "home") -> JobLease:
    lease = driver.started(tenant=tenant)
    for index in range(runs):
        driver.publish(batch(lease, index, "x" * run_bytes), tenant=tenant)
    return lease


def a_removed_job_is_gone_for_every_reader_at_once(driver: Driver) -> None:
    (job_id,) = driver.enqueue(JobSpec(command="a", owner="o", metadata={"k": "v"}))
    lease = driver.lease_one()
    driver.publish(batch(lease, 0, "x"))
    driver.reply(object, completion(lease, 1))
    assert driver.retain(finished_before_ms=driver.now_ms + 1).news.more
    for request in (
        GetJob(job_id=job_id),
        WatchJob(job_id=job_id),
        ReplayJobEvents(job_id=job_id),
        SearchLog(job_id=job_id),
        CancelJob(job_id=job_id),
        RetryJob(job_id=job_id),
        completion(lease, 1),
        ListJobs(before=job_id),
    ):
        driver.refused("not-found", request)
    for listing in (ListJobs(), ListJobs(owner="o"), ListJobs(metadata={"k": "v"}), ListJobs(queue="default")):
        assert driver.reply(JobsListed, listing).jobs == ()
    updated = driver.reply(JobsUpdated, UpdateJob(leases=(lease.ref,), visibility_ms=VISIBILITY_MS))
    assert updated.leases[0].verdict is Verdict.LOST
    assert driver.reply(QueuesListed, ListQueues()).queues == ()


def a_large_log_goes_in_several_steps_and_its_job_at_once(driver: Driver) -> None:
    many = _large(driver, 2 * SEGMENTS_PER_STEP + 1, 1)
    assert driver.retain(finished_before_ms=driver.now_ms + 1).news.more
    assert _there(driver) == set()
    driver.refused("not-found", ReplayJobEvents(job_id=many))
    new = _running(driver, 3, 1)
    assert driver.sweep(finished_before_ms=driver.now_ms + 1) >= 3
    driver.reply(object, completion(new, 3))
    sequences = [event.sequence for event in driver.log(new.job_id)]
    assert sequences == list(range(1, 7)), "nothing of the old is in the new, which came before all of that was removed"


def a_log_of_large_runs_goes_in_several_steps(driver: Driver) -> None:
    lease = driver.started()
    piece, runs = "x" * 60_000, 2 * BYTES_PER_STEP // 480_000
    assert runs < SEGMENTS_PER_STEP, "it is their size that is too much for one step"
    for run in range(runs):
        driver.publish(batch(lease, 8 * run, *[piece] * 8))
    driver.reply(object, completion(lease, 8 * runs))
    assert driver.retain(finished_before_ms=driver.now_ms + 1).news.more
    assert driver.sweep(finished_before_ms=driver.now_ms + 1) >= 3


def very_many_old_jobs_go_in_steps_the_oldest_first(driver: Driver) -> None:
    jobs = [job_id for _ in range(JOBS_PER_STEP // 8 + 1) for job_id in driver.submit(*"abcdefgh")]
    for job_id in reversed(jobs):
        driver.cancel(job_id)
        driver.now_ms += 1
    assert driver.retain(finished_before_ms=driver.now_ms).news.more
    left = len(_there(driver))
    assert driver.is_step(len(jobs) - left, JOBS_PER_STEP)
    assert _there(driver) == set(jobs[:left])
    assert driver.sweep(finished_before_ms=driver.now_ms) <= 7, "the logs of many jobs go in one step"
    assert _there(driver) == set()


def a_store_that_is_too_large_loses_the_oldest_and_no_more_than_it_must(driver: Driver) -> None:
    jobs: list[str] = []
    for _ in range(6):
        jobs.append(_large(driver, 5, 60_000))
        driver.now_ms += 1
    assert driver.sweep(store_bytes_max=2**40) == 1
    assert _there(driver) == set(jobs)
    driver.sweep(store_bytes_max=1_200_000)
    left = _there(driver)
    assert left == set(jobs[-len(left) :]), "the oldest went first"
    assert 2 <= len(left) <= 4
    assert driver.sweep(store_bytes_max=1_200_000) == 1, "it is small enough"
    driver.sweep(store_bytes_max=0)
    assert _there(driver) == set()


def what_one_tenant_takes_costs_no_other_its_finished_jobs(driver: Driver) -> None:
    """Though they are the oldest; and though what takes so much has not ended."""
    others = {_large(driver, 2, 60_000, tenant="other") for _ in range(2)}
    driver.now_ms += 1
    old = _large(driver, 1, 60_000)
    lease = _running(driver, 20, 60_000)
    (waiting,) = driver.submit()
    driver.sweep(store_bytes_max=1_000_000)
    assert _there(driver) == {lease.job_id, waiting}, "the oldest of the largest tenant has gone"
    assert old not in _there(driver)
    assert _there(driver, tenant="other") == others
    driver.reply(object, completion(lease, 20))
    driver.sweep(store_bytes_max=1_000_000)
    assert (_there(driver), _there(driver, tenant="other")) == ({waiting}, others)
    driver.sweep(finished_before_ms=2**50, store_bytes_max=0)
    assert (_there(driver), _there(driver, tenant="other")) == ({waiting}, set()), "what waits is never removed"


def a_request_is_remembered_until_its_own_age(driver: Driver) -> None:
    request = EnqueueJob(jobs=(JobSpec(command="a"),))
    first = driver.reply(JobsEnqueued, request, request_id=ID)
    driver.cancel(first.job_ids[0])
    driver.sweep(store_bytes_max=0)
    assert _there(driver) == set()
    again = driver.outcome(request, request_id=ID)
    assert (again.reply, again.news.appended) == (first, []), "its job is gone, and it is not run a second time"
    driver.now_ms += 2 * RECORDS_KEPT_MS
    driver.sweep(finished_before_ms=START_MS)
    assert driver.reply(JobsEnqueued, request, request_id=ID) == first
    driver.sweep(finished_before_ms=START_MS + 1)
    assert driver.reply(JobsEnqueued, request, request_id=ID) != first


def very_many_requests_are_forgotten_in_steps(driver: Driver) -> None:
    for _ in range(2 * RECORDS_PER_STEP + 1):
        driver.submit()
    driver.now_ms += 2 * RECORDS_KEPT_MS
    assert driver.sweep(finished_before_ms=START_MS + 1) == 3
    assert driver.queue().waiting == 2 * RECORDS_PER_STEP + 1
