"""Three real brokers on PostgreSQL, really broken, for a short while; `make chaos-ha` does it for longer."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psycopg
import pytest

from airunner.protocol.events import Event, JobExpired, JobLeased, JobReleased, JobScheduled
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState
from airunner.protocol.names import JobId
from tests.acceptance.chaos_fleet import PLAIN, StepClock
from tests.acceptance.chaos_ha import CALM, STEP_MS
from tests.acceptance.chaos_judge import Cluster, history_of
from tests.acceptance.chaos_processes import breaking, connects_from
from tests.acceptance.chaos_waits import ANSWERED_MS, lost_by, unanswered
from tests.acceptance.partlink import Cut, PartLink, StoreLink
from tests.postgresql.serving import VERSIONS, Servers, missing, require
from tests.simulation.history import Acknowledged, Invoked
from tests.simulation.oracle import check

BEGUN_MS = 1_700_000_000_000
CLUSTER = Cluster(Path(), Path(), "", BEGUN_MS, 5_000, STEP_MS)

chaos_ha = partial(breaking, "tests.acceptance.chaos_ha")


@pytest.mark.timeout(240)
def test_nothing_is_lost_done_twice_or_left_behind_whatever_befalls_three_brokers(tmp_path: Path) -> None:
    require(VERSIONS[0])
    if StepClock(tmp_path / "clock").why_not:
        missing("faketime", "install Debian's faketime")
    with chaos_ha(tmp_path, "--seconds", "36", "--seed", "2") as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said
    assert "processes left behind   0" in said


@pytest.mark.timeout(120)  # a cluster is made first
@pytest.mark.parametrize(("where", "kept"), [(Cut.BEFORE, 0), (Cut.AFTER, 1)])
def test_a_connection_is_cut_before_the_server_commits_or_after(
    where: Cut, kept: int, postgresql_servers: Servers
) -> None:
    server = postgresql_servers(VERSIONS[0])
    database = server.database()
    link = StoreLink(("127.0.0.1", server.port))
    url = server.url(database, tcp=True, **PLAIN).replace(f":{server.port}/", f":{link.address[1]}/")
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
            link.cut(where)
            with pytest.raises(psycopg.OperationalError):
                insert(connection)
        assert link.cuts == {where: 1}
        # The server may yet be about to find out.
        server.wait_for("SELECT count(*) FROM pg_stat_activity WHERE datname = '" + database + "'", [(0,)])
        assert server.execute("SELECT count(*) FROM kept", database=database) == [(kept,)]
    finally:
        link.close()
        server.drop(database)


def test_a_link_may_be_parted_for_one_process_of_those_that_use_it() -> None:
    with ExitStack() as ends:
        target = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        link = ends.enter_context(closing(PartLink(target.getsockname())))
        near = [ends.enter_context(socket.create_connection(link.address)) for _ in range(2)]
        ports = [end.getsockname()[1] for end in near]
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
            owners = [[connects_from(pid, port) for port in ports] for pid in (os.getpid(), other.pid)]
        assert owners == [[True, True], [False, False]]
        far = [ends.enter_context(target.accept()[0]) for _ in near]
        link.part(ports[0].__eq__)
        for end in far:
            end.sendall(b"news")
        assert near[1].recv(4) == b"news"
        with pytest.raises(BlockingIOError):
            near[0].recv(4, socket.MSG_DONTWAIT)
        link.join()
        assert near[0].recv(4) == b"news"


def insert(connection: psycopg.Connection[tuple[int, ...]]) -> None:
    """Insert a row as a broker saves a batch."""
    with connection.pipeline():
        for statement in (b"BEGIN", b"INSERT INTO kept VALUES (1)", b"COMMIT"):
            connection.cursor(binary=True).execute(statement)


def test_an_acknowledged_job_that_is_missing_is_found() -> None:
    asked = {"machine": "client", "request_id": b"r", "kind": "enqueue"}
    told = [
        Invoked(at_ms=BEGUN_MS, **asked, jobs=(JobSpec(command="true"),)),
        Acknowledged(at_ms=BEGUN_MS + 1, **asked, job_ids=("j",)),
    ]
    assert [found.law for found in check(history_of(CLUSTER, told, []))] == ["acknowledged_jobs_survive"]


@pytest.mark.parametrize("ahead_ms", [STEP_MS, 0, -STEP_MS])
def test_an_instant_of_a_clock_that_was_set_is_brought_back(ahead_ms: int) -> None:
    assert CLUSTER.true_ms(BEGUN_MS + 600_000 + ahead_ms) == BEGUN_MS + 600_000


@pytest.mark.parametrize(
    ("agent", "end", "lost"),
    [
        (CALM, JobExpired(timestamp_ms=BEGUN_MS), 1),
        (CALM, JobReleased(timestamp_ms=BEGUN_MS, lost=True), 1),
        (CALM, JobReleased(timestamp_ms=BEGUN_MS), 0),
        ("agent-0", JobExpired(timestamp_ms=BEGUN_MS), 0),
    ],
)
def test_a_job_that_the_agent_lost_whom_nobody_hurt_is_found(
    agent: str, end: JobExpired | JobReleased, lost: int
) -> None:
    job = Job(id=JobId("j"), state=JobState.SCHEDULED, spec=JobSpec(command="true"), submitted_ms=BEGUN_MS)
    bodies = JobScheduled(timestamp_ms=BEGUN_MS, queue="default"), JobLeased(timestamp_ms=BEGUN_MS, agent=agent), end
    log = [Event(job_id=job.id, sequence=at + 1, attempt=min(at, 1), body=body) for at, body in enumerate(bodies)]
    assert len(list(lost_by(CALM, [(job, log)]))) == lost


@pytest.mark.parametrize(("waited_ms", "wrong"), [(ANSWERED_MS, 0), (ANSWERED_MS + 1, 1), (None, 1)])
def test_a_parked_request_without_an_answer_in_time_is_found(waited_ms: int | None, wrong: int) -> None:
    asked = {"machine": "parker", "request_id": b"r", "kind": "park"}
    told = [] if waited_ms is None else [Acknowledged(at_ms=BEGUN_MS + waited_ms, **asked)]
    assert len(list(unanswered([Invoked(at_ms=BEGUN_MS, **asked), *told]))) == wrong
