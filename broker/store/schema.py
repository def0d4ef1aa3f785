"""The schema of the SQLite store, as the steps that lead to it.

Step n brings a file from `user_version` n to n + 1; a file knows by itself where it stands. A step that has
landed is never edited.

- `job.number` is the order of submission, and what `event` rows hang on.
- A waiting job is found by `job_waiting`, a running one's deadline by `job_due`: both are partial indexes, so
  what has finished costs neither. That keeps leasing as fast with a million jobs as with one.
- A row of `event` is a run: a batch as its agent sent it, or one event of the broker's.
- `request` remembers what an EnqueueJob was answered, as long as its jobs are there.
"""

from __future__ import annotations

from typing import Final

from airunner.broker.store.rows import Database
from airunner.protocol.errors import OperatorError

MIGRATIONS: Final = (
    """
    CREATE TABLE job (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        queue TEXT NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL DEFAULT 0,
        owner TEXT NOT NULL,
        spec BLOB NOT NULL,
        watch_key BLOB NOT NULL,
        submitted_ms INTEGER NOT NULL,
        started_ms INTEGER,
        finished_ms INTEGER,
        result BLOB,
        attempt INTEGER NOT NULL DEFAULT 0,
        agents_lost INTEGER NOT NULL DEFAULT 0,
        last_sequence INTEGER NOT NULL DEFAULT 0,
        next_index INTEGER NOT NULL DEFAULT 0,
        agent TEXT,
        token_hash BLOB,
        lease_request BLOB,
        visibility_ms INTEGER,
        deadline_ms INTEGER
    ) STRICT;
    CREATE INDEX job_waiting ON job (tenant, queue, priority DESC, number) WHERE state = 'SCHEDULED';
    CREATE INDEX job_due ON job (deadline_ms) WHERE state = 'RUNNING';
    CREATE INDEX job_leased ON job (tenant, lease_request) WHERE state = 'RUNNING';
    CREATE INDEX job_listed ON job (tenant, number);
    CREATE INDEX job_by_queue ON job (tenant, queue, number);
    CREATE INDEX job_by_state ON job (tenant, state, number);
    CREATE TABLE event (
        number INTEGER NOT NULL REFERENCES job (number) ON DELETE CASCADE,
        first_sequence INTEGER NOT NULL,
        count INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        last_timestamp_ms INTEGER NOT NULL,
        events BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX event_at ON event (number, first_sequence);
    CREATE TABLE request (
        tenant TEXT NOT NULL,
        request_id BLOB NOT NULL,
        body_hash BLOB NOT NULL,
        first_number INTEGER NOT NULL REFERENCES job (number) ON DELETE CASCADE,
        count INTEGER NOT NULL,
        PRIMARY KEY (tenant, request_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX request_of ON request (first_number);
    """,
)


def migrate(connection: Database) -> None:
    """Bring the schema up to this version, each step in a transaction of its own.

    Raises `OperatorError`: the file is of a newer version, or not a store of ours.
    """
    version = connection.execute("PRAGMA user_version").get
    assert isinstance(version, int), "user_version is a number"
    if version > len(MIGRATIONS):
        raise OperatorError("the store was written by a newer airunner; run that one")
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise OperatorError("the file is a database, but not a store of airunner's; name another with --store")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT")
