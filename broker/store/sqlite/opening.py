"""Schema of a store file, and opening of a file: locks it for one broker, and checks the schema's version.

- The columns of `job` are the fields of `contract.JobRow`; `spec`, the largest, is last: reading others skips it.
- Three indexes contain few jobs: `job_waiting`, `job_deadline` (leased) and `job_due` (delayed, or with a follow-up).
- `job_oldest` finds the oldest job of a queue that may be leased, whatever its needs and priority.
- `job_granted` finds the jobs whose last lease a request was granted, also ended ones.
- `segment` contains the logs; a row is a batch of events. `metadata.fact` is a hash of a pair of metadata.
- `queue` and `kind` contain counters, to which `save` adds. A tenant's usage is its row of `queue` without a name.
- `pending_deletion` lists removed jobs whose logs are deleted step by step. Hence there are no foreign keys.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from airunner.broker.store.sqlite.engine import CHECKPOINT_PAGES, JOURNAL_BYTES_MAX, SqliteEngine
from airunner.broker.store.sqlite.rows import Database
from airunner.protocol.errors import EXIT_UNAVAILABLE, OperatorError

STATEMENTS_CACHED: Final = 512  # prepared statements in apsw's cache, the most it allows: each written row uses up one
_SETTINGS: Final = (
    "locking_mode = exclusive",  # only one broker uses the file; so SQLite needs no shared memory for the WAL either
    "journal_mode = wal",
    "synchronous = full",
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"journal_size_limit = {JOURNAL_BYTES_MAX}",
)
VERSION: Final = 13  # of the schema; versions 1 to 12 were never released
SCHEMA: Final = f"""
    CREATE TABLE job (
        number INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, queue TEXT NOT NULL,
        needs TEXT NOT NULL, gate INTEGER NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL, owner TEXT NOT NULL,
        watch_key BLOB NOT NULL, submitted_ms INTEGER NOT NULL, due_ms INTEGER, pause_ms INTEGER, started_ms INTEGER,
        finished_ms INTEGER, deadline_ms INTEGER, visibility_ms INTEGER, attempt INTEGER NOT NULL,
        retries INTEGER NOT NULL, agents_lost INTEGER NOT NULL, max_attempts INTEGER NOT NULL,
        last_sequence INTEGER NOT NULL, next_index INTEGER NOT NULL, agent TEXT, token_hash BLOB, lease_request BLOB,
        settled TEXT, cancel_requested_ms INTEGER, terminal BLOB, origin TEXT, broker TEXT NOT NULL,
        unmet INTEGER NOT NULL, awaits BLOB NOT NULL, unblocked_ms INTEGER, dependents BLOB NOT NULL,
        result BLOB, spec BLOB NOT NULL) STRICT;
    CREATE INDEX job_waiting ON job (tenant, queue, needs, priority DESC, number) WHERE gate = 0;
    CREATE INDEX job_oldest ON job (tenant, queue, number) WHERE gate = 0;
    CREATE INDEX job_deadline ON job (deadline_ms, tenant, agent) WHERE deadline_ms IS NOT NULL;
    CREATE INDEX job_due ON job (due_ms) WHERE due_ms IS NOT NULL;
    CREATE INDEX job_granted ON job (tenant, lease_request) WHERE lease_request IS NOT NULL;
    CREATE INDEX job_finished ON job (finished_ms) WHERE finished_ms IS NOT NULL;
    CREATE INDEX job_finished_of ON job (tenant, finished_ms) WHERE finished_ms IS NOT NULL;
    CREATE INDEX job_listed ON job (tenant, number);
    CREATE INDEX job_by_queue ON job (tenant, queue, number);
    CREATE INDEX job_by_state ON job (tenant, state, number, queue);
    CREATE INDEX job_by_owner ON job (tenant, owner, number) WHERE owner != '';
    CREATE TABLE metadata (
        tenant TEXT NOT NULL, fact BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (tenant, fact, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX metadata_of ON metadata (number);
    CREATE TABLE segment (
        number INTEGER NOT NULL, first_sequence INTEGER NOT NULL, count INTEGER NOT NULL, attempt INTEGER NOT NULL,
        last_timestamp_ms INTEGER NOT NULL, events BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX segment_at ON segment (number, first_sequence);
    CREATE TABLE pending_deletion (number INTEGER PRIMARY KEY, tenant TEXT NOT NULL) STRICT;
    CREATE TABLE record (
        tenant TEXT NOT NULL, request_id BLOB NOT NULL, body_hash BLOB NOT NULL, answered_ms INTEGER NOT NULL,
        job_ids TEXT NOT NULL, PRIMARY KEY (tenant, request_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX record_at ON record (answered_ms);
    CREATE TABLE secret (
        tenant TEXT NOT NULL, queue TEXT NOT NULL, name TEXT NOT NULL, box BLOB NOT NULL, set_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant, queue, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE queue (
        tenant TEXT NOT NULL, name TEXT NOT NULL, mode TEXT NOT NULL DEFAULT 'open', waiting INTEGER NOT NULL DEFAULT 0,
        delayed INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX queue_usage ON queue (tenant) WHERE name = '';
    CREATE TABLE kind (
        tenant TEXT NOT NULL, queue TEXT NOT NULL, needs TEXT NOT NULL, jobs INTEGER NOT NULL,
        PRIMARY KEY (tenant, queue, needs)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = {VERSION};
"""


def open_sqlite(path: Path | None) -> SqliteEngine:
    """Open the store file at `path`, and create it if it does not exist; None: a store in memory.

    Raises `OperatorError`: a folder that cannot be written, a file that another broker uses or another version wrote.
    """
    if path is not None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise OperatorError(f"cannot open the store {path}: {error}; name another file") from error
    with _connected(path) as connection:
        prepare(connection, path)
        return SqliteEngine(connection)


def prepare(connection: Database, path: Path | None = None) -> None:
    """Prepare an open database: lock it for this broker, and create or check its schema. Raises `OperatorError`."""
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")  # one by one: `execute` stops at a statement that returns a row
    # Without QPSG SQLite plans a statement again for other values, which takes twenty times as long as running it.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    if next(connection.execute("SELECT count(*) FROM sqlite_schema"))[0]:
        require_version(connection, path)
    else:
        connection.execute(f"BEGIN IMMEDIATE; {SCHEMA}; COMMIT")


def open_alone(path: Path) -> SqliteEngine:
    """Open an existing store file, locked against brokers, to read or copy it. Raises `OperatorError`."""
    if not path.is_file():
        raise OperatorError(f"there is no store at {path}; name another file")
    with _connected(path) as connection:
        connection.execute(f"PRAGMA {_SETTINGS[0]}")
        with suppress(apsw.CorruptError, apsw.IOError):  # `airunner store check` shows where the damage is
            connection.execute("BEGIN IMMEDIATE; ROLLBACK")
            require_version(connection, path)
        return SqliteEngine(connection)


@contextmanager
def _connected(path: Path | None) -> Generator[Database]:
    """Connect to a store file; the connection is closed if this block fails. Raises `OperatorError`."""
    with ExitStack() as opened:
        try:
            connection: Database = apsw.Connection(str(path or ":memory:"), statementcachesize=STATEMENTS_CACHED)
            opened.callback(connection.close)
            yield connection
            opened.pop_all()
        except apsw.BusyError as error:
            words = f"a broker uses the store {path}: stop it first, or name another file"
            raise OperatorError(words, exit_code=EXIT_UNAVAILABLE) from error
        except apsw.NotADBError as error:
            raise OperatorError(f"{path} is not a store of airunner's; name another file") from error
        except apsw.Error as error:
            words = f"cannot use the store {path}: {error}; make room or restore it, or name another with --store"
            raise OperatorError(words) from error


def require_version(connection: Database, path: Path | None) -> None:
    """Require the schema of this version. Raises `OperatorError`: another version or program wrote the file."""
    ((version,),) = connection.execute("PRAGMA user_version")
    if version < VERSION:
        why = "was written by an earlier airunner: run that version, or" if version else "is not a store of airunner's:"
        raise OperatorError(f"{path} {why} name another file")
    if version > VERSION:
        raise OperatorError(f"{path} was written by a newer airunner: run that version")
