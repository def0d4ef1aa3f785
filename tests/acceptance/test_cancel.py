"""A running job is cancelled: the command is gone, nothing is left, and it says so."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.gate import Gate, events, submit
from tests.acceptance.running import Cluster
from tests.agent.launcher.launching import Watched

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 20  # of the machine; `make bench` measures how quick it is


def test_a_cancelled_job_is_ended_long_before_the_next_heartbeat(cluster: Cluster, gate: Gate) -> None:
    cluster.agent("--visibility-timeout", "300")  # a heartbeat a minute
    job_id = submit(cluster, f"echo $$ > {gate.begun}; exec sleep 1000")
    process = Watched([gate.wait()])
    assert cluster.airunner("cancel", job_id).returncode == 0
    assert process.gone_within(PATIENCE_S)
    log = list(events(cluster, job_id))
    assert [event["kind"] for event in log[-3:]] == ["JOB_CANCEL_REQUESTED", "PROCESS_END", "JOB_FINISHED"]
    assert (log[-1]["state"], log[-1]["signal"]) == ("CANCELLED", signal.SIGTERM)
