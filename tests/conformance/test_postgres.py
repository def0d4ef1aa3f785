"""PostgreSQL keeps every law, and does what the model does: one broker on the oldest version, three on the newest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from airunner.broker.store.postgres.engine import PostgresEngine
from tests.conformance import counters
from tests.conformance.driving import Driver
from tests.conformance.exercise import LARGE, LAWS
from tests.conformance.machine import StoreAndModel
from tests.conformance.rotation import OF_ONE_BROKER, Rotation
from tests.postgresql.fleets import empty, fleet
from tests.postgresql.serving import Servers

pytestmark = pytest.mark.timeout(120)  # the first test of a version makes a cluster
EACH = [(15, 1), pytest.param((18, 3), marks=pytest.mark.unmeasured)]  # each statement runs on both versions


@pytest.fixture(scope="module", params=EACH, ids=lambda each: f"{each[0]}-{each[1]}-brokers")
def engines(request: pytest.FixtureRequest, postgresql_servers: Servers) -> Iterator[Sequence[PostgresEngine]]:
    version, brokers = request.param
    server = postgresql_servers(version)
    database = server.database()
    with fleet(server.url(database), brokers) as opened:
        yield opened
    server.drop(database)


@pytest.fixture
def store(engines: Sequence[PostgresEngine]) -> Iterator[Rotation]:
    yield Rotation(engines)
    counters.require_right_in_postgres(engines[0])
    empty(engines)


@pytest.mark.parametrize("law", LAWS)
def test_postgres_keeps_the_law_and_counts_right(law: str, store: Rotation):
    if store.brokers > 1 and law in OF_ONE_BROKER:
        pytest.skip("the law is about what one broker owns")
    if store.brokers > 1 and law in LARGE:
        pytest.skip("the law is about large amounts, and one broker keeps it")
    LAWS[law](Driver(store))


@pytest.mark.parametrize("seed", range(2))
def test_postgres_does_what_the_model_does_and_counts_right(seed: int, store: Rotation):
    # Of a lease that another broker renews the deadline is set, and not kept if it is later, as the model does.
    StoreAndModel(store, seed + store.brokers, visibility_ms=(2_000,)).run()
