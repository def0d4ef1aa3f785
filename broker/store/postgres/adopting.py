"""Adoption of a dead broker's jobs, and renewal of all of the own ones; both change many jobs that no request names.

All of these, and those that the batch names, are locked first and together, in the order of their numbers, as batches
lock jobs everywhere. A dead broker's row is locked with SKIP LOCKED: as long as its last transaction is open, it is not
adopted, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from airunner.broker.store.postgres.arrays import bigints, columns, texts
from airunner.broker.store.postgres.trips import Trips
from airunner.broker.store.rows import Keys

FOUND: Final = (  # `|| ''`: no index begins with that; a plan made for an empty table would read all of a tenant's jobs
    "SELECT found.number FROM unnest(%b, %b) AS key(tenant, job_id) JOIN airunner.job AS found"
    " ON found.job_id = key.job_id AND found.tenant || '' = key.tenant"
    " UNION SELECT found.number FROM unnest(%b, %b) AS key(tenant, request_id) JOIN airunner.job AS found"
    " ON found.lease_request = key.request_id AND found.tenant || '' = key.tenant"
)
_TIMED: Final = (
    "SELECT number FROM airunner.job WHERE broker {0} AND deadline_ms IS NOT NULL"
    " UNION SELECT number FROM airunner.job WHERE broker {0} AND due_ms IS NOT NULL"
)
_BURIED: Final = (  # by this transaction
    "SELECT broker FROM airunner.broker WHERE broker = ANY({}) AND dead AND xmin = pg_current_xact_id()::xid"
)
_OWNED: Final = _TIMED.format("= ANY(%b)")
_LEFT: Final = _TIMED.format(f"IN ({_BURIED.format('%b')})")
LOCK_OWNED: Final = (
    f"SELECT count(*) FROM (SELECT number FROM ({FOUND} UNION {_OWNED} UNION {_LEFT}) AS all_of ORDER BY 1) AS found,"
    " LATERAL (SELECT FROM airunner.job WHERE number = found.number FOR UPDATE) AS locked"
)
BURY: Final = (
    "UPDATE airunner.broker SET dead = true FROM (SELECT broker FROM unnest(%b, %b, %b) AS seen(broker, epoch, beat)"
    " JOIN airunner.broker AS other USING (broker, epoch, beat) FOR UPDATE OF other SKIP LOCKED)"
    " AS found WHERE broker.broker = found.broker RETURNING broker.broker"
)
_RENEWED: Final = (
    "deadline_ms = CASE WHEN deadline_ms IS NULL OR visibility_ms IS NULL THEN deadline_ms"
    " ELSE %b + visibility_ms END,"
    " due_ms = CASE WHEN due_ms IS NULL OR pause_ms IS NULL THEN due_ms ELSE least(due_ms, %b + pause_ms) END"
)
RENEW: Final = f"UPDATE airunner.job SET {_RENEWED} FROM ({_OWNED}) AS own WHERE job.number = own.number"
ADOPT: Final = (
    f"UPDATE airunner.job SET broker = %b, {_RENEWED} FROM ({_LEFT}) AS left_over WHERE job.number = left_over.number"
)
ADOPT_TALLIES: Final = (
    f"WITH old AS (DELETE FROM airunner.tally WHERE broker IN ({_BURIED.format('%b')}) RETURNING *)"
    " INSERT INTO airunner.tally AS own (broker, tenant, queue, waiting, delayed, running, size_bytes)"
    " SELECT %b, tenant, queue, sum(waiting), sum(delayed), sum(running), sum(size_bytes) FROM old GROUP BY 2, 3"
    " ON CONFLICT (tenant, queue, broker) DO UPDATE SET waiting = own.waiting + excluded.waiting, delayed = own.delayed"
    " + excluded.delayed, running = own.running + excluded.running, size_bytes = own.size_bytes + excluded.size_bytes"
)
ADOPT_KINDS: Final = (
    f"WITH old AS (DELETE FROM airunner.kind WHERE broker IN ({_BURIED.format('%b')}) RETURNING *)"
    " INSERT INTO airunner.kind AS own (broker, tenant, queue, needs, words, jobs)"
    " SELECT %b, tenant, queue, needs, words, sum(jobs) FROM old GROUP BY 2, 3, 4, 5"
    " ON CONFLICT (tenant, queue, needs, broker) DO UPDATE SET jobs = own.jobs + excluded.jobs"
)


def ask_owned(trips: Trips, keys: Keys, named: Sequence[bytes], renewed_ms: int | None) -> None:
    """Queue the renewal of all leases, and adoptions. All jobs of the batch are locked first, in their order."""
    own = texts([] if renewed_ms is None else [trips.broker])
    others = texts(sorted(seen.broker for seen in keys.adopted))
    if keys.adopted:
        seen = sorted(keys.adopted)
        trips.add("adopted", BURY, *columns(seen, ("broker", "epoch", "beat"), (texts, bigints, bigints)))
    trips.add("locked", LOCK_OWNED, *named, own, own, others, others)
    if renewed_ms is not None:
        trips.add("renew", RENEW, renewed_ms, renewed_ms, own, own)
    if keys.adopted:
        trips.add("adopt", ADOPT, trips.broker, keys.now_ms, keys.now_ms, others, others)
        trips.add("adopt_tallies", ADOPT_TALLIES, others, trips.broker)
        trips.add("adopt_kinds", ADOPT_KINDS, others, trips.broker)
