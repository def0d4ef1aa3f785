"""Engine on PostgreSQL: what it finds in rows that have no like in the other engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from airunner.broker.lifecycle.commands import Adopt, Beat, Retain
from airunner.broker.store.batch import TRIES_MAX, Store
from airunner.broker.store.contract import StoreUnsure
from airunner.broker.store.postgres import pipeline
from airunner.broker.store.postgres.engine import PostgresEngine
from airunner.broker.store.rows import BrokerSeen
from airunner.protocol.errors import Busy
from airunner.protocol.fields import JobSpec
from airunner.protocol.requests import EnqueueJob
from tests.conformance import counters
from tests.conformance.driving import Driver
from tests.postgresql.fleets import fleet, open_engine
from tests.postgresql.serving import Servers

pytestmark = pytest.mark.timeout(120)  # the first test makes a cluster


@pytest.fixture
def database(postgresql_servers: Servers) -> Iterator[str]:
    server = postgresql_servers(15)
    name = server.database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def engines(database: str) -> Iterator[Sequence[PostgresEngine]]:
    with fleet(database, 2) as opened:
        yield opened


def execute(engine: PostgresEngine, statement: str) -> None:
    engine._trips.link.connection.execute(statement.encode())


def test_a_waiting_job_that_is_set_aside_is_not_one_that_another_broker_has_locked(engines: Sequence[PostgresEngine]):
    driver = Driver(Store(engines[0]))
    driver.submit(*map(str, range(TRIES_MAX + 1)))
    execute(engines[0], r"UPDATE airunner.job SET spec = '\xc1'")
    with pytest.raises(Busy):  # a batch does not go through all of a damaged queue
        driver.outcome(driver.dequeue())
    for _ in range(2):
        (done,) = driver.apply(driver.ask(driver.dequeue())).done
        assert (done.news.locked, done.news.exhausted) == (set(), {("home", "default", "")})
    assert engines[0].damage == (TRIES_MAX + 1, TRIES_MAX + 1)


def test_the_number_of_the_last_batch_with_ready_jobs_is_known_after_a_start_and_after_a_commit_that_was_unsure(
    database: str, engines: Sequence[PostgresEngine], monkeypatch: pytest.MonkeyPatch
):
    driver = Driver(Store(engines[0]))
    driver.submit("a")
    send = engines[0]._trips.send

    def lost(*, committing: bool = False) -> object:
        rows = send(committing=committing)
        if committing:
            raise StoreUnsure
        return rows

    with monkeypatch.context() as cut:
        cut.setattr(engines[0]._trips, "send", lost)
        with pytest.raises(StoreUnsure):
            driver.submit("b")
    assert engines[0].ready_seq == 1
    driver.apply(Beat())
    with closing(open_engine(database, "broker-0")) as again:
        assert (engines[0].ready_seq, again.ready_seq) == (2, 2)


@pytest.mark.usefixtures("engines")
def test_statements_beyond_those_that_a_session_keeps_are_not_prepared(database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "PREPARED_MAX", 3)
    with closing(open_engine(database, "broker-3")) as engine:
        Driver(Store(engine)).submit("a")
        ((kept,),) = engine._trips.link.connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall()
        assert kept == 3


def test_the_counts_of_a_broker_that_ends_with_nothing_due_are_adopted(engines: Sequence[PostgresEngine]):
    first, second = (Driver(Store(engine)) for engine in engines)
    second.outcome(EnqueueJob(jobs=(JobSpec(command="true", require={"os": "linux"}),)))
    engines[1].retire()
    (beat,) = first.apply(Beat()).done
    (ended,) = [row for row in beat.news.brokers if row.dead and row.leases]
    first.apply(Adopt(BrokerSeen(ended.broker, ended.epoch, ended.beat)))
    (beat,) = first.apply(Beat()).done
    assert [row.leases for row in beat.news.brokers] == [0, 0]
    counters.require_right_in_postgres(engines[0])
    first.now_ms = 2**60
    first.apply(Retain(finished_before_ms=first.now_ms))
    (beat,) = first.apply(Beat()).done
    assert [row.broker for row in beat.news.brokers] == ["broker-0"]
