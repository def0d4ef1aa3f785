"""Agents that are told to stop."""

from __future__ import annotations

import json
import signal

import pytest

from tests.acceptance.gate import Gate, events, gone, submit
from tests.acceptance.running import Cluster

pytestmark = pytest.mark.timeout(60)


def test_a_drained_agent_finishes_what_runs_and_a_stopped_one_gives_it_back_and_neither_takes_more(
    cluster: Cluster, gate: Gate
) -> None:
    stopped = cluster.agent()
    job_id = submit(cluster, gate.script)
    pid = gate.wait()
    stopped.signal(signal.SIGTERM)
    stopped.line("draining")
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 0
    gone(pid)
    drained = cluster.agent()
    gate.wait()
    drained.signal(signal.SIGTERM)
    drained.line("draining")
    waiting = submit(cluster, "true")
    gate.open(2)
    assert drained.wait() == 0
    log = list(events(cluster, job_id))
    assert "JOB_RELEASED" in [event["kind"] for event in log]
    assert [event["attempt"] for event in log if str(event.get("data")).startswith("early")] == [1, 2]
    assert log[-1]["state"] == "COMPLETED"
    assert json.loads(cluster.airunner("show", "--json", waiting).stdout)["state"] == "SCHEDULED"
