"""The laws of looking at jobs, one and many, that every Store keeps."""

from __future__ import annotations

from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobFound, JobsEnqueued, JobsListed
from airunner.protocol.requests import EnqueueJob, GetJob, ListJobs, ReplayJobEvents, WatchJob
from tests.conformance.driving import Driver


def _listed(driver: Driver, request: ListJobs, *, tenant: str = "home") -> tuple[list[str], bool]:
    reply = driver.reply(JobsListed, request, tenant=tenant)
    return [job.id for job in reply.jobs], reply.more


def credentials_are_given_to_the_agent_and_to_no_reader(driver: Driver) -> None:
    spec = JobSpec(command="true", repository="https://user:hunter2@example.org/x.git")
    (job_id,) = driver.reply(JobsEnqueued, EnqueueJob(jobs=(spec,))).job_ids
    assert driver.lease_one().spec == spec
    for reply in (driver.reply(JobFound, GetJob(job_id=job_id)), driver.reply(JobsListed, ListJobs())):
        assert "example.org" in str(reply)
        assert "hunter2" not in str(reply)


def secret_variables_are_given_to_the_agent_and_to_no_reader(driver: Driver) -> None:
    environment = {"API_TOKEN": "hunter2", "pgpassword": "hunter2", "LOGIN": "hunter2", "MODE": "fast"}
    spec = JobSpec(command="true", environment=environment, secrets=("LOGIN", "OFFERED"))
    (job_id,) = driver.reply(JobsEnqueued, EnqueueJob(jobs=(spec,))).job_ids
    assert driver.lease_one().spec == spec
    shown = driver.reply(JobFound, GetJob(job_id=job_id)).job.spec
    hidden = dict.fromkeys(("API_TOKEN", "pgpassword", "LOGIN"), "[REDACTED]")
    assert shown.environment == {**hidden, "MODE": "fast"}
    assert shown.secrets == spec.secrets


def jobs_are_listed_newest_first_and_stable(driver: Driver) -> None:
    jobs = [driver.submit(f"c{n}", queue="ab"[n % 2])[0] for n in range(5)]
    driver.submit(tenant="other")
    newest = jobs[::-1]

    assert _listed(driver, ListJobs()) == (newest, False)
    assert _listed(driver, ListJobs(page_size=2)) == (newest[:2], True)
    assert _listed(driver, ListJobs(page_size=2, page=3)) == (newest[4:], False)
    assert _listed(driver, ListJobs(page_size=5)) == (newest, False)
    assert _listed(driver, ListJobs(page=9)) == ([], False)
    assert _listed(driver, ListJobs(page_size=2, before=newest[1])) == (newest[2:4], True)
    driver.submit("shifts no page", queue="b")
    assert _listed(driver, ListJobs(page_size=2, before=newest[1])) == (newest[2:4], True)
    (lease,) = driver.lease("a")
    assert _listed(driver, ListJobs(state=JobState.RUNNING)) == ([lease.job_id], False)
    assert _listed(driver, ListJobs(queue="a")) == ([newest[0], newest[2], newest[4]], False)
    assert _listed(driver, ListJobs(queue="a", state=JobState.SCHEDULED)) == ([newest[0], newest[2]], False)
    driver.refused("not-found", ListJobs(before="absent"))
    driver.refused("not-found", ListJobs(before=jobs[0]), tenant="other")


def one_tenant_sees_nothing_of_anothers(driver: Driver) -> None:
    (job_id,) = driver.submit()
    for request in (GetJob(job_id=job_id), WatchJob(job_id=job_id), ReplayJobEvents(job_id=job_id)):
        driver.refused("not-found", request, tenant="other")
    assert driver.reply(JobsListed, ListJobs(), tenant="other").jobs == ()
    assert driver.lease(tenant="other") == ()
    assert len(driver.lease()) == 1


def jobs_are_found_by_their_owner(driver: Driver) -> None:
    jobs = driver.enqueue(*(JobSpec(command="c", queue="ab"[n % 2], owner=f"o{n % 3}") for n in range(9)))
    (nobodys,) = driver.submit()
    (anothers,) = driver.enqueue(JobSpec(command="c", owner="o0"), tenant="other")
    mine = list(reversed(jobs[::3]))
    assert _listed(driver, ListJobs(owner="o0")) == (mine, False)
    assert _listed(driver, ListJobs(owner="o0", page_size=2)) == (mine[:2], True)
    assert _listed(driver, ListJobs(owner="o0", page_size=2, before=mine[1])) == (mine[2:], False)
    assert _listed(driver, ListJobs(owner="o0", before=nobodys)) == (mine, False)
    assert _listed(driver, ListJobs(owner="o0", queue="b")) == ([jobs[3]], False)
    driver.lease("b")
    assert _listed(driver, ListJobs(owner="o1", state=JobState.RUNNING)) == ([jobs[1]], False)
    assert _listed(driver, ListJobs(owner="nobody")) == ([], False)
    assert _listed(driver, ListJobs(owner="o0"), tenant="other") == ([anothers], False)


def jobs_are_found_by_all_of_their_metadata(driver: Driver) -> None:
    red, blue, large, both = driver.enqueue(
        JobSpec(command="c", metadata={"colour": "red"}, owner="o"),
        JobSpec(command="c", metadata={"colour": "blue", "size": "large"}),
        JobSpec(command="c", metadata={"size": "large"}),
        JobSpec(command="c", metadata={"size": "large", "colour": "red"}, owner="o", queue="b"),
    )
    driver.enqueue(JobSpec(command="c", metadata={"colour": "red"}), tenant="other")
    assert _listed(driver, ListJobs(metadata={"colour": "red"})) == ([both, red], False)
    assert _listed(driver, ListJobs(metadata={"size": "large"})) == ([both, large, blue], False)
    assert _listed(driver, ListJobs(metadata={"size": "large", "colour": "red"})) == ([both], False)
    assert _listed(driver, ListJobs(metadata={"colour": "large", "size": "red"})) == ([], False)
    assert _listed(driver, ListJobs(metadata={"colour": ""})) == ([], False)
    assert _listed(driver, ListJobs(metadata={"size": "large"}, page_size=1)) == ([both], True)
    assert _listed(driver, ListJobs(metadata={"size": "large"}, page_size=1, page=3)) == ([blue], False)
    assert _listed(driver, ListJobs(metadata={"size": "large"}, page_size=1, before=both)) == ([large], True)
    assert _listed(driver, ListJobs(metadata={"size": "large"}, page_size=1, before=large)) == ([blue], False)
    assert _listed(driver, ListJobs(metadata={"colour": "red"}, owner="o", before=both)) == ([red], False)
    assert _listed(driver, ListJobs(metadata={"colour": "red"}, owner="nobody")) == ([], False)
    assert _listed(driver, ListJobs(metadata={"colour": "red"}, queue="b")) == ([both], False)
    (lease,) = driver.lease("b")
    assert _listed(driver, ListJobs(metadata={"size": "large"}, state=JobState.RUNNING)) == ([lease.job_id], False)


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
