"""The laws of what a command costs the store, that every Store keeps: whoever causes work is told of it."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import msgspec
from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Retain
from airunner.broker.store.needs import NEEDS_MAX, TENANT_NEEDS_MAX
from airunner.protocol.fields import JobSpec
from airunner.protocol.fieldtypes import METADATA_MAX
from airunner.protocol.names import REQUEST_ID_BYTES
from airunner.protocol.replies import JobsEnqueued, JobsLeased
from airunner.protocol.requests import (
    ENQUEUE_MAX,
    ENQUEUE_METADATA_MAX,
    PAGE_SIZE_MAX,
    QUEUES_MAX,
    SLOTS_MAX,
    CancelJob,
    EnqueueJob,
    GetJob,
    ListJobs,
    ListQueues,
    PublishJobEvents,
    ReplayJobEvents,
    RetryJob,
    SearchLog,
    StoreRequest,
)
from tests.conformance.driving import Driver, batch, completion, packed

ID = b"c" * REQUEST_ID_BYTES
COST_MAX: Final = 300  # of one request; measured, that is 25 ms or less


def _jobs(count: int, queue: str = "default") -> EnqueueJob:
    return EnqueueJob(jobs=(JobSpec(command="true", queue=queue),) * count)


def whatever_is_asked_costs_something(driver: Driver) -> None:
    first = driver.outcome(_jobs(1), request_id=ID)
    lease = driver.lease_one()
    requests: tuple[StoreRequest, ...] = (
        ListJobs(),
        ListQueues(),
        GetJob(job_id=lease.job_id),
        ReplayJobEvents(job_id=lease.job_id),
        SearchLog(job_id=lease.job_id),
        driver.dequeue("empty"),
        completion(lease),
        *(CancelJob(job_id="none"), RetryJob(job_id="none")),
    )
    repeated, refused = (driver.outcome(_jobs(count), request_id=ID) for count in (1, 2))
    assert min(first.cost, repeated.cost, refused.cost) > 0
    assert all(driver.outcome(request).cost > 0 for request in requests)
    assert driver.expire().cost > 0


def what_changes_nothing_has_nothing_to_commit(driver: Driver) -> None:
    assert not driver.apply(driver.ask(driver.dequeue())).wrote
    assert not driver.apply(driver.ask(CancelJob(job_id="none"))).wrote
    asked = driver.ask(_jobs(1))
    assert driver.apply(driver.ask(driver.dequeue()), asked).wrote
    assert not driver.apply(asked).wrote, "repeated"
    assert driver.apply(driver.ask(driver.dequeue())).wrote, "a lease"
    assert driver.apply(Retain(finished_before_ms=0, store_bytes_max=None)).wrote, (
        "the engine may have removed something"
    )


def more_work_costs_more_and_neighbours_pay_for_themselves(driver: Driver) -> None:
    few, many, again = driver.apply(driver.ask(_jobs(1)), driver.ask(_jobs(ENQUEUE_MAX)), driver.ask(_jobs(1))).done
    assert many.cost > 10 * few.cost
    assert again.cost <= 2 * few.cost
    driver.outcome(_jobs(ENQUEUE_MAX))
    page = driver.outcome(ListJobs(page_size=PAGE_SIZE_MAX)).cost
    assert page > driver.outcome(ListJobs(page_size=1)).cost
    assert driver.outcome(driver.dequeue(slots=16)).cost > driver.outcome(driver.dequeue(slots=1)).cost


def compressed_events_cost_what_they_are_when_decompressed(driver: Driver) -> None:
    lease = driver.started()
    plain = batch(lease, 0, *["x" * 60_000] * 8)
    fields = msgspec.msgpack.encode([{"kind": "HEARTBEAT", "timestamp_ms": 1, "x": [1] * 480_000}])
    small, large, slow, broken = (
        driver.outcome(PublishJobEvents(batches=(sent,))).cost
        for sent in (
            packed(batch(lease, 0, "x")),
            packed(plain),
            packed(replace(plain, first_index=plain.count, count=1, events=fields)),
            packed(replace(plain, first_index=plain.count + 1, count=2, events=fields)),
        )
    )
    assert large > small
    assert min(slow, broken) > 3 * large, "fields are looked at one by one, and output is not"
    assert len(packed(plain).events) < 1_000


def looking_through_many_for_nothing_costs_too(driver: Driver) -> None:
    """Ten times the rows, and not a single one that is found."""

    def looked() -> int:
        return driver.outcome(ListJobs(owner="o", queue="none")).cost

    costs: list[int] = []
    for count in (10, 90):
        for _ in range(count):
            driver.enqueue(*(JobSpec(command="true", owner="o") for _ in range(ENQUEUE_MAX)))
        costs.append(looked())
    assert costs[1] > 5 * costs[0]


def nothing_that_may_wait_makes_a_lease_or_a_list_of_queues_costly(driver: Driver) -> None:
    """As many queues, tags and priorities as there may be: first none of them fits, then all do."""
    names = [f"t{number}" for number in range(10)]
    kinds = [dict.fromkeys(kind, "") for size in range(1, 11) for kind in combinations(names, size)][:NEEDS_MAX]
    queues = [f"q{number}" for number in range(QUEUES_MAX)]
    each = TENANT_NEEDS_MAX // QUEUES_MAX
    for at, queue in enumerate(queues):
        some = kinds[at % 8 * each :][:each]
        driver.enqueue(
            *(
                JobSpec(command="n", queue=queue, require=require, priority=priority)
                for require in some
                for priority in range(ENQUEUE_MAX // each)
            )
        )
    assert driver.outcome(driver.dequeue(*queues, slots=SLOTS_MAX)).cost <= COST_MAX
    assert driver.outcome(ListQueues()).cost <= COST_MAX
    known = (JobSpec(command="n", queue=queue, require=kinds[at % 8 * each]) for at, queue in enumerate(queues))
    assert driver.outcome(EnqueueJob(jobs=tuple(known))).cost <= COST_MAX
    tags = dict.fromkeys(names, "")
    leased = driver.outcome(driver.dequeue(*reversed(queues), slots=SLOTS_MAX, tags=tags))
    assert isinstance(leased.reply, JobsLeased)
    assert len(leased.reply.leases) == SLOTS_MAX
    assert leased.cost <= COST_MAX


def as_much_metadata_as_there_may_be_is_bounded_when_it_comes_and_when_it_goes(driver: Driver) -> None:
    for request in range(4):
        noted = [
            JobSpec(command="true", metadata={f"n{request}.{job}.{pair}": "" for pair in range(METADATA_MAX)})
            for job in range(ENQUEUE_METADATA_MAX // METADATA_MAX)
        ]
        outcome = driver.outcome(EnqueueJob(jobs=tuple(noted)))
        assert outcome.cost <= COST_MAX
        assert isinstance(outcome.reply, JobsEnqueued)
        for job_id in outcome.reply.job_ids:
            driver.cancel(job_id)
    more = True
    while more:
        step = driver.retain(finished_before_ms=driver.now_ms + 1)
        more = step.news.more
        assert step.cost <= COST_MAX
