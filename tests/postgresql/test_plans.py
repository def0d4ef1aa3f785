"""Whatever the engine asks PostgreSQL, an index answers it: no statement grows with what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg
import pytest

from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.store.batch import Store
from airunner.broker.store.postgres import adopting, loading, pages, saving
from airunner.broker.store.postgres.arrays import Bigints, Byteas, Texts
from airunner.broker.store.postgres.trips import SETTINGS, Value
from airunner.broker.store.rows import BrokerSeen
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS
from tests.postgresql.fleets import empty, fleet
from tests.postgresql.serving import Servers

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # the fixture runs every law
JOBS: Final = 20_000
FILL: Final = f"""
INSERT INTO airunner.job (number, job_id, tenant, queue, needs, gate, state, priority, owner, watch_key, submitted_ms,
    attempt, retries, agents_lost, max_attempts, last_sequence, next_index, broker, unmet, awaits,
    dependents, spec)
    SELECT number, 'filled-' || number, 'filled', 'q' || number % 9, '', 0, 'SCHEDULED', 0, '', '', 1, 0, 0, 0, 3, 1, 0,
    'broker-1', 0, '', '', '' FROM generate_series(1000000, 1000000 + {JOBS}) AS number;
INSERT INTO airunner.waiting SELECT tenant, queue, '', 0, number FROM airunner.job WHERE tenant = 'filled';
INSERT INTO airunner.segment SELECT number, 1, 1, 0, 1, '' FROM airunner.job WHERE tenant = 'filled';
INSERT INTO airunner.record SELECT tenant, job_id::bytea, '', 1, job_id FROM airunner.job WHERE tenant = 'filled';
"""
TYPES: Final[Mapping[type, str]] = {
    Bigints: "bigint[]",
    Texts: "text[]",
    Byteas: "bytea[]",
    int: "bigint",
    str: "text",
    bytes: "bytea",
}
LARGE: Final = {"job", "waiting", "segment", "metadata", "record", "pending_deletion"}
WHOLE: Final = (  # what runs, at an adoption, or for lists of brokers and agents; the first logs that are to be deleted
    *(adopting.LOCK_OWNED, adopting.ADOPT, loading.BROKERS, loading.OLD_BROKERS, loading.PENDING_LOGS),
    *(pages.LEASES, pages.BROKERS.format("TRUE")),
)
ORDERED: Final = (loading.WAITING, loading.SEEN, loading.EXPIRED, loading.DELAYED, loading.FINISHED, saving.NEXT_DUE)


ONE_TENANT: Final = """
DELETE FROM airunner.job WHERE tenant <> 'filled';
UPDATE airunner.job SET state = 'SUCCEEDED', finished_ms = number WHERE number % 2 = 0;
"""
STATISTICS: Final = ("unknown", "analyzed", "one tenant")
BY_HAND: Final = """
DO $$ DECLARE name text; BEGIN FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'airunner' LOOP
    EXECUTE format('ALTER TABLE airunner.%I SET (autovacuum_enabled = off)', name); END LOOP; END $$
"""


@pytest.fixture(scope="module")
def planned(postgresql_servers: Servers) -> Iterator[Mapping[str, dict[str, Any]]]:
    """How each statement is answered that the laws make the engine send, by what the server knows of the tables."""
    server = postgresql_servers(18)  # which can plan a statement before its values are known
    database = server.database()
    asked: dict[str, Sequence[Value]] = {}
    with fleet(server.url(database), 2) as (engine, other), psycopg.connect(server.url(database)) as connection:
        server.execute(BY_HAND, database=database)
        trips, add = engine._trips, engine._trips.add

        def noted(name: str, statement: str, *values: Value) -> None:
            asked[statement] = values
            add(name, statement, *values)

        vars(trips)["add"] = noted
        for law in LAWS.values():
            empty([engine])
            law(Driver(Store(engine)))
        Store(other).apply([Beat()], 1)
        assert not engine.size_bytes, "it is measured with the next beat"
        Store(engine).apply([Beat(), Adopt(seen=BrokerSeen("broker-1", 1, 1))], 1)

        def plans() -> dict[str, Any]:
            for name, value in SETTINGS.items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            return {sql: explained(connection, sql, values) for sql, values in asked.items() if is_planned(sql)}

        server.execute(FILL, database=database)
        found = [plans()]
        for change in ("SELECT 1", ONE_TENANT):
            server.execute(change, "ANALYZE", database=database)
            found.append(plans())
        yield dict(zip(STATISTICS, found, strict=True))
    server.drop(database)


@pytest.fixture(params=STATISTICS)
def plans(request: pytest.FixtureRequest, planned: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """How each statement is answered."""
    return planned[request.param]


def is_planned(sql: str) -> bool:
    return not sql.startswith(("BEGIN", "COMMIT"))


def explained(connection: psycopg.Connection[Any], sql: str, values: Sequence[Value]) -> Any:
    """The plan of a statement for any values."""
    parts = sql.split("%b")
    named = [f"${number}::{TYPES[type(value)]}" for number, value in enumerate(values, start=1)]
    typed = "".join(part + value for part, value in zip(parts, [*named, ""], strict=True))
    ((plan,),) = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {typed}".encode()).fetchall()
    return plan[0]["Plan"]


def nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def test_no_statement_reads_a_whole_table_or_index(plans: dict[str, Any]):
    assert len(plans) > 80
    broad: dict[str, list[str]] = {}
    for sql, plan in plans.items():
        for node in nodes(plan):
            reads = node.get("Relation Name") in LARGE and node["Node Type"] not in {"ModifyTable", "Bitmap Heap Scan"}
            if reads and "Index Cond" not in node and sql not in WHOLE:
                broad.setdefault(sql[sql.find("FROM") :], []).append(
                    f"{node['Node Type']} {node.get('Index Name', '')} {node['Relation Name']}"
                )
    assert not broad, "\n".join(f"{where} {sql}" for sql, where in broad.items())


def test_what_is_searched_in_an_order_is_not_sorted(plans: dict[str, Any]):
    ordered = {sql: plan for sql, plan in plans.items() if sql in ORDERED}
    assert {*ordered} == {*ORDERED}
    for sql, plan in ordered.items():
        keys = [key for node in nodes(plan) for key in node.get("Sort Key", ())]
        assert not [key for key in keys if key.endswith(("place", "number", "_ms"))], sql
