"""The counters of the SQLite engine: queues, kinds of jobs, and what a tenant takes, step by step and added up."""

from __future__ import annotations

from airunner.broker.lifecycle.world import QUEUE_BYTES, RECORD_BYTES
from airunner.broker.store.sqlite.engine import SqliteEngine

WAITS = "state = 'SCHEDULED'"
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
        SELECT tenant, queue, sum({WAITS}), sum({WAITS} AND due_ms IS NOT NULL), sum(state = 'RUNNING') FROM job
        WHERE (tenant, queue) NOT IN (SELECT tenant, name FROM queue WHERE mode != 'open') GROUP BY 1, 2""",
    "SELECT * FROM kind": """
        SELECT tenant, queue, needs, count(*) FROM job WHERE finished_ms IS NULL AND needs != '' GROUP BY 1, 2, 3""",
    "SELECT number FROM job WHERE gate = 0": f"SELECT number FROM job WHERE {WAITS} AND due_ms IS NULL",
}


def require_right(engine: SqliteEngine) -> None:
    """Compare each counter with what it counts."""
    for counted, added_up in COUNTED.items():
        assert set(engine._db.execute(counted)) == set(engine._db.execute(added_up)), counted
