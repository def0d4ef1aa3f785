"""An agent that was stopped for longer than its lease: what it ran is dead in time, and waking changes nothing."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.gate import Gate, events, stored, submit
from tests.acceptance.running import Cluster
from tests.agent.launcher.launching import Watched

pytestmark = pytest.mark.timeout(60)


def test_a_stale_agents_job_is_dead_before_another_has_it_and_the_others_result_stands(
    cluster: Cluster, gate: Gate
) -> None:
    stale = cluster.agent("--name", "stale", "--visibility-timeout", "3")
    job_id = submit(cluster, gate.script)
    first = Watched([gate.wait()])
    stored(cluster, job_id, "PROCESS_START")
    stale.signal(signal.SIGSTOP)
    cluster.agent("--name", "fresh")
    second = Watched([gate.wait()])
    assert first.gone_within(0)  # while its agent is stopped
    stale.signal(signal.SIGCONT)
    stale.line(f"job {job_id} attempt 1 has lost its lease")
    assert not second.gone_within(0)  # the other runs on
    gate.open(2)
    log = list(events(cluster, job_id))
    assert [(event["kind"], event["attempt"]) for event in log if event["kind"] != "OUTPUT"] == [
        ("JOB_SCHEDULED", 0),
        ("JOB_LEASED", 1),
        ("PROCESS_START", 1),
        ("JOB_EXPIRED", 1),
        ("JOB_LEASED", 2),
        ("PROCESS_START", 2),
        ("PROCESS_END", 2),
        ("JOB_FINISHED", 2),
    ]
    assert log[-1]["state"] == "COMPLETED"
