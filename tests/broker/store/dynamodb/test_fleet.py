"""Several brokers on one table: what is seen late, and what a dead broker has left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airunner.broker.lifecycle.commands import Adopt, Beat, RenewAll
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Fenced
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.owned import LATE_S, OVERDUE_MS, SEARCHED_S
from airunner.broker.store.dynamodb.schema import SHARDS
from airunner.broker.store.rows import BrokerRow, BrokerSeen, QueueKey
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobLease, JobsLeased, JobsListed, QueueMode, QueuesListed, Verdict
from airunner.protocol.requests import GetJob, ListJobs, ListQueues, UpdateQueue
from tests.broker.store.dynamodb.opened import TABLE, AtOnce, before_commit, opened
from tests.conformance.driving import VISIBILITY_MS, Driver, batch
from tests.simulation.dynamodb.client import Client
from tests.simulation.dynamodb.server import Server
from tests.simulation.dynamodb.table import Table

DEFAULT = QueueKey("home", "default")


class World:
    """A table whose indexes are as late as they are told to be, and a clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.late_s = 0.0
        self.table = Table(now_s=lambda: self.now_s, late_s=lambda: self.late_s)
        self.client = Client(Server({TABLE: self.table}, lambda: self.now_s))

    def edges(self) -> AtOnce:
        edges = AtOnce()
        edges.steady_s = lambda: self.now_s
        return edges


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def brokers(world: World) -> Iterator[tuple[Driver, Driver]]:
    with opened(world.client, edges=world.edges) as first, opened(world.client, "broker-1", edges=world.edges) as other:
        drivers = Driver(Store(first)), Driver(Store(other))
        drivers[1]._drawn = 1_000_000  # their ids are not the same
        yield drivers


@contextmanager
def started_again(world: World, after_ms: int = 0, late_s: float = 0.0) -> Iterator[tuple[Driver, JobLease]]:
    """A broker whose process before has granted a lease, so long ago; since then the indexes are late."""
    with opened(world.client, edges=world.edges) as engine:
        before = Driver(Store(engine))
        lease = before.started()
    world.late_s = late_s
    with opened(world.client, edges=world.edges) as engine:
        driver = Driver(Store(engine))
        driver._drawn, driver.now_ms = 1_000_000, before.now_ms + after_ms
        yield driver, lease


def engine_of(driver: Driver) -> DynamoEngine:
    assert isinstance(driver.store.engine, DynamoEngine)
    return driver.store.engine


def row_of(driver: Driver, broker: str) -> BrokerRow:
    return next(row for row in driver.apply(Beat()).done[0].news.brokers if row.broker == broker)


def adopt(driver: Driver, broker: str) -> set[str]:
    row = row_of(driver, broker)
    return driver.apply(Adopt(BrokerSeen(row.broker, row.epoch, row.beat))).done[0].news.adopted


def test_a_job_is_leased_by_its_broker_though_no_index_shows_it(world: World, brokers: tuple[Driver, Driver]):
    world.late_s = 5
    first, _ = brokers
    first.submit()
    assert len(first.lease()) == 1
    assert first.lease() == (), "and not twice, though the index may show it for a while"


def test_what_another_broker_hints_at_is_searched_for_until_the_index_must_show_it(
    world: World, brokers: tuple[Driver, Driver]
):
    world.late_s = 5
    first, other = brokers
    first.submit()
    engine_of(other).forget_places({DEFAULT})
    outcome = other.outcome(other.dequeue())
    assert (outcome.reply, outcome.news.locked) == (JobsLeased(), {DEFAULT}), "to be asked again soon"
    first_ms = other.store.locked_ms
    world.now_s += first_ms / 1_000
    assert other.outcome(other.dequeue()).news.locked == {DEFAULT}
    assert other.store.locked_ms == 2 * first_ms, "and then less often"
    world.now_s += 5.1
    assert len(other.lease()) == 1
    world.now_s += LATE_S
    assert other.outcome(other.dequeue()).news.locked == set(), "and not for ever"


def test_a_lease_of_what_another_has_leased_meanwhile_is_not_granted(world: World, brokers: tuple[Driver, Driver]):
    first, other = brokers
    first.submit()
    world.now_s += LATE_S
    world.late_s = 5
    assert len(first.lease()) == 1
    assert other.lease() == (), "though the index shows it still"


def test_a_pause_holds_for_every_broker_once_it_is_told(brokers: tuple[Driver, Driver]):
    first, other = brokers
    first.submit("a", "b")
    other.submit("c")
    first.set_mode(QueueMode.PAUSED)
    assert (first.lease(), other.lease()) == ((), ())
    other.set_mode(QueueMode.OPEN)
    assert (len(first.lease()), len(other.lease())) == (1, 1)


def test_a_lease_that_was_decided_before_a_pause_is_decided_again(brokers: tuple[Driver, Driver]):
    first, other = brokers
    first.submit()
    other.submit("b")
    before_commit(engine_of(first), lambda: other.reply(object, UpdateQueue(queue="default", mode=QueueMode.PAUSED)))
    assert first.lease() == ()


def test_the_first_job_of_a_broker_in_a_queue_that_is_being_paused_is_decided_again(brokers: tuple[Driver, Driver]):
    first, other = brokers
    first.submit("a")
    before_commit(engine_of(other), lambda: first.reply(object, UpdateQueue(queue="default", mode=QueueMode.PAUSED)))
    assert other.lease() == (), "this broker had no tallies of the tenant, which the pause could have changed"


def test_a_dead_brokers_jobs_and_counts_are_adopted_and_it_is_fenced_off(world: World, brokers: tuple[Driver, Driver]):
    first, other = brokers
    first.submit("a", "b", "c")
    (lease,) = first.lease()
    first.enqueue(JobSpec(command="later", not_before_ms=first.now_ms + 5_000))
    world.now_s += LATE_S
    other.now_ms = first.now_ms
    assert adopt(other, "broker-0") == {"broker-0"}
    with pytest.raises(Fenced):
        first.lease()
    job = other.job(lease.job_id)
    assert job.state is JobState.RUNNING
    assert other.verdict(lease) is Verdict.KEPT
    (summary,) = other.reply(QueuesListed, ListQueues()).queues
    assert (summary.waiting, summary.delayed, summary.running) == (3, 1, 1)
    assert adopt(other, "broker-0") == set(), "there was nothing new"
    world.now_s += LATE_S
    adopt(other, "broker-0")
    assert row_of(other, "broker-0").leases == 0, "nothing of it is left"
    other.pass_ms(VISIBILITY_MS + 1)
    assert other.job(lease.job_id).state is JobState.SCHEDULED
    assert len(other.lease(slots=9)) == 4


def test_a_broker_that_has_beaten_since_it_was_seen_is_not_adopted(brokers: tuple[Driver, Driver]):
    first, other = brokers
    row = row_of(other, "broker-0")
    first.apply(Beat())
    assert other.apply(Adopt(BrokerSeen(row.broker, row.epoch, row.beat))).done[0].news.adopted == set()
    assert len(first.submit()) == 1


def test_what_a_dead_broker_had_under_way_is_found_and_adopted_later(world: World, brokers: tuple[Driver, Driver]):
    first, other = brokers
    first.submit()

    def late() -> None:
        adopt(other, "broker-0")
        world.now_s += LATE_S
        adopt(other, "broker-0")
        assert row_of(other, "broker-0").leases == 0

    before_commit(engine_of(first), late)
    with pytest.raises(Fenced):  # its tallies are gone, so it decides again, and meets its own row
        first.lease()
    table = world.table
    job = next(item for item in table.items() if item["pk"]["S"].startswith("J#") and item["sk"]["S"] == "0")
    assert "w" in job, "the job waits still"


def test_a_process_that_starts_again_renews_its_leases_and_finds_them_though_the_index_is_late(world: World):
    with started_again(world, late_s=5) as (driver, lease):
        driver.renew_all()
        assert driver.apply().next_due_ms is None, "no index shows it yet"
        world.now_s += SEARCHED_S + LATE_S
        driver.now_ms += VISIBILITY_MS + OVERDUE_MS + 1
        driver.apply(Beat())
        assert driver.apply().next_due_ms == driver.now_ms + VISIBILITY_MS, "a full period since it is known again"
        assert driver.pass_ms(VISIBILITY_MS).news.ready == {DEFAULT}
        assert driver.job(lease.job_id).state is JobState.SCHEDULED


def test_a_lease_that_the_process_before_has_granted_is_renewed_as_soon_as_it_is_met(world: World):
    """The deadline is an instant of the clock of that process, and no index showed the lease at the start."""
    with started_again(world, VISIBILITY_MS + 1, late_s=5) as (driver, lease):
        driver.renew_all()
        driver.publish(batch(lease, 0, "x"))
        assert driver.apply().next_due_ms == driver.now_ms + VISIBILITY_MS
        assert driver.expire().news.ready == set()


def test_a_renewal_at_the_start_gives_each_lease_a_full_period(world: World):
    with started_again(world, 10 * VISIBILITY_MS) as (driver, lease):
        assert driver.apply(RenewAll()).next_due_ms == driver.now_ms + VISIBILITY_MS
        assert driver.verdict(lease) is Verdict.KEPT


def test_a_dead_brokers_last_lease_is_adopted_though_no_index_showed_it_at_first(
    world: World, brokers: tuple[Driver, Driver]
):
    world.late_s = 5
    first, other = brokers
    lease = first.started()
    other.now_ms = first.now_ms
    adopt(other, "broker-0")
    assert other.apply().next_due_ms is None
    assert row_of(other, "broker-0").leases == 1, "it may own more than was found"
    world.now_s += 5.1
    assert adopt(other, "broker-0") == {"broker-0"}
    assert other.apply().next_due_ms == other.now_ms + VISIBILITY_MS
    assert other.verdict(lease) is Verdict.KEPT


def test_a_lease_searches_no_more_queues_than_it_takes_jobs_from(brokers: tuple[Driver, Driver], world: World):
    first, other = brokers
    queues = [f"queue-{number}" for number in range(32)]
    for queue in queues:
        first.submit("a", "b", queue=queue)
    asked: list[str] = []
    query = world.client.query

    def noted(**request: Any) -> dict[str, Any]:
        asked.append(request.get("IndexName", ""))
        return query(**request)

    world.client.query = noted
    (lease,) = other.lease(*queues)
    assert lease.spec.queue == queues[0]
    assert asked.count("waiting") == SHARDS
    asked.clear()
    leases = other.lease(*queues, slots=8)
    assert [lease.spec.queue for lease in leases] == [
        queues[0],
        *(queue for queue in queues[1:4] for _ in "ab"),
        queues[4],
    ]
    assert asked.count("waiting") <= 7 * SHARDS, "1, 2 and 4 queues"


def test_a_lease_finds_the_only_job_in_the_last_of_many_queues(brokers: tuple[Driver, Driver]):
    first, other = brokers
    queues = [f"queue-{number}" for number in range(32)]
    for queue in queues:
        first.submit(queue=queue)
    for queue in queues[:-1]:
        first.lease(queue)
    (lease,) = other.lease(*queues)
    assert lease.spec.queue == queues[-1]
    assert other.outcome(other.dequeue(*queues)).news.exhausted == {QueueKey("home", queue) for queue in queues}


def test_a_job_that_cannot_be_read_is_set_aside_and_nothing_else(world: World, brokers: tuple[Driver, Driver]):
    first, other = brokers
    broken, sound = first.submit("a", "b")
    engine = engine_of(other)
    key = {"pk": {"S": f"J#home#{broken}"}, "sk": {"S": "0"}}
    item = world.client.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"]
    world.client.put_item(TableName=TABLE, Item={**item, "r": {"B": b"\xc1"}})
    assert [job.id for job in other.reply(JobsListed, ListJobs()).jobs] == [sound]
    assert [lease.job_id for lease in other.lease(slots=2)] == [sound]
    other.refused("corrupt-log", GetJob(job_id=broken))
    assert engine.damage[1] == 1
    other.cancel(sound)
    other.pass_ms(VISIBILITY_MS + 1)
    assert adopt(other, "broker-0") == {"broker-0"}
