"""Leases of a broker on PostgreSQL while `pg_dump` runs: `python -m bench.pgdump URL-OF-AN-EMPTY-DATABASE`.

The database is filled with finished jobs by a copy from SQLite, which is measured too. Then batches of jobs are
submitted, leased and ended, one after the other, in turns with and without a `pg_dump` of the database beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from airunner.broker.lifecycle.commands import MintedJob, StoreReply, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.open import open_shared_engine
from airunner.broker.storecopy import copy_store
from airunner.protocol.fields import JobSpec
from airunner.protocol.names import JOB_ID_RANDOM_BYTES, WatchKey, new_job_id
from airunner.protocol.replies import JobsLeased
from airunner.protocol.requests import EnqueueJob, StoreRequest
from airunner.transport.ports import SYSTEM
from bench.fill import TENANT, fill_finished
from bench.requests import dequeue, ended_at_once, request_id

JOBS: Final = 50_000  # finished ones: a dump of them takes some seconds
SLOTS: Final = 16  # jobs of a batch
BATCHES: Final = 400  # in a turn
TURNS: Final = 6  # every other one beside a dump
COPY: Final = Identity(broker="copy", fleet="bench", requests="", events="")
BROKER: Final = Identity(broker="bench", fleet="bench", requests="tcp://bench:1", events="tcp://bench:2")


def ask(store: Store, request: StoreRequest, jobs: int = 0) -> StoreReply:
    """Apply one request."""
    now_ms = SYSTEM.wall_ms()
    ids = (new_job_id(os.urandom(JOB_ID_RANDOM_BYTES)) for _ in range(jobs))
    minted = tuple(MintedJob(job_id, WatchKey(os.urandom(32))) for job_id in ids)
    command = TenantRequest(tenant=TENANT, request_id=request_id(now_ms), request=request, minted=minted)
    reply = store.apply([command], now_ms).done[0].reply
    assert reply is not None
    return reply


def turn(store: Store) -> list[float]:
    """Submit, lease and end `BATCHES` batches of jobs; return how many ms each lease has taken."""
    took: list[float] = []
    for _ in range(BATCHES):
        ask(store, EnqueueJob(jobs=(JobSpec(command="true"),) * SLOTS), SLOTS)
        before_s = time.perf_counter()
        leased = ask(store, dequeue(SLOTS, 0))
        took.append(1_000 * (time.perf_counter() - before_s))
        assert isinstance(leased, JobsLeased)
        ask(store, ended_at_once(leased.leases))
    return took


@contextmanager
def dumping(url: str, folder: Path) -> Generator[None]:
    """Run one `pg_dump` after the other during the block."""
    words = ["pg_dump", "--format=custom", "--schema=airunner", f"--file={folder}/dump", url]
    script = 'while "$@"; do echo; done'
    with subprocess.Popen(["sh", "-c", script, "sh", *words], stdout=subprocess.PIPE, start_new_session=True) as shell:
        try:
            yield
            assert shell.poll() is None, "pg_dump failed"
        finally:
            os.killpg(shell.pid, 9)


def main(url: str) -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        fill_finished(Path(folder, "source.db"), JOBS)
        before_s = time.perf_counter()
        copied = copy_store(f"sqlite:///{folder}/source.db", url, lambda: COPY, id)
        print(f"copied and compared {copied.jobs} jobs, {copied.events} events: {time.perf_counter() - before_s:.1f} s")
        took: dict[bool, list[float]] = {False: [], True: []}
        with closing(open_shared_engine(url, BROKER, SYSTEM.wall_ms)) as engine:
            store = Store(engine)
            for number in range(TURNS):
                if number % 2:
                    with dumping(url, Path(folder)):
                        took[True] += turn(store)
                else:
                    took[False] += turn(store)
    p99 = {dumps: quantiles(times, n=100)[-1] for dumps, times in took.items()}
    for dumps, times in took.items():
        print(f"lease of {SLOTS}, pg_dump {dumps}: median {median(times):.2f} ms, p99 {p99[dumps]:.2f} ms")
    print(f"ratio of the p99: {p99[True] / p99[False]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
