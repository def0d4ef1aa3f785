"""References of the benchmark, which do the same work with nothing of airunner: pyzmq, apsw and the disk alone."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

import apsw
import zmq

SPEC: Final = b"\x81\xa7command\xa4true"  # a job as it is stored
EVENT: Final = os.urandom(40)  # an event of a no-op job, which is as long as PROCESS_START
BATCH: Final = 256  # jobs in a transaction of the set-based life
REVISION: Final = b"AR0"
PING: Final = b"ping"
ENQUEUE: Final = b"\x82\xa4type\xaaEnqueueJob\xa4jobs\x91" + SPEC
REPLY: Final = b"\x82\xa4type\xacJobsEnqueued\xa7job_ids\x91\xba" + bytes(26)
ID_BYTES: Final = 16  # of a request
TOKEN_BYTES: Final = 400  # of a token of ES256 with airunner's claims
GATHERED: Final = 64  # requests that the bare broker takes into one transaction
DURABLE: Final = "PRAGMA journal_mode = wal; PRAGMA synchronous = full"
FSYNCS: Final = 100  # of which the median is taken
FSYNC_BYTES: Final = 4_096


def fsync_ms(folder: Path) -> float:
    """Measure the milliseconds of an fsync after an append, as a transaction makes one."""
    taken: list[float] = []
    with (folder / "fsync").open("ab", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(FSYNC_BYTES))
            began_s = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began_s) * 1_000)
    return median(taken)


# --- SQLite alone: the whole life of jobs, a set at a time -------------------------------------------------

LIFE_SCHEMA: Final = """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, queue TEXT NOT NULL,
        state TEXT NOT NULL, priority INTEGER NOT NULL, submitted_ms INTEGER NOT NULL, finished_ms INTEGER,
        deadline_ms INTEGER, attempt INTEGER NOT NULL, last_sequence INTEGER NOT NULL, agent TEXT, token_hash BLOB,
        watch_key BLOB NOT NULL, result BLOB, spec BLOB NOT NULL
    ) STRICT;
    CREATE INDEX waiting ON jobs (tenant, queue, priority DESC, number) WHERE state = 'SCHEDULED';
    CREATE INDEX leased ON jobs (deadline_ms) WHERE deadline_ms IS NOT NULL;
    CREATE INDEX listed ON jobs (tenant, state, number);
    CREATE TABLE segments (
        number INTEGER NOT NULL, first_sequence INTEGER NOT NULL, count INTEGER NOT NULL, events BLOB NOT NULL,
        PRIMARY KEY (number, first_sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE requests (id BLOB PRIMARY KEY, hash BLOB NOT NULL, jobs TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE counters (tenant TEXT, queue TEXT, waiting INTEGER, running INTEGER, PRIMARY KEY (tenant, queue));
    INSERT INTO counters VALUES ('default', 'default', 0, 0);
"""


def set_based_life(jobs: int) -> tuple[float, float]:
    """Move jobs through their whole life in one thread; return jobs a second, and µs of processor time a job.

    Three transactions for `BATCH` jobs, each with an fsync: enqueue; lease; events and completion. They store what any
    queue with fencing and a log of events has to: ids, states, deadlines, hashed tokens, events, counters.
    """
    with tempfile.TemporaryDirectory(prefix="airunner-reference-") as folder:
        database: Any = apsw.Connection(f"{folder}/life.db")
        database.execute(DURABLE)
        database.execute(LIFE_SCHEMA)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for _ in range(jobs // BATCH):
            _live(database)
        seconds, processor_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        database.close()
    return jobs / seconds, processor_s / jobs * 1e6


def _live(database: Any) -> None:  # noqa: ANN401 - apsw's own types need Python 3.12
    """Move one batch of jobs through their whole life."""
    now_ms = time.time_ns() // 1_000_000
    ids = [os.urandom(13).hex() for _ in range(BATCH)]
    with database:
        database.executemany(
            "INSERT INTO jobs (id, tenant, queue, state, priority, submitted_ms, attempt, last_sequence, watch_key,"
            " spec) VALUES (?, 'default', 'default', 'SCHEDULED', 0, ?, 0, 1, ?, ?)",
            [(job_id, now_ms, os.urandom(32), SPEC) for job_id in ids],
        )
        database.executemany(
            "INSERT INTO segments SELECT number, 1, 1, ? FROM jobs WHERE id = ?", [(EVENT, job_id) for job_id in ids]
        )
        database.execute("INSERT INTO requests VALUES (?, ?, ?)", (os.urandom(16), os.urandom(32), ",".join(ids)))
        database.execute("UPDATE counters SET waiting = waiting + ?", (BATCH,))
    with database:
        leased = list(
            database.execute(
                "SELECT number, id, attempt, last_sequence, spec FROM jobs WHERE tenant = 'default' AND"
                " queue = 'default' AND state = 'SCHEDULED' ORDER BY priority DESC, number LIMIT ?",
                (BATCH,),
            )
        )
        tokens = [blake2b(job_id.encode(), key=b"seed", digest_size=32).digest() for _, job_id, *_ in leased]
        hashes = [blake2b(token, digest_size=32).digest() for token in tokens]
        database.executemany(
            "UPDATE jobs SET state = 'RUNNING', attempt = ?, last_sequence = ?, deadline_ms = ?, agent = 'bench',"
            " token_hash = ? WHERE number = ? AND attempt = ?",
            [
                (attempt + 1, sequence + 1, now_ms, token_hash, number, attempt)
                for (number, _, attempt, sequence, _), token_hash in zip(leased, hashes, strict=True)
            ],
        )
        database.executemany("INSERT INTO segments VALUES (?, 2, 1, ?)", [(number, EVENT) for number, *_ in leased])
        database.execute("UPDATE counters SET waiting = waiting - ?1, running = running + ?1", (BATCH,))
    with database:
        fenced = [
            next(database.execute("SELECT number, attempt, token_hash FROM jobs WHERE id = ?", (job_id,)))
            for _, job_id, *_ in leased
        ]
        assert all(blake2b(token, digest_size=32).digest() == row[2] for token, row in zip(tokens, fenced, strict=True))
        database.executemany("INSERT INTO segments VALUES (?, 3, 3, ?)", [(number, EVENT * 3) for number, *_ in fenced])
        database.executemany(
            "UPDATE jobs SET state = 'COMPLETED', last_sequence = 5, finished_ms = ?, deadline_ms = NULL,"
            " token_hash = NULL, result = x'80' WHERE number = ? AND attempt = ?",
            [(now_ms, number, attempt) for number, attempt, _ in fenced],
        )
        database.execute("UPDATE counters SET running = running - ?", (BATCH,))


# --- pyzmq and apsw alone: a broker that stores what it receives -------------------------------------------


class BareBroker:
    """Connection to a running bare broker, and its process id.

    Requests and replies have the frames of airunner's, as long as these: a revision, a request id, a token, a body.
    """

    def __init__(self, endpoint: str, key: bytes, pid: int) -> None:
        self.pid = pid
        self._endpoint = endpoint
        self._key = key

    @contextmanager
    def dealer(self) -> Generator[zmq.Socket[bytes]]:
        """Connect a socket during the block."""
        public, secret = zmq.curve_keypair()
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = self._key, public, secret
            dealer.connect(self._endpoint)
            yield dealer

    def rate(self, body: bytes, requests: int, in_flight: int) -> float:
        """Measure the requests a second with so many in flight, each sent when a reply is there."""
        token = os.urandom(TOKEN_BYTES) if body != PING else b""
        with self.dealer() as dealer:
            dealer.send_multipart([REVISION, os.urandom(ID_BYTES), b"", PING])
            dealer.recv_multipart()  # connected
            began_s = time.perf_counter()
            for number in range(requests):
                if number >= in_flight:
                    dealer.recv_multipart()
                dealer.send_multipart([REVISION, os.urandom(ID_BYTES), token, body])
            for _ in range(min(requests, in_flight)):
                dealer.recv_multipart()
            return requests / (time.perf_counter() - began_s)


@contextmanager
def bare_broker() -> Generator[BareBroker]:
    """Run a broker of pyzmq with CURVE and apsw alone during the block, in a process of its own."""
    spawning = get_context("spawn")
    public, secret = zmq.curve_keypair()
    receiver, sender = spawning.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="airunner-reference-") as folder:
        process = spawning.Process(target=_serve, args=(folder, secret, sender), daemon=True)
        process.start()
        sender.close()  # so that the end of the process ends the wait for its endpoint
        assert process.pid is not None
        try:
            yield BareBroker(receiver.recv(), public, process.pid)
        finally:
            process.kill()
            process.join()


def _serve(folder: str, secret: bytes, ready: Connection) -> None:
    """Store the jobs of the requests that wait in one transaction with one fsync, then reply; until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.curve_server = True
    router.curve_secretkey = secret
    ready.send(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    database: Any = apsw.Connection(f"{folder}/bare.db")
    database.execute(DURABLE)
    database.execute("CREATE TABLE jobs (number INTEGER PRIMARY KEY, id TEXT, request BLOB, state INTEGER, spec BLOB)")
    database.execute("CREATE INDEX waiting ON jobs (number) WHERE state = 0")
    while True:
        asked = [router.recv_multipart()]
        while router.poll(0) and len(asked) < GATHERED:
            asked.append(router.recv_multipart())
        rows = [(secrets.token_hex(13), message[2], message[4]) for message in asked if message[4] != PING]
        if rows:
            with database:
                database.executemany("INSERT INTO jobs (id, request, state, spec) VALUES (?, ?, 0, ?)", rows)
        for message in asked:
            router.send_multipart([*message[:3], REPLY])
