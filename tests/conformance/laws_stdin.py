"""The laws of a job's standard input that every Store keeps."""

from __future__ import annotations

from typing import Final

from airunner.broker.store.quotas import Quotas
from airunner.protocol.fields import STDIN_BYTES_MAX, JobSpec
from airunner.protocol.musts import MUST_KNOW
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.replies import JobLease, JobsEnqueued, JobsLeased, JobStdinRead
from airunner.protocol.requests import EnqueueJob, EnqueueJobWithStdin, GetJob, GetJobStdin, ReadJobStdin, RetryJob
from tests.conformance.driving import Driver, completion, release

ID: Final = b"s" * REQUEST_ID_BYTES
STDIN: Final = bytes(range(256)) * 40
COST_MAX: Final = 300  # of one request, as in `laws_costs`


def _with(stdin: bytes, **fields: dict[str, str]) -> EnqueueJobWithStdin:
    return EnqueueJobWithStdin(job=JobSpec(command="sh", stdin_bytes=len(stdin), **fields), stdin=stdin)


def _lease(driver: Driver, *, stdin: bool = True, tags: dict[str, str] | None = None) -> tuple[JobLease, ...]:
    return driver.reply(JobsLeased, driver.dequeue(slots=9, stdin=stdin, tags=tags)).leases


def _read(driver: Driver, lease: JobLease, bytes_max: int = 3_000) -> bytes:
    """All of it, piece by piece."""
    found = b""
    while True:
        piece = driver.reply(JobStdinRead, ReadJobStdin(lease=lease.ref, offset=len(found), bytes_max=bytes_max))
        assert len(piece.data) <= bytes_max
        if not piece.data:
            return found
        found += piece.data


def every_attempt_and_retry_reads_the_same_stdin_and_no_reader_of_the_log_meets_it(driver: Driver) -> None:
    (job_id,) = driver.reply(JobsEnqueued, _with(STDIN)).job_ids
    assert driver.reply(JobsEnqueued, _with(b"another")).job_ids != (job_id,)
    first, other = _lease(driver)
    assert (_read(driver, first), _read(driver, other)) == (STDIN, b"another")
    driver.reply(object, release(first))
    driver.refused("stale-token", ReadJobStdin(lease=first.ref))
    (second,) = _lease(driver)
    assert _read(driver, second) == STDIN
    driver.reply(object, completion(second))
    driver.refused("stale-token", ReadJobStdin(lease=second.ref))
    driver.refused("not-found", ReadJobStdin(lease=second.ref), tenant="other")
    assert driver.reply(JobStdinRead, GetJobStdin(job_id=job_id, offset=1, bytes_max=9)).data == STDIN[1:10]
    driver.refused("not-found", GetJobStdin(job_id=job_id), tenant="other")
    (plain,) = driver.reply(JobsEnqueued, EnqueueJob(jobs=(JobSpec(command="true", queue="plain"),))).job_ids
    assert driver.reply(JobStdinRead, GetJobStdin(job_id=plain)).data == b""
    retried = driver.reply(JobsEnqueued, RetryJob(job_id=job_id))
    (lease,) = _lease(driver)
    assert (lease.job_id, _read(driver, lease)) == (retried.job_ids[0], STDIN)
    assert driver.job(lease.job_id).spec.stdin_bytes == len(STDIN)
    assert driver.kinds(job_id)[0] == "JOB_SCHEDULED"
    assert [event.sequence for event in driver.log(job_id)] == list(range(1, 6))


def an_agent_that_gives_no_stdin_leases_no_job_that_has_one(driver: Driver) -> None:
    """An agent of before, which would run it with an empty one."""
    for require in ({}, {"os": "linux"}):
        driver.reply(JobsEnqueued, _with(STDIN, require=require))
    (plain,) = driver.submit()
    tags = {"os": "linux"}
    assert [lease.job_id for lease in _lease(driver, stdin=False, tags=tags)] == [plain]
    assert len(_lease(driver)) == 1
    assert len(_lease(driver, tags=tags)) == 1


def an_agent_leases_no_job_with_a_field_that_it_must_know_and_does_not(driver: Driver) -> None:
    """An agent of before, which would run it, and keep none of its files."""
    left, plain = driver.enqueue(
        JobSpec(command="make", artifacts=("dist",), require={"os": "linux"}), JobSpec(command="make")
    )
    tags = {"os": "linux"}
    assert [lease.job_id for lease in _lease(driver, tags=tags)] == [plain]
    assert driver.reply(JobsLeased, driver.dequeue(tags=tags, knows=("tree",))).leases == ()
    assert driver.reply(JobsLeased, driver.dequeue(knows=MUST_KNOW)).leases == ()
    (lease,) = driver.reply(JobsLeased, driver.dequeue(tags=tags, knows=MUST_KNOW)).leases
    assert lease.job_id == left


def a_submission_with_stdin_is_repeated_only_with_the_same_stdin(driver: Driver) -> None:
    first = driver.reply(JobsEnqueued, _with(STDIN), request_id=ID)
    assert driver.reply(JobsEnqueued, _with(STDIN), request_id=ID) == first
    driver.refused("conflict", _with(STDIN[:-1] + b"x"), request_id=ID)


def stdin_counts_among_what_a_tenant_keeps_and_goes_with_its_job(driver: Driver) -> None:
    driver.quotas = Quotas(bytes_max=len(STDIN))
    driver.reply(JobsEnqueued, _with(STDIN))
    driver.refused("quota", _with(STDIN))
    (lease,) = _lease(driver)
    driver.reply(object, completion(lease))
    driver.sweep(finished_before_ms=driver.now_ms + 1)
    driver.refused("not-found", GetJob(job_id=lease.job_id))
    driver.refused("not-found", ReadJobStdin(lease=lease.ref))
    driver.reply(JobsEnqueued, _with(STDIN))


def as_much_stdin_as_there_may_be_costs_its_sender_and_is_bounded(driver: Driver) -> None:
    small = driver.outcome(_with(b"x")).cost
    large = driver.outcome(_with(bytes(STDIN_BYTES_MAX)))
    assert 2 * small < large.cost <= COST_MAX
    for lease in _lease(driver):
        driver.reply(object, completion(lease))
        assert driver.outcome(RetryJob(job_id=lease.job_id)).cost <= COST_MAX
