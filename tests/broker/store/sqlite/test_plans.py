"""Whatever the store asks SQLite, an index answers it, and in order: no statement grows with what is stored."""

from __future__ import annotations

from contextlib import closing
from typing import Final

import apsw
import pytest

from airunner.broker.store.sqlite.store import open_store
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS

RESUMING: Final = "UPDATE job SET deadline_ms = ? + visibility_ms WHERE state = 'RUNNING'"
COUNTING: Final = "SELECT agent, count(*) FROM job WHERE tenant = ? AND state = 'RUNNING' GROUP BY agent"
TAKEN: Final = "SELECT coalesce(sum(bytes), 0), count(*) FROM usage WHERE bytes > 0"
LARGE: Final = "SELECT tenant FROM usage WHERE bytes > ? ORDER BY bytes DESC, tenant"
LISTING: Final = "SELECT job_id, state, spec,"


@pytest.fixture(scope="module")
def plans() -> dict[str, str]:
    """How each statement is answered that the laws make the store run."""
    asked: set[str] = set()

    def note(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        asked.add(sql)
        return True

    for law in LAWS.values():
        with closing(open_store("memory:")) as store:
            store._connection.exec_trace = note
            law(Driver(store))
    with closing(open_store("memory:")) as store:
        found = {sql: _plan(store._connection, sql) for sql in asked if not sql.startswith(("BEGIN", "COMMIT"))}
    assert len(found) > 40
    return found


def _plan(connection: apsw.Connection, sql: str) -> str:
    rows = connection.execute("EXPLAIN QUERY PLAN " + sql, (None,) * sql.count("?"))
    return "; ".join(str(row[3]) for row in rows)


def test_no_statement_reads_a_whole_table(plans: dict[str, str]):
    """But at the start, what runs, and when the store is too large, its tenants.

    SQLite's own page counts are tables in name only.
    """
    slow = {sql: plan for sql, plan in plans.items() if "SCAN" in plan and "SCAN pragma_" not in plan}
    assert set(slow) <= {RESUMING, TAKEN, LARGE}, slow


def test_nothing_is_sorted_but_tenants_and_the_names_of_a_tenants_busy_agents(plans: dict[str, str]):
    slow = {sql: plan for sql, plan in plans.items() if "TEMP B-TREE" in plan}
    assert set(slow) <= {COUNTING, LARGE}, slow


def test_jobs_are_found_by_state_alone_only_where_that_is_asked(plans: dict[str, str]):
    broad = {sql for sql, plan in plans.items() if "job_by_state" in plan and "state = ?" not in sql}
    assert broad <= {RESUMING, COUNTING}, broad


@pytest.mark.parametrize(
    ("word", "begin"),
    [("owner = ?", "SEARCH job USING INDEX job_by_owner"), ("fact = ?", "SEARCH found USING PRIMARY KEY")],
)
def test_a_listing_starts_with_what_narrows_it_most(plans: dict[str, str], word: str, begin: str):
    listings = {sql: plan for sql, plan in plans.items() if sql.startswith(LISTING) and word in sql}
    begins = [plan.startswith((begin, "SEARCH found USING PRIMARY KEY")) for plan in listings.values()]
    assert begins, "the laws ask for such a listing"
    assert all(begins), listings
