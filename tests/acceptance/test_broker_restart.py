"""A broker that is away costs no running job anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.gate import Gate, events, gone, submit
from tests.acceptance.running import Cluster

pytestmark = pytest.mark.timeout(60)
JOBS = 4


def test_jobs_run_on_and_end_without_their_broker_and_their_logs_are_whole(cluster: Cluster, tmp_path: Path) -> None:
    cluster.agent(spawn=JOBS)
    gates: list[Gate] = []
    for number in range(JOBS):
        folder = tmp_path / str(number)
        folder.mkdir()
        gates.append(Gate(folder))
    jobs = [submit(cluster, gate.script) for gate in gates]
    pids = [gate.wait() for gate in gates]
    cluster.broker.kill()
    for gate, pid in zip(gates, pids, strict=True):
        gate.open(1)
        gone(pid)
    cluster.broker.start()
    for job_id in jobs:
        log = list(events(cluster, job_id))
        assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
        assert {event["attempt"] for event in log} == {0, 1}
        said = "".join(str(event["data"]) for event in log if event["kind"] == "OUTPUT")
        assert said == "early\nbetween\nlate\n"
        assert (log[-1]["kind"], log[-1]["state"]) == ("JOB_FINISHED", "COMPLETED")
