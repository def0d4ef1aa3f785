"""Agents that are told to stop or are killed."""

from __future__ import annotations

import json
import signal

import pytest

from tests.acceptance.gate import Gate, events, gone, kinds, second_attempt, submit
from tests.acceptance.running import Cluster

pytestmark = pytest.mark.timeout(60)


def test_a_drained_agent_finishes_what_runs_and_takes_no_more(cluster: Cluster, gate: Gate) -> None:
    agent = cluster.agent()
    running = submit(cluster, gate.script)
    gate.wait()
    agent.signal(signal.SIGTERM)
    agent.line("draining")
    waiting = submit(cluster, "true")
    gate.open(1)
    assert agent.wait() == 0
    assert kinds(cluster, running)[-1] == "JOB_FINISHED"
    shown = cluster.airunner("show", "--json", waiting)
    assert json.loads(shown.stdout)["state"] == "SCHEDULED"


def test_a_stopped_agent_delivers_releases_and_leaves_nothing(cluster: Cluster, gate: Gate) -> None:
    agent = cluster.agent()
    job_id = submit(cluster, gate.script)
    pid = gate.wait()
    agent.signal(signal.SIGTERM)
    agent.line("draining")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    gone(pid)
    second_attempt(cluster, gate)
    log = list(events(cluster, job_id))
    assert "JOB_RELEASED" in [event["kind"] for event in log]
    assert [event["attempt"] for event in log if str(event.get("data")).startswith("early")] == [1, 2]
    assert log[-1]["state"] == "COMPLETED"


def test_an_idle_agent_stops_though_its_broker_is_away(cluster: Cluster) -> None:
    agent = cluster.agent()
    cluster.broker.kill()
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0


def test_a_killed_agent_costs_seconds_and_not_the_visibility_timeout(cluster: Cluster, gate: Gate) -> None:
    agent = cluster.agent("--visibility-timeout", "300")
    job_id = submit(cluster, gate.script)
    pid = gate.wait()
    agent.kill()
    gone(pid)
    second_attempt(cluster, gate)
    log = list(events(cluster, job_id))
    assert "JOB_RELEASED" in [event["kind"] for event in log]
    assert "JOB_EXPIRED" not in [event["kind"] for event in log]
    assert log[-1]["state"] == "COMPLETED"
    assert log[-1]["attempt"] == 2
