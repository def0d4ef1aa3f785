"""The laws of order, delay, modes and counts in queues that every Store keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from airunner.broker.lifecycle.commands import EXPIRE_MAX
from airunner.broker.store.contract import QueueKey
from airunner.broker.store.needs import NEEDS_MAX, TENANT_NEEDS_MAX
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.queues import QueueMode, QueueSummary
from airunner.protocol.replies import (
    JobCompleted,
    JobReleasedReply,
    JobsEnqueued,
    JobsLeased,
    JobsListed,
    QueuesListed,
    QueueUpdated,
    Refused,
)
from airunner.protocol.requests import (
    ENQUEUE_MAX,
    PAGE_SIZE_MAX,
    EnqueueJob,
    ListJobs,
    ListQueues,
    RetryJob,
    UpdateQueue,
)
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, completion, release

ID = b"r" * REQUEST_ID_BYTES
DEFAULT = frozenset({QueueKey("home", "default")})


def _counted(driver: Driver) -> dict[str, tuple[int, int, int, int | None]]:
    """Each queue's waiting, delayed and running jobs and its oldest, counted by hand."""
    jobs = driver.reply(JobsListed, ListJobs(page_size=PAGE_SIZE_MAX)).jobs
    waiting, delayed, running = Counter[str](), Counter[str](), Counter[str]()
    oldest_ms: dict[str, int] = {}
    for job in jobs:
        waiting[job.queue] += job.state is JobState.SCHEDULED
        delayed[job.queue] += job.state is JobState.SCHEDULED and job.due_ms is not None
        running[job.queue] += job.state is JobState.RUNNING
        if job.state is JobState.SCHEDULED and job.due_ms is None:
            oldest_ms[job.queue] = min(job.submitted_ms, oldest_ms.get(job.queue, job.submitted_ms))
    return {
        queue: (waiting[queue], delayed[queue], running[queue], oldest_ms.get(queue))
        for queue in {job.queue for job in jobs}
    }


def _counts_are_right(driver: Driver) -> None:
    told = driver.reply(QueuesListed, ListQueues()).queues
    assert {one.queue: (one.waiting, one.delayed, one.running, one.oldest_ms) for one in told} == _counted(driver)


def the_more_urgent_goes_first_then_the_earlier(driver: Driver) -> None:
    jobs = [JobSpec(command=f"{priority}", priority=priority) for priority in (0, 5, -100, 5, 100, 0)]
    job_ids = driver.enqueue(*jobs)
    order = [job_ids[n] for n in (4, 1, 3, 0, 5, 2)]
    assert [lease.job_id for lease in driver.lease(slots=4)] == order[:4]
    assert [lease.job_id for lease in driver.lease(slots=4)] == order[4:]


def what_comes_back_has_its_old_place(driver: Driver) -> None:
    urgent, first, second = driver.enqueue(JobSpec(command="u", priority=1), JobSpec(command="a"), JobSpec(command="b"))
    for _ in range(2):
        leases = driver.lease(slots=3)
        assert [lease.job_id for lease in leases] == [urgent, first, second]
        driver.reply(JobReleasedReply, release(leases[1]))
        driver.reply(JobReleasedReply, release(leases[0]))
        driver.pass_ms(VISIBILITY_MS)
    (more,) = driver.enqueue(JobSpec(command="more", priority=1))
    assert [lease.job_id for lease in driver.lease(slots=4)] == [urgent, more, first, second]


def a_delayed_job_is_never_early_and_then_has_its_place(driver: Driver) -> None:
    due_ms = START_MS + 500
    delayed, plain = driver.enqueue(JobSpec(command="a", not_before_ms=due_ms), JobSpec(command="b"))
    job = driver.job(delayed)
    assert (job.state, job.due_ms) == (JobState.SCHEDULED, due_ms)
    assert (driver.queue().waiting, driver.queue().delayed) == (2, 1)
    assert driver.apply().next_due_ms == due_ms
    assert driver.pass_ms(499).ready == frozenset()
    driver.reply(JobReleasedReply, release(driver.lease_one()))
    assert driver.pass_ms(1).ready == DEFAULT
    assert driver.apply().next_due_ms is None
    assert (driver.queue().waiting, driver.queue().delayed, driver.job(delayed).due_ms) == (2, 0, None)
    assert [lease.job_id for lease in driver.lease(slots=2)] == [delayed, plain]
    assert driver.kinds(delayed) == ["JOB_SCHEDULED", "JOB_LEASED"]


def an_instant_that_has_passed_delays_nothing(driver: Driver) -> None:
    for not_before_ms in (0, START_MS):
        outcome = driver.outcome(EnqueueJob(jobs=(JobSpec(command="a", not_before_ms=not_before_ms),)))
        assert outcome.ready == DEFAULT
        assert driver.job(driver.lease_one().job_id).due_ms is None


def the_nearer_of_lease_and_delay_is_due_next(driver: Driver) -> None:
    driver.enqueue(JobSpec(command="a"), JobSpec(command="b", not_before_ms=START_MS + VISIBILITY_MS + 1))
    driver.lease_one()
    assert driver.apply().next_due_ms == START_MS + VISIBILITY_MS
    driver.pass_ms(VISIBILITY_MS)
    assert driver.apply().next_due_ms == START_MS + VISIBILITY_MS + 1


def very_many_that_fall_due_at_once_do_so_in_steps(driver: Driver) -> None:
    total = 0
    while total <= EXPIRE_MAX:
        driver.enqueue(*(JobSpec(command="a", not_before_ms=START_MS + 1) for _ in range(ENQUEUE_MAX)))
        total += ENQUEUE_MAX
    driver.pass_ms(1)
    assert driver.apply().next_due_ms == START_MS + 1
    assert driver.queue().delayed == total - EXPIRE_MAX
    assert driver.expire().ready == DEFAULT
    assert (driver.apply().next_due_ms, driver.queue().delayed) == (None, 0)


def a_paused_queue_takes_jobs_and_leases_none(driver: Driver) -> None:
    driver.submit("a", "b")
    lease = driver.lease_one()
    assert driver.set_mode(QueueMode.PAUSED).ready == frozenset()
    driver.submit("c")
    assert driver.lease() == ()
    assert len(driver.lease("default", "other")) == 0
    assert driver.complete(lease) is JobState.COMPLETED
    driver.submit("elsewhere", tenant="other")
    assert len(driver.lease(tenant="other")) == 1
    outcome = driver.set_mode(QueueMode.OPEN)
    assert outcome.ready == DEFAULT
    assert [one.spec.command for one in driver.lease(slots=9)] == ["b", "c"]


def a_pause_does_not_take_back_what_a_request_holds(driver: Driver) -> None:
    driver.submit()
    request = driver.dequeue()
    first = driver.reply(JobsLeased, request, request_id=ID)
    driver.set_mode(QueueMode.PAUSED)
    assert driver.reply(JobsLeased, request, request_id=ID) == first


def other_queues_are_leased_from_beside_a_paused_one(driver: Driver) -> None:
    driver.submit("a")
    driver.submit("b", queue="other")
    driver.set_mode(QueueMode.PAUSED)
    assert [one.spec.command for one in driver.lease("default", "other", slots=9)] == ["b"]


def a_draining_queue_leases_jobs_and_takes_none(driver: Driver) -> None:
    (done,) = driver.ended("done")
    driver.submit("a")
    assert driver.set_mode(QueueMode.DRAINING).ready == DEFAULT
    several = EnqueueJob(jobs=(JobSpec(command="x", queue="other"), JobSpec(command="y")))
    assert "default" in driver.refused("queue-draining", several, request_id=ID).message
    driver.refused("queue-draining", RetryJob(job_id=done))
    assert [one.spec.command for one in driver.lease("default", "other", slots=9)] == ["a"]
    driver.submit(tenant="other")
    driver.set_mode(QueueMode.OPEN)
    assert len(driver.reply(JobsEnqueued, several, request_id=ID).job_ids) == 2


def a_repeat_is_answered_as_the_first_while_its_queue_drains(driver: Driver) -> None:
    request = EnqueueJob(jobs=(JobSpec(command="a"),))
    first = driver.reply(JobsEnqueued, request, request_id=ID)
    driver.set_mode(QueueMode.DRAINING)
    assert driver.reply(JobsEnqueued, request, request_id=ID) == first


def what_a_draining_queue_holds_may_come_back(driver: Driver) -> None:
    (job_id,) = driver.enqueue(JobSpec(command="a", retry=RetryPolicy(limit=1, backoff_ms=0)))
    driver.set_mode(QueueMode.DRAINING)
    assert driver.complete(driver.lease_one(), exit_code=1) is JobState.SCHEDULED
    driver.reply(JobReleasedReply, release(driver.lease_one()))
    driver.lease_one()
    driver.pass_ms(VISIBILITY_MS)
    assert driver.lease_one().job_id == job_id


def counts_are_right_after_every_step(driver: Driver) -> None:
    policy = RetryPolicy(limit=9, backoff_ms=100)
    specs = [
        JobSpec(command="c", queue="ab"[n % 2], priority=n % 3, not_before_ms=START_MS + 400 if n == 5 else None)
        for n in range(8)
    ]
    driver.enqueue(*specs)
    driver.now_ms += 3
    driver.enqueue(JobSpec(command="r", queue="a", retry=policy, priority=9), JobSpec(command="l", max_attempts=1))
    _counts_are_right(driver)
    for step in (
        lambda: driver.complete(driver.lease_one("a"), exit_code=1),
        lambda: driver.complete(driver.lease_one("b")),
        lambda: driver.outcome(release(driver.lease_one("b"))),
        lambda: driver.lease("a", "b", "default", slots=6),
        lambda: [driver.cancel(job.id) for job in driver.reply(JobsListed, ListJobs()).jobs[::3]],
        lambda: driver.pass_ms(400),
        lambda: driver.pass_ms(VISIBILITY_MS),
        lambda: driver.lease("b", slots=2),
        lambda: driver.set_mode(QueueMode.PAUSED, "a"),
        lambda: [driver.outcome(RetryJob(job_id=job.id)) for job in driver.reply(JobsListed, ListJobs()).jobs],
        driver.resume,
        lambda: driver.retain(finished_before_ms=driver.now_ms + 1),
        lambda: driver.set_mode(QueueMode.OPEN, "a"),
        lambda: [driver.complete(lease) for lease in driver.lease("a", "b", "default", slots=16)],
    ):
        step()
        _counts_are_right(driver)
    assert sum(one.running for one in driver.reply(QueuesListed, ListQueues()).queues) > 0


def the_oldest_is_the_longest_waiting_of_any_priority(driver: Driver) -> None:
    assert driver.reply(QueuesListed, ListQueues()) == QueuesListed(queues=())
    for priority in (3, -100, 100, 0):
        driver.enqueue(JobSpec(command="a", priority=priority))
        driver.now_ms += 10
    driver.enqueue(JobSpec(command="d", priority=50, not_before_ms=driver.now_ms + 9))
    seen: list[int | None] = []
    for _ in range(4):
        driver.lease_one()
        seen.append(driver.queue().oldest_ms)
    assert seen == [START_MS, START_MS + 10, START_MS + 10, None]


def queues_are_listed_by_name_and_page(driver: Driver) -> None:
    names = [f"q{n:03}" for n in range(PAGE_SIZE_MAX + 5)]
    for first in range(0, len(names), ENQUEUE_MAX):
        driver.enqueue(*(JobSpec(command="a", queue=name) for name in reversed(names[first : first + ENQUEUE_MAX])))
    page = driver.reply(QueuesListed, ListQueues())
    assert ([one.queue for one in page.queues], page.more) == (names[:PAGE_SIZE_MAX], True)
    page = driver.reply(QueuesListed, ListQueues(after=names[PAGE_SIZE_MAX - 1]))
    assert ([one.queue for one in page.queues], page.more) == (names[PAGE_SIZE_MAX:], False)
    assert driver.reply(QueuesListed, ListQueues(after=names[-1])) == QueuesListed(queues=())
    assert driver.reply(QueuesListed, ListQueues(), tenant="other") == QueuesListed(queues=())


def a_queue_has_a_mode_before_its_first_job(driver: Driver) -> None:
    driver.set_mode(QueueMode.PAUSED, "new")
    assert driver.queue("new") == QueueSummary(queue="new", mode=QueueMode.PAUSED, waiting=0, running=0)
    driver.submit("a", queue="new")
    assert driver.queue("new").mode is QueueMode.PAUSED
    assert driver.lease("new") == ()


def without_room_nothing_new_is_taken_and_a_repeat_is_answered(driver: Driver) -> None:
    request = EnqueueJob(jobs=(JobSpec(command="a"),))
    first = driver.reply(JobsEnqueued, request, request_id=ID)
    (done,) = driver.ended("done", queue="other")

    def asked(request: EnqueueJob | RetryJob, request_id: bytes | None = None) -> object:
        (outcome,) = driver.apply(driver.ask(request, request_id=request_id, room=False)).outcomes
        if isinstance(outcome.reply, Refused):
            assert (outcome.appended, outcome.ready) == ((), frozenset())
            return outcome.reply.code
        return outcome.reply

    assert asked(request) == "no-space"
    assert asked(RetryJob(job_id=done)) == "no-space"
    assert asked(request, ID) == first
    assert asked(EnqueueJob(jobs=(JobSpec(command="b"),)), ID) == "conflict"
    lease = driver.lease_one()
    assert driver.reply(JobCompleted, completion(lease)).state is JobState.COMPLETED
    assert driver.lease() == ()


def a_late_copy_of_a_mode_undoes_no_newer_one(driver: Driver) -> None:
    paused = UpdateQueue(queue="default", mode=QueueMode.PAUSED)
    driver.reply(QueueUpdated, paused, request_id=ID)
    driver.reply(QueueUpdated, UpdateQueue(queue="default", mode=QueueMode.DRAINING))
    assert driver.reply(QueueUpdated, paused, request_id=ID).mode is QueueMode.PAUSED
    assert driver.queue().mode is QueueMode.DRAINING
    driver.refused("conflict", UpdateQueue(queue="default", mode=QueueMode.OPEN), request_id=ID)


def an_agent_is_leased_only_what_it_has_the_tags_for(driver: Driver) -> None:
    """However many wait before it that it may not run."""
    needing = [JobSpec(command="n", require={"os": "linux"}, priority=9) for _ in range(5)]
    driver.enqueue(*needing, JobSpec(command="both", require={"os": "linux", "arch": "arm"}), JobSpec(command="free"))

    def leased(slots: int = 9, **tags: str) -> list[str]:
        return [lease.spec.command for lease in driver.reply(JobsLeased, driver.dequeue(slots=slots, tags=tags)).leases]

    assert leased(os="mac", arch="arm") == ["free"]
    assert leased(3, os="linux") == ["n"] * 3
    assert leased(os="linux", arch="arm", more="") == ["n", "n", "both"]
    assert leased(os="linux", arch="arm") == []


def what_is_leased_to_tags_keeps_priority_and_order(driver: Driver) -> None:
    specs = [
        JobSpec(command=f"{place}", priority=priority, require={"os": "linux"} if place % 2 else {})
        for place, priority in enumerate((0, 0, 5, 5, 0, -1))
    ]
    driver.enqueue(*specs)
    leases = driver.reply(JobsLeased, driver.dequeue(slots=9, tags={"os": "linux"})).leases
    assert [lease.spec.command for lease in leases] == ["2", "3", "0", "1", "4", "5"]


def a_job_that_comes_back_is_ready_for_those_who_may_run_it(driver: Driver) -> None:
    ready = {QueueKey("home", "default", "arch=arm\nos=linux")}
    spec = JobSpec(command="n", require={"os": "linux", "arch": "arm"})
    assert driver.outcome(EnqueueJob(jobs=(spec,))).ready == ready
    (lease,) = driver.reply(JobsLeased, driver.dequeue(tags=dict(spec.require))).leases
    assert driver.outcome(release(lease)).ready == ready
    driver.reply(JobsLeased, driver.dequeue(tags=dict(spec.require)))
    driver.now_ms += VISIBILITY_MS
    assert driver.expire().ready == ready
    assert driver.outcome(UpdateQueue(queue="default", mode=QueueMode.OPEN)).ready == {
        QueueKey("home", "default"),
        *ready,
    }


def a_queue_holds_so_many_different_needs_and_no_more(driver: Driver) -> None:
    """A lease looks at each."""
    for first in range(0, NEEDS_MAX, 64):
        driver.enqueue(*(JobSpec(command="n", require={"n": f"{first + n}"}) for n in range(64)))
    driver.refused("bad-request", EnqueueJob(jobs=(JobSpec(command="n", require={"n": "more"}),)))
    driver.enqueue(JobSpec(command="n", require={"n": "7"}), JobSpec(command="free"))
    driver.enqueue(JobSpec(command="n", require={"n": "more"}, queue="other"))


def a_tenants_queues_hold_so_many_different_needs_together_and_no_more(driver: Driver) -> None:
    """A lease may look at each in all of them, and those that run may come back; what has ended makes room."""
    for queue in range(TENANT_NEEDS_MAX // 64):
        driver.enqueue(*(JobSpec(command="n", queue=f"q{queue}", require={"n": f"{n}"}) for n in range(64)))
    (lease,) = driver.reply(JobsLeased, driver.dequeue("q0", tags={"n": "0"})).leases
    more = EnqueueJob(jobs=(JobSpec(command="n", queue="more", require={"n": "0"}),))
    driver.refused("bad-request", more)
    driver.reply(JobsEnqueued, more, tenant="other")
    driver.enqueue(JobSpec(command="n", queue="q1", require={"n": "0"}), JobSpec(command="free", queue="more"))
    driver.reply(object, release(lease))
    driver.refused("bad-request", more)
    (lease,) = driver.reply(JobsLeased, driver.dequeue("q0", tags={"n": "0"})).leases
    assert driver.complete(lease) is JobState.COMPLETED
    driver.reply(JobsEnqueued, more)
    driver.refused("bad-request", EnqueueJob(jobs=(JobSpec(command="n", queue="more", require={"n": "1"}),)))


LAWS: Final[tuple[Callable[[Driver], None], ...]] = (
    the_more_urgent_goes_first_then_the_earlier,
    what_comes_back_has_its_old_place,
    a_delayed_job_is_never_early_and_then_has_its_place,
    an_instant_that_has_passed_delays_nothing,
    the_nearer_of_lease_and_delay_is_due_next,
    very_many_that_fall_due_at_once_do_so_in_steps,
    a_paused_queue_takes_jobs_and_leases_none,
    a_pause_does_not_take_back_what_a_request_holds,
    other_queues_are_leased_from_beside_a_paused_one,
    a_draining_queue_leases_jobs_and_takes_none,
    a_repeat_is_answered_as_the_first_while_its_queue_drains,
    what_a_draining_queue_holds_may_come_back,
    counts_are_right_after_every_step,
    the_oldest_is_the_longest_waiting_of_any_priority,
    an_agent_is_leased_only_what_it_has_the_tags_for,
    what_is_leased_to_tags_keeps_priority_and_order,
    a_job_that_comes_back_is_ready_for_those_who_may_run_it,
    a_queue_holds_so_many_different_needs_and_no_more,
    a_tenants_queues_hold_so_many_different_needs_together_and_no_more,
    queues_are_listed_by_name_and_page,
    a_queue_has_a_mode_before_its_first_job,
    a_late_copy_of_a_mode_undoes_no_newer_one,
    without_room_nothing_new_is_taken_and_a_repeat_is_answered,
)
