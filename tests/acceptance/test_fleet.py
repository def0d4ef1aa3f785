"""A fleet of real brokers on a real PostgreSQL server: what one leaves another takes over, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.acceptance.fleets import RunningFleet, running_fleet
from tests.acceptance.running import Gate, RunningBroker, start

ADOPTED_S_MAX = 60.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path) as running:
        yield running


def require_one_run(log: list[dict[str, object]]) -> None:
    """The log is dense, and of one attempt that came to its end."""
    assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
    assert {event["attempt"] for event in log if event["kind"] != "JOB_SCHEDULED"} == {1}
    assert sum(event["kind"] == "JOB_LEASED" for event in log) == 1
    assert log[-1]["kind"] == "JOB_FINISHED"
    assert log[-1]["state"] == "COMPLETED"


def test_what_is_submitted_at_one_broker_is_run_by_an_agent_at_another(fleet: RunningFleet) -> None:
    a, b = fleet.brokers
    fleet.agent(a)
    require_one_run(fleet.log(fleet.submit("echo hello", b), b))
    rows = fleet.listed(b)
    assert set(rows) == {a.requests, b.requests}
    assert rows[b.requests]["asked"]
    assert not any(row.get("dead") for row in rows.values())


@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
def test_a_broker_that_ends_is_adopted_and_its_job_runs_on_to_its_end(
    fleet: RunningFleet, gate: Gate, *, gently: bool
) -> None:
    a, b = fleet.brokers
    fleet.agent(a, b)
    job_id = fleet.submit(gate.script, a)
    gate.wait()
    assert fleet.listed(b)[a.requests]["leases"] == 1
    if gently:
        assert a.stop() == 0
        b.process.line(f"airunner broker: broker {_id(a)} at {a.requests} has ended", ADOPTED_S_MAX)
    else:
        a.kill()
        b.process.line(f"airunner broker: broker {_id(a)} at {a.requests} has written nothing", ADOPTED_S_MAX)
    rows = fleet.listed(b)
    assert (rows[a.requests]["dead"], rows[a.requests]["leases"], rows[b.requests]["leases"]) == (True, 0, 1)
    gate.open(1)
    require_one_run(fleet.log(job_id, b))


def test_a_broker_that_is_started_again_at_once_owns_its_leases(fleet: RunningFleet, gate: Gate) -> None:
    a, b = fleet.brokers
    fleet.agent(a)
    job_id = fleet.submit(gate.script, a)
    gate.wait()
    a.kill()
    a.start()
    row = fleet.listed(b)[a.requests]
    assert (row["leases"], row.get("dead", False)) == (1, False)
    gate.open(1)
    require_one_run(fleet.log(job_id, b))


def test_while_the_database_is_down_what_was_asked_waits_and_probes_see_it(fleet: RunningFleet, gate: Gate) -> None:
    a, b = fleet.brokers
    fleet.agent(a, b)
    running = fleet.submit(gate.script, a)
    gate.wait()
    fleet.server.stop()
    a.process.line("airunner broker: unavailable: away: the store has been away", ADOPTED_S_MAX)
    assert (_status(a, "ready"), _status(a, "live")) == (503, 200)
    gate.open(1)
    with start(fleet.environ(a), "submit", "--", "sh", "-c", "echo later", stdout=-1, stderr=-1) as waiting:
        fleet.server.start()
        a.process.line("airunner broker: condition over: away", ADOPTED_S_MAX)
        said, _ = waiting.communicate(timeout=60)
        assert (waiting.returncode, said) == (0, b"later\n")
    require_one_run(fleet.log(running, b))
    assert _status(a, "ready") == 200


def test_a_home_has_one_broker(fleet: RunningFleet) -> None:
    a, _ = fleet.brokers
    with start(fleet.environ(), "broker", "--store", a.options[1], "--listen", "tcp://127.0.0.1:0", stderr=-1) as other:
        _, said = other.communicate(timeout=60)
    assert b"a broker already runs in" in said
    assert other.returncode != 0


def _id(broker: RunningBroker) -> str:
    return (broker.home / "broker" / "id").read_text().strip()


def _status(broker: RunningBroker, page: str) -> int:
    try:
        with urlopen(f"http://{broker.http}/health/{page}") as reply:
            return int(reply.status)
    except HTTPError as refused:
        with refused:
            return refused.code
