"""What a SQLite store says that its tenants take, and what they do take."""

from __future__ import annotations

from airunner.broker.store.sqlite.schema import ANSWER_BYTES, QUEUE_BYTES
from airunner.broker.store.sqlite.store import SqliteStore

KEPT = f"""
    SELECT tenant, sum(bytes) FROM (
        SELECT tenant, length(spec) AS bytes FROM job
        UNION ALL SELECT j.tenant, length(e.events) FROM event AS e JOIN job AS j ON j.number = e.number
        UNION ALL SELECT d.tenant, length(e.events) FROM event AS e JOIN doomed AS d ON d.number = e.number
        UNION ALL SELECT tenant, length(box) FROM secret
        UNION ALL SELECT tenant, {ANSWER_BYTES} FROM answer
        UNION ALL SELECT tenant, {QUEUE_BYTES} FROM queue WHERE mode != 'open'
    ) GROUP BY tenant HAVING sum(bytes) > 0
"""


def taken(store: SqliteStore) -> dict[str, int]:
    """As it is counted step by step."""
    return dict(store._connection.execute("SELECT tenant, bytes FROM usage WHERE bytes > 0"))


def kept(store: SqliteStore) -> dict[str, int]:
    """As everything is, added up."""
    return dict(store._connection.execute(KEPT))
