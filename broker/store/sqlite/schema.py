"""The schema of the SQLite store, as the steps that lead to it.

Step n brings a file from `user_version` n to n + 1; a file knows by itself where it stands. A step that has
landed is never edited.

- `job.number` is the order of submission, and what `event` rows hang on.
- A job that may be leased is found by `job_waiting`, one that is not due yet by `job_delayed`, a running one's
  deadline by `job_due`: all are partial indexes, so what has finished costs none. That keeps leasing as fast with
  a million jobs as with one.
- `pause_ms` is how long a job that is to be run again waits for that: `due_ms` is an instant of one broker's clock.
- `settled` says how the last attempt ended, so that what its holder repeats is answered as it was.
- A row of `event` is a run: a batch as its agent sent it, or one event of the broker's.
- `answer` remembers what a request that submits was answered, also when its jobs are there no more.
- `job_granted` finds what a DequeueJob was granted, also when that has ended: a late copy of it is given no other.
- `queue` counts what is in each queue, as long as it has jobs or is not open; triggers keep the counts in the
  transaction that changes them.
- `metadata` finds jobs by what is noted with them; `fact` is a hash of one name and value.
- `needs` is what a job requires of its agent, as `needs` writes it: a lease looks at the first job of each kind that
  its agent may run, however many wait of the others.
- `need` counts the jobs of each queue and kind that wait or run, so that there are no more kinds than a lease can
  look at.
- `job_oldest` has the longest waiting of a queue, whatever its kind and priority.
- `secret` has what agents are to open; a lease brings along what its job names.
- `job_finished_of` has a tenant's oldest that have ended, for when it is that tenant's that have to go.
- `usage` counts what each tenant takes; its bytes are written with each batch, its waiting jobs by triggers.
- `doomed` names jobs that are removed while their logs still are, step by step. Hence no foreign keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from airunner.broker.store.sqlite.rows import Database
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import decode_spec

ANSWER_BYTES: Final = 256  # what a row of `answer` counts for in `usage`; as the migrations count, so it stays
QUEUE_BYTES: Final = 256  # and one of `queue` whose mode has to be remembered
FACT_BYTES: Final = 16  # of a hash that only has to be rare enough
_COUNTED: Final = """
    UPDATE queue SET
        waiting = waiting + (new.state = 'SCHEDULED') - (old.state = 'SCHEDULED'),
        delayed = delayed + (new.state = 'SCHEDULED' AND new.due_ms IS NOT NULL)
            - (old.state = 'SCHEDULED' AND old.due_ms IS NOT NULL),
        running = running + (new.state = 'RUNNING') - (old.state = 'RUNNING')
    WHERE tenant = new.tenant AND name = new.queue;
"""

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
    f"""
    ALTER TABLE job ADD COLUMN max_attempts INTEGER NOT NULL DEFAULT 3;
    ALTER TABLE job ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN due_ms INTEGER;
    ALTER TABLE job ADD COLUMN pause_ms INTEGER;
    ALTER TABLE job ADD COLUMN cancel_requested_ms INTEGER;
    ALTER TABLE job ADD COLUMN origin TEXT;
    ALTER TABLE job ADD COLUMN settled TEXT;
    UPDATE job SET settled = iif(state = 'SCHEDULED', 'released', 'completed')
        WHERE state != 'RUNNING' AND token_hash IS NOT NULL;
    DROP INDEX job_waiting;
    CREATE INDEX job_waiting ON job (tenant, queue, priority DESC, number)
        WHERE state = 'SCHEDULED' AND due_ms IS NULL;
    CREATE INDEX job_delayed ON job (due_ms) WHERE state = 'SCHEDULED' AND due_ms IS NOT NULL;
    CREATE INDEX job_finished ON job (finished_ms) WHERE finished_ms IS NOT NULL;
    DROP INDEX job_leased;
    CREATE INDEX job_granted ON job (tenant, lease_request, number) WHERE lease_request IS NOT NULL;
    CREATE INDEX job_by_queue_and_state ON job (tenant, queue, state, number);
    CREATE INDEX job_by_owner ON job (tenant, owner, number) WHERE owner != '';
    CREATE TABLE metadata (
        tenant TEXT NOT NULL,
        fact BLOB NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (tenant, fact, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX metadata_of ON metadata (number);
    CREATE TABLE queue (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        mode TEXT NOT NULL DEFAULT 'open',
        waiting INTEGER NOT NULL DEFAULT 0,
        delayed INTEGER NOT NULL DEFAULT 0,
        running INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO queue (tenant, name, waiting, running)
        SELECT tenant, queue, sum(state = 'SCHEDULED'), sum(state = 'RUNNING') FROM job GROUP BY tenant, queue;
    CREATE TRIGGER job_added AFTER INSERT ON job BEGIN
        INSERT INTO queue (tenant, name, waiting, delayed) VALUES (new.tenant, new.queue, 1, new.due_ms IS NOT NULL)
            ON CONFLICT DO UPDATE SET waiting = waiting + 1, delayed = delayed + (new.due_ms IS NOT NULL);
    END;
    CREATE TRIGGER job_moved AFTER UPDATE OF state, due_ms ON job
        WHEN old.state IS NOT new.state OR old.due_ms IS NOT new.due_ms
    BEGIN
        {_COUNTED}
    END;
    CREATE TRIGGER job_removed AFTER DELETE ON job BEGIN
        DELETE FROM queue
            WHERE tenant = old.tenant AND name = old.queue AND mode = 'open' AND waiting = 0 AND running = 0
            AND NOT EXISTS (SELECT 1 FROM job WHERE tenant = old.tenant AND queue = old.queue);
    END;
    CREATE TABLE answer (
        tenant TEXT NOT NULL,
        request_id BLOB NOT NULL,
        body_hash BLOB NOT NULL,
        answered_ms INTEGER NOT NULL,
        job_ids TEXT NOT NULL,
        PRIMARY KEY (tenant, request_id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO answer (tenant, request_id, body_hash, answered_ms, job_ids)
        SELECT r.tenant, r.request_id, r.body_hash, min(j.submitted_ms), group_concat(j.job_id, ' ' ORDER BY j.number)
        FROM request AS r JOIN job AS j ON j.number >= r.first_number AND j.number < r.first_number + r.count
        GROUP BY r.tenant, r.request_id;
    DROP TABLE request;
    CREATE INDEX answer_at ON answer (answered_ms);
    CREATE TABLE doomed (number INTEGER PRIMARY KEY) STRICT;
    """,
    """
    ALTER TABLE job ADD COLUMN needs TEXT NOT NULL DEFAULT '';
    DROP INDEX job_waiting;
    CREATE INDEX job_waiting ON job (tenant, queue, needs, priority DESC, number)
        WHERE state = 'SCHEDULED' AND due_ms IS NULL;
    CREATE INDEX job_needs ON job (tenant, queue, needs) WHERE state = 'SCHEDULED' AND needs != '';
    """,
    """
    CREATE TABLE usage (
        tenant TEXT NOT NULL PRIMARY KEY,
        bytes INTEGER NOT NULL DEFAULT 0,
        waiting INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    INSERT INTO usage (tenant, bytes, waiting)
        SELECT tenant, sum(bytes), sum(waiting) FROM (
            SELECT tenant, length(spec) AS bytes, state = 'SCHEDULED' AS waiting FROM job
            UNION ALL SELECT j.tenant, length(e.events), 0 FROM event AS e JOIN job AS j ON j.number = e.number
        ) GROUP BY tenant;
    CREATE TRIGGER job_waits AFTER INSERT ON job BEGIN
        INSERT INTO usage (tenant, waiting) VALUES (new.tenant, 1)
            ON CONFLICT DO UPDATE SET waiting = waiting + 1;
    END;
    CREATE TRIGGER job_waits_or_not AFTER UPDATE OF state ON job
        WHEN (old.state = 'SCHEDULED') IS NOT (new.state = 'SCHEDULED')
    BEGIN
        UPDATE usage SET waiting = waiting + iif(new.state = 'SCHEDULED', 1, -1) WHERE tenant = new.tenant;
    END;
    ALTER TABLE doomed ADD COLUMN tenant TEXT;
    """,
    """
    CREATE TABLE secret (
        tenant TEXT NOT NULL,
        queue TEXT NOT NULL,
        name TEXT NOT NULL,
        box BLOB NOT NULL,
        set_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant, queue, name)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE need (
        tenant TEXT NOT NULL,
        queue TEXT NOT NULL,
        needs TEXT NOT NULL,
        jobs INTEGER NOT NULL,
        PRIMARY KEY (tenant, queue, needs)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO need (tenant, queue, needs, jobs)
        SELECT tenant, queue, needs, count(*) FROM job WHERE state IN ('SCHEDULED', 'RUNNING') AND needs != ''
        GROUP BY tenant, queue, needs;
    DROP INDEX job_needs;
    CREATE TRIGGER job_has_needs AFTER INSERT ON job WHEN new.needs != '' BEGIN
        INSERT INTO need (tenant, queue, needs, jobs) VALUES (new.tenant, new.queue, new.needs, 1)
            ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    END;
    CREATE TRIGGER job_needs_nothing_more AFTER UPDATE OF state ON job
        WHEN new.needs != '' AND old.state IN ('SCHEDULED', 'RUNNING') AND new.state NOT IN ('SCHEDULED', 'RUNNING')
    BEGIN
        UPDATE need SET jobs = jobs - 1 WHERE tenant = new.tenant AND queue = new.queue AND needs = new.needs;
        DELETE FROM need WHERE tenant = new.tenant AND queue = new.queue AND needs = new.needs AND jobs = 0;
    END;
    CREATE INDEX job_oldest ON job (tenant, queue, number) WHERE state = 'SCHEDULED' AND due_ms IS NULL;
    """,
    f"""
    CREATE INDEX job_finished_of ON job (tenant, finished_ms) WHERE finished_ms IS NOT NULL;
    INSERT INTO usage (tenant, bytes)
        SELECT tenant, {ANSWER_BYTES} * count(*) FROM answer WHERE true GROUP BY tenant
        ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
    INSERT INTO usage (tenant, bytes)
        SELECT tenant, {QUEUE_BYTES} * count(*) FROM queue WHERE mode != 'open' GROUP BY tenant
        ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
    """,
)
_FILLED_AT: Final = 2  # the version from which `metadata` is there; the jobs that came before it are entered then


def fact_of(name: str, value: str) -> bytes:
    """What stands for one piece of metadata in an index."""
    return blake2b(f"{name}={value}".encode(), digest_size=FACT_BYTES).digest()  # a name has no equals sign


def note_metadata(connection: Database, tenant: str, number: int, metadata: Mapping[str, str]) -> None:
    """Have job `number` found by each piece of its metadata."""
    for name, value in metadata.items():
        connection.execute(
            "INSERT OR IGNORE INTO metadata (tenant, fact, number) VALUES (?, ?, ?)",
            (tenant, fact_of(name, value), number),
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
        connection.execute(f"BEGIN IMMEDIATE; {step}")
        if number == _FILLED_AT:
            _note_all_metadata(connection)
        connection.execute(f"PRAGMA user_version = {number}; COMMIT")


def _note_all_metadata(connection: Database) -> None:
    for number, tenant, spec in connection.execute("SELECT number, tenant, spec FROM job"):
        assert isinstance(number, int), "a row has a number"
        assert isinstance(spec, bytes), "a spec is bytes"
        note_metadata(connection, str(tenant), number, decode_spec(spec).metadata)
