"""A fleet of real brokers on a real PostgreSQL server: what one leaves another takes over, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.acceptance.brokers import listed, make_homes, running_brokers
from tests.acceptance.running import Cluster, Gate, RunningBroker, events, start, submit
from tests.postgresql.serving import Servers

ADOPTED_S_MAX = 60.0


@pytest.fixture
def brokers(store: str, tmp_path: Path) -> Iterator[list[Cluster]]:
    with running_brokers(make_homes(tmp_path / "home", 2), store) as found:
        yield found


def require_one_run(cluster: Cluster, job_id: str) -> None:
    """The log is dense, and of one attempt that came to its end."""
    log = list(events(cluster, job_id))
    assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
    assert {event["attempt"] for event in log if event["kind"] != "JOB_SCHEDULED"} == {1}
    assert sum(event["kind"] == "JOB_LEASED" for event in log) == 1
    assert (log[-1]["kind"], log[-1]["state"]) == ("JOB_FINISHED", "COMPLETED")


@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
def test_a_broker_that_ends_is_adopted_and_its_job_runs_on_to_its_end(
    brokers: list[Cluster], gate: Gate, *, gently: bool
) -> None:
    a, b = brokers
    b.agent("--broker", a.broker.requests)
    job_id = submit(a, gate.script)
    gate.wait()
    owner, heir = (a, b) if listed(b)[a.broker.requests]["leases"] else (b, a)
    gone = f"airunner broker: broker {_id(owner.broker)} at {owner.broker.requests}"
    if gently:
        assert owner.broker.stop() == 0
        heir.broker.process.line(f"{gone} has ended", ADOPTED_S_MAX)
    else:
        owner.broker.kill()
        heir.broker.process.line(f"{gone} has written nothing", ADOPTED_S_MAX)
    rows = listed(heir)
    assert [
        (row.get("dead", False), row["leases"]) for row in (rows[owner.broker.requests], rows[heir.broker.requests])
    ] == [(True, 0), (False, 1)]
    gate.open(1)
    require_one_run(heir, job_id)


def test_a_broker_that_is_started_again_at_once_owns_its_leases(brokers: list[Cluster], gate: Gate) -> None:
    a, b = brokers
    a.agent()
    job_id = submit(b, gate.script)
    gate.wait()
    a.broker.kill()
    a.broker.start()
    rows = listed(b)
    assert {at: (row["leases"], row.get("asked", False), row.get("dead", False)) for at, row in rows.items()} == {
        a.broker.requests: (1, False, False),
        b.broker.requests: (0, True, False),
    }
    gate.open(1)
    require_one_run(b, job_id)


def test_while_the_database_is_down_what_was_asked_waits_and_probes_see_it(
    brokers: list[Cluster], gate: Gate, postgresql_servers: Servers
) -> None:
    a, b = brokers
    a.agent("--broker", b.broker.requests)
    running = submit(a, gate.script)
    gate.wait()
    server, said = postgresql_servers(15), a.broker.process
    server.stop()
    try:
        said.line("airunner broker: unavailable: away: the store is away: ", ADOPTED_S_MAX)
        assert (_status(a.broker, "ready"), _status(a.broker, "live")) == (503, 200)
        assert b"cannot reach its store" in a.airunner("doctor").stdout
        gate.open(1)
        waiting = start(a.environ, "submit", "--", "sh", "-c", "echo later", stdout=-1, stderr=-1)
    finally:
        server.start()
    with waiting:
        said.line("airunner broker: condition over: away", ADOPTED_S_MAX)
        shown, _ = waiting.communicate(timeout=60)
        assert (waiting.returncode, shown) == (0, b"later\n")
    require_one_run(b, running)
    assert _status(a.broker, "ready") == 200


def test_a_broker_ends_though_its_server_does_not_answer(brokers: list[Cluster], postgresql_servers: Servers) -> None:
    with postgresql_servers(15).stopped():
        assert brokers[0].broker.stop() == 0
    assert brokers[0].broker.process.lines[-1].startswith("airunner broker stopped: the store's server did not answer")


def _id(broker: RunningBroker) -> str:
    return (broker.home / "broker" / "id").read_text().strip()


def _status(broker: RunningBroker, page: str) -> int:
    try:
        with urlopen(f"http://{broker.http}/health/{page}") as reply:
            return int(reply.status)
    except HTTPError as refused:
        with refused:
            return refused.code
