"""Whatever the store asks SQLite, an index answers it, and in order: no statement grows with what is stored."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Final

import apsw
import pytest

from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.opening import open_sqlite
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS

# What is asked at a start, of what runs or is delayed; when the store is too large, of its tenants; for /metrics, of so
# many queues.
WHOLE: Final = (
    "SELECT number FROM job WHERE deadline_ms IS NOT NULL",
    "SELECT number FROM job WHERE due_ms IS NOT NULL",
    "SELECT tenant, size_bytes, waiting FROM queue WHERE name = ''",
    "SELECT ifnull(sum(waiting), 0)",
)
COUNTING: Final = "SELECT agent, count(*) FROM job"  # of what runs
TABLES: Final = "(job|segment|pending_deletion|metadata|record|queue|kind|secret)"
TABLE_SCAN: Final = re.compile(rf"SCAN {TABLES}\b|SEARCH {TABLES}($|;)")
NEXT_NUMBER: Final = "SELECT max(number) FROM job"  # the end of the table's own order
LISTING: Final = "SELECT job.number, job.job_id,"


pytestmark = pytest.mark.timeout(120)  # the fixture runs every law


@pytest.fixture(scope="module")
def plans() -> dict[str, str]:
    """How each statement is answered that the laws make the store run."""
    asked: set[str] = set()

    def note(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        asked.add(sql)
        return True

    for law in LAWS.values():
        with closing(open_sqlite(None)) as engine:
            engine._db.exec_trace = note
            law(Driver(Store(engine)))
    with closing(open_sqlite(None)) as engine:
        found = {sql: _plan(engine._db, sql) for sql in asked if not sql.startswith(("BEGIN", "COMMIT"))}
    assert len(found) > 40
    return found


def _plan(connection: apsw.Connection, sql: str) -> str:
    values = len(set(re.findall(r"\?\d", sql))) or sql.count("?")
    rows = connection.execute("EXPLAIN QUERY PLAN " + sql, (None,) * values)
    return "; ".join(str(row[3]) for row in rows)


def few(sql: str) -> bool:
    """Whether a statement asks for jobs whose ids begin alike: they are found by that, and may be sorted."""
    return "job.job_id >= ?" in sql


def test_no_statement_reads_a_whole_table(plans: dict[str, str]):
    """But the first row of one in its order."""
    whole = {sql: plan for sql, plan in plans.items() if TABLE_SCAN.search(plan) and not sql.endswith("LIMIT 1")}
    assert {sql for sql in whole if not sql.startswith((*WHOLE, COUNTING, NEXT_NUMBER))} == set(), whole
    running = {sql: plan for sql, plan in plans.items() if "SCAN job" in plan}
    assert all("INDEX job_d" in plan for plan in running.values()), running


def test_nothing_is_sorted_but_the_names_of_busy_agents(plans: dict[str, str]):
    sorted_ = {sql: plan for sql, plan in plans.items() if "TEMP B-TREE" in plan and not sql.startswith(COUNTING)}
    assert all("USING INDEX sqlite_autoindex_job_1 (job_id>? AND job_id<?)" in plans[sql] for sql in plans if few(sql))
    sorted_ = {sql: plan for sql, plan in sorted_.items() if not few(sql)}
    assert sorted_ == {}


def test_jobs_are_found_by_state_alone_only_where_that_is_asked(plans: dict[str, str]):
    broad = {sql: plan for sql, plan in plans.items() if "job_by_state" in plan and "job.state = ?" not in sql}
    assert broad == {}


@pytest.mark.parametrize(
    ("word", "begin"),
    [("owner = ?", "SEARCH job USING INDEX job_by_owner"), ("fact = ?", "SEARCH found USING PRIMARY KEY")],
)
def test_a_listing_starts_with_what_narrows_it_most(plans: dict[str, str], word: str, begin: str):
    listings = {sql: plan for sql, plan in plans.items() if sql.startswith(LISTING) and word in sql and not few(sql)}
    begins = [plan.startswith((begin, "SEARCH found USING PRIMARY KEY")) for plan in listings.values()]
    assert begins, "the laws ask for such a listing"
    assert all(begins), listings
