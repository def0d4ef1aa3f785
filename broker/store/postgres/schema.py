"""Schema of a PostgreSQL store: tables, indexes, and the steps from one version to the next.

All of it is in the PostgreSQL schema `airunner`, and statements name it: nothing depends on a role's search path. One
database holds the store of one fleet of brokers.

- The columns of `job` are the fields of `contract.JobRow`; `spec`, the largest, is last.
- `waiting` has a row for each job that may be leased (`gate` 0), in the order of leases: `place` is minus the priority.
  It is a table of its own, so that a lease reads a narrow index from the place where the last one stopped.
- `needs` of `waiting` and `kind` is `needs_key`: 16 bytes. The needs themselves may be longer than an index takes.
- `job_deadline` and `job_due` begin with the broker: each broker looks only for what it owns.
- `tally` and `kind` are counters with rows of each broker, so that no broker waits for another; reading sums them.
  A tenant's usage is the row of `tally` whose queue is ''.
- `record` has the idempotency records. `lease_grant` is empty to readers: a batch inserts the lease requests that it
  serves, and removes them again, so that another broker that is asked the same waits for its end.
- Tables whose rows are updated in place have a `fillfactor`: then an update that changes no indexed column touches no
  index. The log is stored uncompressed (it comes compressed), up to 8 KiB a row beside its numbers.
- `broker` has the rows of all brokers; `knows` is the newest version of the schema that one knows.

`installed` has one row: the version of the schema, the oldest version that may still use it, and the fleet. A broker
uses a newer schema that is compatible with its own version, so brokers of two neighbouring versions run side by side.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from msgspec import Struct


class Step(Struct, frozen=True):
    """Step to the next version of the schema: statements, and the oldest version that may use the result."""

    compatible: int
    statements: str


NEEDS_KEY_BYTES: Final = 16  # enough that no two needs of a tenant's jobs have the same key
_LOG_ROW_BYTES: Final = 8_160  # largest row, as PostgreSQL allows it: a segment is not cut into pieces of 2 KiB
_BUSY: Final = "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0"
_FIRST: Final = f"""
    CREATE TABLE airunner.job (
        number bigint PRIMARY KEY, job_id text COLLATE "C" NOT NULL UNIQUE, tenant text COLLATE "C" NOT NULL,
        queue text COLLATE "C" NOT NULL, needs text COLLATE "C" NOT NULL, gate integer NOT NULL,
        state text COLLATE "C" NOT NULL, priority integer NOT NULL, owner text COLLATE "C" NOT NULL,
        watch_key bytea NOT NULL, submitted_ms bigint NOT NULL, due_ms bigint, pause_ms bigint, started_ms bigint,
        finished_ms bigint, deadline_ms bigint, visibility_ms bigint, attempt integer NOT NULL,
        retries integer NOT NULL, agents_lost integer NOT NULL, max_attempts integer NOT NULL,
        last_sequence bigint NOT NULL, next_index bigint NOT NULL, agent text COLLATE "C", token_hash bytea,
        lease_request bytea, settled text COLLATE "C", cancel_requested_ms bigint, terminal bytea,
        origin text COLLATE "C", broker text COLLATE "C" NOT NULL, unmet integer NOT NULL, awaits bytea NOT NULL,
        unblocked_ms bigint, dependents bytea NOT NULL, result bytea, spec bytea NOT NULL
    ) WITH (fillfactor = 50);
    CREATE INDEX job_deadline ON airunner.job (broker, deadline_ms, tenant, agent) WHERE deadline_ms IS NOT NULL;
    CREATE INDEX job_due ON airunner.job (broker, due_ms) WHERE due_ms IS NOT NULL;
    CREATE INDEX job_granted ON airunner.job (lease_request) WHERE lease_request IS NOT NULL;
    CREATE INDEX job_finished ON airunner.job (finished_ms) WHERE finished_ms IS NOT NULL;
    CREATE INDEX job_finished_of ON airunner.job (tenant, finished_ms) WHERE finished_ms IS NOT NULL;
    CREATE INDEX job_listed ON airunner.job (tenant, number);
    CREATE INDEX job_by_queue ON airunner.job (tenant, queue, number);
    CREATE INDEX job_by_state ON airunner.job (tenant, state, number, queue);
    CREATE INDEX job_by_owner ON airunner.job (tenant, owner, number) WHERE owner != '';
    CREATE SEQUENCE airunner.job_number;
    CREATE TABLE airunner.waiting (
        tenant text COLLATE "C" NOT NULL, queue text COLLATE "C" NOT NULL, needs bytea NOT NULL,
        place integer NOT NULL, number bigint NOT NULL, PRIMARY KEY (tenant, queue, needs, place, number)
    ) WITH ({_BUSY});
    CREATE INDEX waiting_oldest ON airunner.waiting (tenant, queue, number);
    CREATE TABLE airunner.metadata (
        tenant text COLLATE "C" NOT NULL, fact bytea NOT NULL, number bigint NOT NULL,
        PRIMARY KEY (tenant, fact, number)
    );
    CREATE INDEX metadata_of ON airunner.metadata (number);
    CREATE TABLE airunner.segment (
        number bigint NOT NULL, first_sequence bigint NOT NULL, count integer NOT NULL, attempt integer NOT NULL,
        last_timestamp_ms bigint NOT NULL, events bytea NOT NULL,
        PRIMARY KEY (number, first_sequence)
    ) WITH (toast_tuple_target = {_LOG_ROW_BYTES});
    ALTER TABLE airunner.segment ALTER COLUMN events SET STORAGE EXTERNAL;
    CREATE TABLE airunner.pending_deletion (number bigint PRIMARY KEY, tenant text COLLATE "C" NOT NULL);
    CREATE TABLE airunner.record (
        tenant text COLLATE "C" NOT NULL, request_id bytea NOT NULL, body_hash bytea NOT NULL,
        answered_ms bigint NOT NULL, job_ids text NOT NULL, PRIMARY KEY (tenant, request_id)
    );
    CREATE INDEX record_at ON airunner.record (answered_ms);
    CREATE TABLE airunner.lease_grant (
        tenant text COLLATE "C" NOT NULL, request_id bytea NOT NULL, PRIMARY KEY (tenant, request_id)
    );
    CREATE TABLE airunner.secret (
        tenant text COLLATE "C" NOT NULL, queue text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
        box bytea NOT NULL, set_ms bigint NOT NULL, PRIMARY KEY (tenant, queue, name)
    );
    CREATE TABLE airunner.queue (
        tenant text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, mode text NOT NULL DEFAULT 'open',
        PRIMARY KEY (tenant, name)
    );
    CREATE TABLE airunner.tally (
        broker text COLLATE "C" NOT NULL, tenant text COLLATE "C" NOT NULL, queue text COLLATE "C" NOT NULL,
        waiting bigint NOT NULL DEFAULT 0, delayed bigint NOT NULL DEFAULT 0, running bigint NOT NULL DEFAULT 0,
        size_bytes bigint NOT NULL DEFAULT 0, PRIMARY KEY (tenant, queue, broker)
    ) WITH ({_BUSY});
    CREATE INDEX tally_usage ON airunner.tally (tenant) WHERE queue = '';
    CREATE INDEX tally_of ON airunner.tally (broker);
    CREATE TABLE airunner.kind (
        broker text COLLATE "C" NOT NULL, tenant text COLLATE "C" NOT NULL, queue text COLLATE "C" NOT NULL,
        needs bytea NOT NULL, words text NOT NULL, jobs bigint NOT NULL, PRIMARY KEY (tenant, queue, needs, broker)
    ) WITH ({_BUSY});
    CREATE INDEX kind_of ON airunner.kind (broker);
    CREATE TABLE airunner.broker (
        broker text COLLATE "C" PRIMARY KEY, epoch bigint NOT NULL, beat bigint NOT NULL DEFAULT 0,
        ready_seq bigint NOT NULL DEFAULT 0, requests text NOT NULL, events text NOT NULL, version text NOT NULL,
        dead boolean NOT NULL DEFAULT false, knows integer NOT NULL, opened_ms bigint NOT NULL
    ) WITH ({_BUSY});
"""
STEPS: Final[tuple[Step, ...]] = (Step(compatible=1, statements=_FIRST),)
"""Step number N, from 1 on, leads to version N. A step's old version may go on if `compatible` says so."""
VERSION: Final = len(STEPS)
HALF_COPIED: Final = 2**31 - 1  # as `installed.compatible`: no version may use the store, see `copying`
NEW: Final = """
    CREATE SCHEMA airunner;
    CREATE TABLE airunner.installed (
        alone boolean PRIMARY KEY DEFAULT true CHECK (alone), version integer NOT NULL, compatible integer NOT NULL,
        fleet text NOT NULL DEFAULT ''
    );
    INSERT INTO airunner.installed (version, compatible) VALUES (0, 0);
"""


def needs_key(needs: str) -> bytes:
    """Hash needs to the key that `waiting` and `kind` are indexed by; b"" for none."""
    return blake2b(needs.encode(), digest_size=NEEDS_KEY_BYTES).digest() if needs else b""
