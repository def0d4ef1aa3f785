"""The laws of looking at jobs, one and many, that every Store keeps."""

from __future__ import annotations

from typing import Any

from airunner.broker.lifecycle.reading import DETAILS_BYTES_MAX
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.replies import JobFound, JobsEnqueued, JobsLeased, JobsListed, ListPlace, QueuesListed
from airunner.protocol.requests import (
    PREFIX_CHARS_MIN,
    EnqueueJob,
    GetJob,
    ListJobs,
    ListQueues,
    ReplayJobEvents,
    SearchLog,
    WatchJob,
)
from tests.conformance.driving import Driver


def credentials_are_given_to_the_agent_and_to_no_reader(driver: Driver) -> None:
    spec = JobSpec(command="true", repository="https://user:hunter2@example.org/x.git")
    (job_id,) = driver.reply(JobsEnqueued, EnqueueJob(jobs=(spec,))).job_ids
    assert driver.lease_one().spec == spec
    for reply in (driver.reply(JobFound, GetJob(job_id=job_id)), driver.reply(JobsListed, ListJobs())):
        assert "example.org" in str(reply)
        assert "hunter2" not in str(reply)


def secret_variables_are_given_to_the_agent_and_to_no_reader(driver: Driver) -> None:
    environment = {"API_TOKEN": "hunter2", "pgpassword": "hunter2", "LOGIN": "hunter2", "MODE": "fast"}
    spec = JobSpec(
        command="echo",
        args=("hunter2",),
        owner="hunter2",
        repository="/hunter2",
        environment=environment,
        secrets=("LOGIN", "OFFERED"),
    )
    (job_id,) = driver.reply(JobsEnqueued, EnqueueJob(jobs=(spec,))).job_ids
    assert driver.lease_one().spec == spec
    shown = driver.reply(JobFound, GetJob(job_id=job_id)).job.spec
    hidden = dict.fromkeys(("API_TOKEN", "pgpassword", "LOGIN"), "[REDACTED]")
    assert shown.environment == {**hidden, "MODE": "fast"}
    assert (shown.secrets, shown.args) == (spec.secrets, ("[REDACTED]",))
    (listed,) = driver.reply(JobsListed, ListJobs()).jobs
    assert (listed.command, listed.owner, listed.repository) == ("echo '[REDACTED]'", "[REDACTED]", "/[REDACTED]")


def a_list_with_details_has_metadata_without_secrets_on_pages_of_bounded_size(driver: Driver) -> None:
    spec = JobSpec(
        command="true",
        metadata={"notes": "x" * (DETAILS_BYTES_MAX // 12), "by": "hunter2"},
        environment={"API_TOKEN": "hunter2"},
        require={"os": "linux"},
    )
    job_ids = [job_id for _ in range(15) for job_id in driver.enqueue(spec)][::-1]
    assert {(len(job.metadata), len(job.require)) for job in driver.reply(JobsListed, ListJobs()).jobs} == {(0, 0)}
    found: list[JobSummary] = []
    request = ListJobs(page_size=14, details=True)
    pages = 0
    while len(found) < 14:
        page = driver.reply(JobsListed, request)
        found += page.jobs
        pages += 1
        assert page.more
        assert (page.going_on is None) is (len(found) == 14)
        place = page.going_on or ListPlace(before=found[-1].id, skip=0)
        request = ListJobs(page_size=14 - len(found) or 1, details=True, before=place.before, skip=place.skip)
    assert ([job.id for job in found], pages) == (job_ids[:14], 2)
    assert {(job.metadata["by"], job.require["os"]) for job in found} == {("[REDACTED]", "linux")}
    assert not driver.reply(JobsListed, request).more


def one_tenant_sees_nothing_of_anothers(driver: Driver) -> None:
    (job_id,) = driver.submit()
    named = GetJob(job_id=job_id), WatchJob(job_id=job_id), ReplayJobEvents(job_id=job_id), ListJobs(before=job_id)
    named = *named, SearchLog(job_id=job_id)
    for request in named:
        driver.refused("not-found", request, tenant="other")
    assert driver.reply(JobsListed, ListJobs(), tenant="other").jobs == ()
    assert driver.lease(tenant="other") == ()
    assert len(driver.lease()) == 1


def a_queue_shows_how_many_of_its_jobs_an_agent_with_tags_may_run(driver: Driver) -> None:
    linux, gpu = {"os": "linux"}, {"os": "linux", "gpu": "1"}
    specs = [JobSpec(command="true", require=tags, queue="ci") for tags in ({}, {}, linux, linux, linux, gpu)]
    driver.enqueue(*specs, JobSpec(command="true", queue="other"))
    driver.reply(JobsLeased, driver.dequeue("ci", slots=2, tags=linux))  # what runs counts too

    def suitable(tags: dict[str, str] | None, queue: str | None = "ci") -> list[int | None]:
        request = ListQueues(queue=queue, tags=tags)
        return [found.suitable for found in driver.reply(QueuesListed, request).queues]

    assert [suitable(tags) for tags in ({}, linux, gpu)] == [[2], [5], [6]]
    assert (suitable(None), suitable({}, "none"), suitable({}, None)) == ([None], [], [None, None])


def a_summary_and_a_job_say_the_same(driver: Driver) -> None:
    spec = JobSpec(command="c", args=("d",), owner="o", priority=-5, not_before_ms=driver.now_ms + 9)
    (job_id,) = driver.enqueue(spec)
    driver.now_ms += 1
    driver.cancel(job_id)
    job, (summary,) = driver.job(job_id), driver.reply(JobsListed, ListJobs()).jobs
    assert (job.spec, summary.command, summary.owner, summary.priority) == (spec, "c d", "o", -5)
    same = ("id", "state", "submitted_ms", "attempt", "started_ms", "finished_ms", "result", "due_ms", "origin")
    for field in (*same, "cancel_requested_ms"):
        assert getattr(job, field) == getattr(summary, field), field


def a_list_is_limited_to_a_prefix_a_name_and_states(driver: Driver) -> None:
    names = ("lint", "lint", "test")
    specs = [JobSpec(command="true", name=name, metadata={"name": "x"}) for name in names]
    first, second, third = driver.enqueue(*specs)
    (other,) = driver.submit("true", tenant="other")
    driver.cancel(first)
    driver.complete(driver.lease_one())

    def listed(**wanted: Any) -> tuple[str, ...]:
        return tuple(job.id for job in driver.reply(JobsListed, ListJobs(**wanted)).jobs)

    assert listed(name="lint") == (second, first)
    assert listed(name="lin") == listed(name="x") == ()
    for job_id in (first, second, third):
        assert listed(prefix=job_id) == (job_id,)
        assert job_id in listed(prefix=job_id[:PREFIX_CHARS_MIN])
        assert listed(prefix=f"{job_id}0") == ()
    assert listed(prefix=other) == ()
    assert listed(prefix=first, name="lint", state=JobState.CANCELLED) == (first,)
    assert listed(prefix=first, name="test") == listed(prefix=first, state=JobState.RUNNING) == ()
    assert listed(prefix=first, before=second) == (first,)
    assert listed(prefix=second, before=second) == ()
    assert listed(state=(JobState.CANCELLED, JobState.SCHEDULED)) == (third, first)
    assert listed(state=(JobState.CANCELLED, JobState.SCHEDULED), name="lint") == (first,)
    assert listed(state=(JobState.RUNNING,)) == ()
    (summary,) = driver.reply(JobsListed, ListJobs(prefix=third)).jobs
    assert summary.name == "test"


def jobs_that_may_be_leased_are_counted_by_queue_and_needs_and_all_in_total(driver: Driver) -> None:
    driver.enqueue(
        *[JobSpec(command="true", queue="q")] * 3, JobSpec(command="true", queue="p", require={"gpu": "yes"})
    )
    driver.enqueue(JobSpec(command="true", queue="q", require={"gpu": "yes"}), tenant="other")
    driver.enqueue(JobSpec(command="true", queue="q", not_before_ms=driver.now_ms + 9))
    driver.lease("q")
    page = driver.store.engine.ready("home", 9, 9)
    assert page == {("home", "p", ""): 0, ("home", "p", "gpu=yes"): 1, ("home", "q", ""): 2}
    assert driver.store.engine.ready("home", 2, 9) == dict(list(page.items())[:2])
    assert driver.store.engine.ready("home", 9, 1)["home", "q", ""] == 1
    assert driver.store.engine.totals(9) == (5, 1, 1)
    assert driver.store.engine.totals(0) == (0, 0, 0)
