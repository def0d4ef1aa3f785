"""What docs/OPERATING.md has operators run is run: roles, schema, a dump under load and its restore, a move."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from airunner.broker.identity import fleet_of
from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.postgres.engine import PostgresEngine, open_postgres
from airunner.broker.store.rows import BrokerSeen
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.certs.curve import load_broker_pair
from airunner.certs.home import Home
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobCompleted, JobLease
from airunner.transport.ports import SYSTEM
from tests.conformance.driving import Driver, batch, completion
from tests.conformance.machine import StoreAndModel
from tests.postgresql.serving import ONE_VERSION, Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "OPERATING.md").read_text()
BLOCKS = re.findall(r"<!-- runs: \S+ -->\n```\w+\n(.+?)```", PAGE, re.DOTALL)
ROLES = ("airunner_owner", "airunner_broker")
pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # a dozen commands, as in acceptance/
JOBS = 20  # that end before the dump begins


def block(start: str) -> str:
    """The block of the page that begins so."""
    (found,) = [text for text in BLOCKS if text.startswith(start)]
    return str(found)


@pytest.fixture
def fleet(postgresql: Server) -> Iterator[Server]:
    """A server with the page's roles and database."""
    postgresql.execute(*block("CREATE ROLE").split(";\n")[:-1])
    yield postgresql
    for database in ("airunner", "restored", "moved"):
        postgresql.drop(database)
    postgresql.execute(*(f"DROP ROLE {role}" for role in ROLES))


class Shell:
    """A shell as an operator has it: with PostgreSQL's programs, airunner, and the page's variables."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._folder = folder
        programs = folder / "programs"
        programs.mkdir()
        (programs / "airunner").write_text(f'#!/bin/sh\nexec {sys.executable} -m airunner "$@"\n')
        (programs / "airunner").chmod(0o755)
        self.environ = {
            "PATH": f"{programs}:{server.programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "AIRUNNER_HOME": str(folder / "home"),
            "OWNER_URL": server.url("airunner", "airunner_owner"),
            "AIRUNNER_STORE": server.url("airunner", "airunner_broker"),
            "RESTORED_URL": server.url("restored", "airunner_owner"),
            "RESTORED_STORE": server.url("restored", "airunner_broker"),
            "SQLITE_URL": f"sqlite:///{folder}/source.db",
        }
        self("airunner certs init")

    def __call__(self, script: str, **more: str) -> str:
        words = ["sh", "-euc", script]
        environ = {**self.environ, **more}
        done = subprocess.run(words, env=environ, cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}{done.stdout}{done.stderr}"
        return done.stdout

    def open(self, url: str) -> PostgresEngine:
        """Open a store as a new broker of this home's fleet."""
        fleet = fleet_of(load_broker_pair(Home(Path(self.environ["AIRUNNER_HOME"]))).public)
        identity = Identity(broker=url.lower(), fleet=fleet, requests="tcp://a:1", events="tcp://a:2")
        return open_postgres(self.environ[url], identity, SYSTEM.wall_ms)


def live(driver: Driver) -> tuple[str, JobLease]:
    """A job that has ended, and the lease of one that has begun."""
    job_id, _ = driver.submit("ends", "runs")
    ends, runs = driver.lease(slots=2)
    for lease in (ends, runs):
        assert driver.publish(batch(lease, 0, f"console of {lease.job_id}", "more" * 500)) == [(2, None)]
    driver.reply(JobCompleted, completion(ends, 2))
    return job_id, runs


@contextmanager
def load(driver: Driver) -> Iterator[None]:
    """Jobs are submitted, run and ended while the block runs; it begins when the first have been."""
    begun, ended = Event(), Event()

    def run() -> None:
        while not ended.is_set():
            live(driver)
            begun.set()

    worker = Thread(target=run)
    worker.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def test_a_dump_under_load_is_restored_with_every_log_and_lease(fleet: Server, tmp_path: Path) -> None:
    shell = Shell(fleet, tmp_path)
    shell(block("airunner store init"))
    with closing(shell.open("AIRUNNER_STORE")) as engine:
        driver = Driver(Store(engine))
        lives = [live(driver) for _ in range(JOBS)]
        with load(driver):
            shell(block("pg_dump"))
        logs = {job_id: driver.log(job_id) for job_id, _ in lives}
    fleet.execute("CREATE DATABASE restored OWNER airunner_owner TEMPLATE template0")
    said = shell(block("pg_restore"))
    assert said.startswith("checked postgresql://airunner_owner@/restored")
    assert said.endswith("verified\n")
    with closing(shell.open("RESTORED_STORE")) as engine:
        driver.store = Store(engine)
        assert {job_id: driver.log(job_id) for job_id, _ in lives} == logs
        (beat,) = driver.apply(Beat()).done
        (other,) = [row for row in beat.news.brokers if row.broker != engine.broker]
        driver.apply(Adopt(BrokerSeen(other.broker, other.epoch, other.beat)))
        for _, lease in lives:  # whose agents know nothing of the restore
            assert driver.publish(batch(lease, 2, "after")) == [(3, None)]
            driver.reply(JobCompleted, completion(lease, 3))
        driver.submit()
        assert driver.job(driver.lease_one().job_id).state is JobState.RUNNING


@ONE_VERSION
def test_a_store_is_moved_as_the_page_says(fleet: Server, tmp_path: Path) -> None:
    shell = Shell(fleet, tmp_path)
    shell(block("airunner store init"))
    with closing(open_sqlite(tmp_path / "source.db")) as engine:
        StoreAndModel(Store(engine), seed=3).run()
    assert shell(block("airunner store copy")).endswith("; all equal\n")
    assert shell('airunner store check --store "$AIRUNNER_STORE"').endswith("verified\n")


def test_every_block_of_the_page_that_is_said_to_run_is_run() -> None:
    source = Path(__file__).read_text()
    used = re.findall(r'block\("([^"]+)"\)', source)
    assert len(BLOCKS) == len(used) - used.count("airunner store init") + 1
