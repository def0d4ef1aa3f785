"""Ways to a store on PostgreSQL: through a pooler, and as a role that owns nothing."""

from __future__ import annotations

import pytest

from airunner.broker.store.postgres.opening import initialise
from tests.conformance.machine import StoreAndModel
from tests.conformance.rotation import Rotation
from tests.postgresql.fleets import fleet
from tests.postgresql.pooling import pooled
from tests.postgresql.serving import ONE_VERSION, Server

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120), ONE_VERSION]


def test_two_brokers_do_through_a_pooler_what_the_model_does(database: str):
    with pooled(database) as url, fleet(url, 2) as engines:
        assert all(engine._trips.link.connection.prepare_threshold is None for engine in engines)
        StoreAndModel(Rotation(engines), 2, visibility_ms=(2_000,)).run()  # as brokers in rotation set it


def test_a_role_with_the_rights_that_are_granted_does_what_the_model_does(postgresql: Server, database: str):
    name = database.rpartition("/")[2].partition("?")[0]
    postgresql.execute("CREATE ROLE granted LOGIN")
    try:
        initialise(database, "granted")
        with fleet(postgresql.url(name, "granted"), 1) as engines:
            StoreAndModel(Rotation(engines), 1).run()
    finally:
        postgresql.execute("DROP OWNED BY granted", database=name)
        postgresql.execute("DROP ROLE granted")
