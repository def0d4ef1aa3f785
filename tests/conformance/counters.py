"""The counters of an engine: queues, kinds of jobs, and what a tenant takes, step by step and added up."""

from __future__ import annotations

from airunner.broker.lifecycle.world import QUEUE_BYTES, RECORD_BYTES
from airunner.broker.store.postgres.engine import PostgresEngine
from airunner.broker.store.sqlite.engine import SqliteEngine

WAITS = "state IN ('SCHEDULED', 'BLOCKED')"
DELAYED = "state = 'BLOCKED' OR state = 'SCHEDULED' AND due_ms IS NOT NULL"
READY = "state = 'SCHEDULED' AND due_ms IS NULL"
COUNTED = {  # by what is counted step by step: the same, added up
    "SELECT tenant, size_bytes FROM queue WHERE name = '' AND size_bytes != 0": f"""
        SELECT tenant, sum(bytes) FROM (
            SELECT tenant, length(spec) AS bytes FROM job
            UNION ALL SELECT job.tenant, length(events) FROM segment JOIN job USING (number)
            UNION ALL SELECT gone.tenant, length(events) FROM segment JOIN pending_deletion AS gone USING (number)
            UNION ALL SELECT tenant, length(box) FROM secret
            UNION ALL SELECT tenant, {RECORD_BYTES} FROM record
            UNION ALL SELECT tenant, {QUEUE_BYTES} FROM queue WHERE mode != 'open'
        ) GROUP BY tenant HAVING sum(bytes) > 0""",
    "SELECT tenant, waiting FROM queue WHERE name = '' AND waiting != 0": f"""
        SELECT tenant, count(*) FROM job WHERE {WAITS} GROUP BY 1""",
    "SELECT tenant, name, waiting, delayed, running FROM queue WHERE mode = 'open' AND name != ''": f"""
        SELECT tenant, queue, sum({WAITS}), sum({DELAYED}), sum(state = 'RUNNING') FROM job
        WHERE (tenant, queue) NOT IN (SELECT tenant, name FROM queue WHERE mode != 'open') GROUP BY 1, 2""",
    "SELECT * FROM kind": """
        SELECT tenant, queue, needs, count(*) FROM job WHERE finished_ms IS NULL AND needs != '' GROUP BY 1, 2, 3""",
    "SELECT number FROM job WHERE gate = 0": f"SELECT number FROM job WHERE {READY}",
}


def require_right(engine: SqliteEngine) -> None:
    """Compare each counter with what it counts."""
    for counted, added_up in COUNTED.items():
        assert set(engine._db.execute(counted)) == set(engine._db.execute(added_up)), counted


IN_POSTGRES = {
    """SELECT tenant, sum(size_bytes), sum(waiting) FROM airunner.tally WHERE queue = '' GROUP BY 1
        HAVING (sum(size_bytes), sum(waiting)) != (0, 0)""": f"""
        SELECT tenant, sum(bytes), sum(waits::int) FROM (
            SELECT tenant, length(spec) AS bytes, {WAITS} AS waits FROM airunner.job
            UNION ALL SELECT tenant, length(events), false FROM airunner.segment JOIN airunner.job USING (number)
            UNION ALL SELECT tenant, length(events), false
                FROM airunner.segment JOIN airunner.pending_deletion USING (number)
            UNION ALL SELECT tenant, length(box), false FROM airunner.secret
            UNION ALL SELECT tenant, {RECORD_BYTES}, false FROM airunner.record
            UNION ALL SELECT tenant, {QUEUE_BYTES}, false FROM airunner.queue WHERE mode != 'open'
        ) AS taken GROUP BY tenant""",
    """SELECT tenant, queue, sum(waiting), sum(delayed), sum(running) FROM airunner.tally WHERE queue != ''
        GROUP BY 1, 2 HAVING (sum(waiting), sum(delayed), sum(running)) != (0, 0, 0)""": f"""
        SELECT tenant, queue, sum(({WAITS})::int), sum(({DELAYED})::int),
            sum((state = 'RUNNING')::int) FROM airunner.job WHERE finished_ms IS NULL GROUP BY 1, 2""",
    "SELECT tenant, queue, words, sum(jobs) FROM airunner.kind GROUP BY 1, 2, 3": """
        SELECT tenant, queue, needs, count(*) FROM airunner.job WHERE finished_ms IS NULL AND needs != ''
        GROUP BY 1, 2, 3""",
    "SELECT tenant, queue, place, number FROM airunner.waiting": """
        SELECT tenant, queue, -priority, number FROM airunner.job WHERE gate = 0""",
    "SELECT number FROM airunner.job WHERE gate = 0": f"""
        SELECT number FROM airunner.job WHERE {READY}""",
    "SELECT tenant, name FROM airunner.queue": """
        SELECT tenant, queue FROM airunner.job UNION SELECT tenant, name FROM airunner.queue WHERE mode != 'open'""",
    "SELECT count(*) FROM airunner.lease_grant": "SELECT 0",
}


def require_right_in_postgres(engine: PostgresEngine) -> None:
    """Compare each counter with what it counts, over all brokers."""
    execute = engine._trips.link.connection.execute
    for counted, added_up in IN_POSTGRES.items():
        assert set(execute(counted.encode())) == set(execute(added_up.encode())), counted
