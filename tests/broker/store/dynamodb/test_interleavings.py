"""Interleavings and lost answers that are rare: nothing that was acknowledged is lost by any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count, islice
from typing import Any

import pytest
from botocore.exceptions import ClientError
from msgspec.structs import replace

from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import StoreAway
from airunner.broker.store.dynamodb.outbox import INSIDE_MAX, PARCELS_READ
from airunner.broker.store.dynamodb.owned import LATE_S, SEARCHED_S
from airunner.broker.store.dynamodb.schema import bucket_of, job_pk
from airunner.broker.store.dynamodb.table import TRIES_MAX
from airunner.broker.store.rows import BrokerRow, BrokerSeen
from airunner.protocol.errors import NoSpace, OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.names import NAME_CHARS_MAX
from airunner.protocol.replies import JobReleasedReply, JobsLeased, QueueMode, QueueUpdated, Refused
from airunner.protocol.requests import EnqueueJob, UpdateJob, UpdateQueue
from tests.broker.store.dynamodb.opened import TABLE, AtOnce, before_commit, opened
from tests.conformance.driving import VISIBILITY_MS, Driver, release
from tests.simulation.dynamodb.client import Client
from tests.simulation.dynamodb.server import Answer, Server
from tests.simulation.dynamodb.table import Table

LARGE = "a" * 5_000


class Faulty:
    """A way to the server on which some calls fail, before the server has got them."""

    def __init__(self) -> None:
        self.left = 0
        self.fails: Callable[[str, Mapping[str, Any]], bool] = lambda _operation, _request: False
        self.code, self.status = "InternalServerError", 500

    def __call__(self, operation: str, request: Mapping[str, Any], act: Callable[[], Answer]) -> Answer:
        if self.left and self.fails(operation, request):
            self.left -= 1
            answer = {"Error": {"Code": self.code}, "ResponseMetadata": {"HTTPStatusCode": self.status}}
            raise ClientError(answer, operation)
        return act()

    def fail(self, fails: Callable[[str, Mapping[str, Any]], bool], times: int = TRIES_MAX) -> None:
        self.fails, self.left = fails, times


@pytest.fixture
def way() -> Faulty:
    return Faulty()


@pytest.fixture
def client(way: Faulty) -> Client:
    return Client(Server({TABLE: Table()}), way)


def is_of(prefix: str, sk: str = "") -> Callable[[str, Mapping[str, Any]], bool]:
    """Writes of single items whose keys begin so."""

    def matches(operation: str, request: Mapping[str, Any]) -> bool:
        key = request.get("Item") or request.get("Key") or {}
        is_write = operation in ("put_item", "delete_item")
        return is_write and key["pk"]["S"].startswith(prefix) and key["sk"]["S"].startswith(sk)

    return matches


def row_of(driver: Driver, broker: str) -> BrokerRow:
    return next(row for row in driver.apply(Beat()).done[0].news.brokers if row.broker == broker)


def adopt(driver: Driver, broker: str) -> None:
    row = row_of(driver, broker)
    driver.apply(Adopt(BrokerSeen(row.broker, row.epoch, row.beat)))


def test_no_job_is_stored_without_its_spec(way: Faulty, client: Client):
    with opened(client) as engine:
        driver = Driver(Store(engine))
        way.fail(is_of("J#", "S"))
        with pytest.raises(StoreAway):
            driver.submit(LARGE)
        driver.submit(LARGE)
        assert [lease.spec.command for lease in driver.lease(slots=9)] == [LARGE]


def test_parcels_of_a_dead_broker_are_not_lost_with_an_answer(way: Faulty, client: Client):
    with opened(client, announces=True) as engine:
        jobs = set(Driver(Store(engine)).submit(*["true"] * (INSIDE_MAX + 1)))
        engine.retire()
    with opened(client, "broker-1", announces=True) as other:
        others = Driver(Store(other))
        way.fail(is_of("O#broker-1"))
        with pytest.raises(StoreAway):
            adopt(others, "broker-0")
        adopt(others, "broker-0")
        assert {entry.job_id for entry in other.outbox(1_000)} == jobs


def test_what_a_dead_broker_has_left_comes_out_though_it_has_to_be_moved_to_a_parcel(client: Client):
    with opened(client, announces=True) as engine, opened(client, "broker-1", announces=True) as other:
        jobs = set(Driver(Store(engine)).submit(*["true"] * (INSIDE_MAX - 1)))
        others = Driver(Store(other))
        others._drawn = 1_000_000
        jobs |= set(others.submit("a", "b"))
        assert len(other.outbox(1_000)) == 2
        engine.retire()
        adopt(others, "broker-0")
        assert {entry.job_id for entry in other.outbox(1_000)} == jobs


def test_parcels_whose_deletion_fails_do_not_keep_others_back(way: Faulty, client: Client):
    with opened(client, announces=True) as engine:
        driver = Driver(Store(engine))
        way.code, way.status = "ProvisionedThroughputExceededException", 400
        for _ in range(PARCELS_READ):
            driver.submit(*["true"] * (INSIDE_MAX + 1))
            way.fail(is_of("O#"))
            with pytest.raises(StoreAway):
                engine.published(engine.outbox(1_000))
        jobs = set(driver.submit(*["true"] * (INSIDE_MAX + 1)))
        found: set[str] = set()
        while entries := engine.outbox(1_000):
            found |= {entry.job_id for entry in entries}
            engine.published(entries)
        assert found >= jobs
        assert not [item for item in client.server.tables[TABLE].items() if item["pk"]["S"].startswith("O#")]


def test_a_pause_holds_though_a_batch_changes_no_counter_of_the_queue(client: Client):
    with opened(client) as engine, opened(client, "broker-1") as other:
        first, second = Driver(Store(engine)), Driver(Store(other))
        assert bucket_of("default") != bucket_of("b")
        first.submit("a")
        first.submit("before", queue="b")
        lease = first.lease_one()
        before_commit(engine, lambda: second.reply(QueueUpdated, UpdateQueue(queue="default", mode=QueueMode.PAUSED)))
        more = EnqueueJob(jobs=(JobSpec(command="b", queue="b"),))
        commands = [first.ask(request) for request in (release(lease), more, first.dequeue())]
        replies = [done.reply for done in first.apply(*commands).done]
        assert replies[2] == JobsLeased()


def test_a_request_that_is_granted_the_same_job_again_is_granted_no_other_job_elsewhere(client: Client):
    with opened(client) as engine, opened(client, "broker-1") as other:
        first, second = Driver(Store(engine)), Driver(Store(other))
        first.submit("a")
        asked, request_id = first.dequeue("default", "b"), first.draw(16)
        (undelivered,) = first.reply(JobsLeased, asked, request_id=request_id).leases
        first.reply(JobReleasedReply, release(undelivered), request_id=request_id)
        first.submit("b", queue="b")
        repeated = replace(asked, queues=("b", "default"))
        before_commit(other, lambda: first.reply(JobsLeased, asked, request_id=request_id))
        (lease,) = second.reply(JobsLeased, repeated, request_id=request_id).leases
        assert lease.job_id == undelivered.job_id


def test_a_lease_that_an_agent_has_got_from_another_broker_is_not_given_back_after_a_late_copy_of_its_request(
    client: Client,
):
    with opened(client) as engine, opened(client, "broker-1") as other:
        first, second = Driver(Store(engine)), Driver(Store(other))
        first.submit("a")
        asked, request_id = first.dequeue(), first.draw(16)
        granted = first.outcome(asked, request_id=request_id)
        assert isinstance(granted.reply, JobsLeased)
        (lease,) = granted.reply.leases
        second.pass_ms(5)
        assert second.reply(JobsLeased, asked, request_id=request_id) == granted.reply
        first.pass_ms(10)
        assert first.reply(JobsLeased, asked, request_id=request_id) == granted.reply, "it owns the lease again"
        undelivered = replace(first.ask(release(lease), request_id=request_id), deadline_ms=granted.news.deadline_ms)
        (done,) = first.apply(undelivered).done
        assert isinstance(done.reply, Refused)
        assert first.state(lease.job_id) is JobState.RUNNING


def test_a_waiting_job_with_a_large_spec_is_leased_though_a_late_heartbeat_of_the_batch_names_it(client: Client):
    with opened(client) as engine:
        driver = Driver(Store(engine))
        driver.submit(LARGE)
        lease = driver.lease_one()
        driver.pass_ms(VISIBILITY_MS + 1)
        late = UpdateJob(leases=(lease.ref,), visibility_ms=VISIBILITY_MS)
        (_, leased) = driver.apply(driver.ask(late), driver.ask(driver.dequeue())).done
        assert isinstance(leased.reply, JobsLeased)
        assert [again.spec.command for again in leased.reply.leases] == [LARGE]


def test_what_a_dead_broker_stored_late_for_a_new_tenant_is_found_and_announced(client: Client):
    now_s = 0.0

    def edges() -> AtOnce:
        made = AtOnce()
        made.steady_s = lambda: now_s
        return made

    with (
        opened(client, announces=True, edges=edges) as engine,
        opened(client, "broker-1", announces=True, edges=edges) as other,
    ):
        first, second = Driver(Store(engine)), Driver(Store(other))

        def late() -> None:
            nonlocal now_s
            adopt(second, "broker-0")
            now_s += LATE_S
            adopt(second, "broker-0")

        before_commit(engine, late)
        (job_id,) = first.submit(tenant="new")
        assert other.outbox(10) == []
        second.retain()
        assert row_of(second, "broker-0").leases, "it has left something"
        adopt(second, "broker-0")
        assert [entry.job_id for entry in other.outbox(10)] == [job_id]


@pytest.mark.unmeasured
def test_a_tenant_with_very_many_queues_gets_no_further_ones_and_all_others_go_on(client: Client):
    named = (f"{number:06d}".ljust(NAME_CHARS_MAX, "q") for number in count())
    queues = (queue for queue in named if bucket_of(queue) == bucket_of("default"))
    with opened(client) as engine:
        driver = Driver(Store(engine))
        for _ in range(33):
            driver.enqueue(*[JobSpec(command="a", queue=queue) for queue in islice(queues, 80)])
        with pytest.raises(NoSpace):
            driver.enqueue(*[JobSpec(command="a", queue=queue) for queue in islice(queues, 80)])
        driver.ended()
        driver.submit(queue="another")


def test_a_lease_that_nobody_remembers_ends_though_very_many_long_ones_are_before_it_in_the_index(
    client: Client, monkeypatch: pytest.MonkeyPatch
):
    now_s = 0.0

    def edges() -> AtOnce:
        made = AtOnce()
        made.steady_s = lambda: now_s
        return made

    monkeypatch.setattr("airunner.broker.store.dynamodb.owned.OVERDUE_MAX", 2)
    with opened(client, edges=edges) as engine:
        driver = Driver(Store(engine))
        driver.submit(*["true"] * 40)
        long = driver.lease(slots=39)
        driver.now_ms += 1
        lost = driver.lease_one()
        engine._owned.forget(job_pk("home", lost.job_id))
        for _ in range(20):
            driver.now_ms += VISIBILITY_MS
            now_s += SEARCHED_S
            driver.reply(object, UpdateJob(leases=tuple(lease.ref for lease in long), visibility_ms=VISIBILITY_MS))
            driver.apply(Beat())
            driver.expire()
        assert driver.state(lost.job_id) is JobState.SCHEDULED
        assert {driver.state(lease.job_id) for lease in long} == {JobState.RUNNING}


def test_after_an_outage_others_look_for_what_its_last_batch_has_made_ready(client: Client):
    with opened(client) as engine, opened(client, "broker-1") as other:
        driver, second = Driver(Store(engine)), Driver(Store(other))
        driver.apply(Beat())
        before = row_of(second, "broker-0").ready_seq
        driver.store.reconnect()
        driver.apply(Beat())
        assert row_of(second, "broker-0").ready_seq > before


def test_a_table_that_does_not_answer_when_it_is_claimed_is_away(way: Faulty, client: Client):
    way.fail(is_of("STORE"))
    with pytest.raises(OperatorError, match=TABLE), opened(client):
        raise AssertionError("it is open")
    with opened(client) as engine:
        assert Driver(Store(engine)).submit()
