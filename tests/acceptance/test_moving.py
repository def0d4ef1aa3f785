"""A store is moved to PostgreSQL between two lives of its broker, while an agent runs a job."""

from __future__ import annotations

from tests.acceptance.running import Cluster, Gate, airunner, events, submit, submitted


def test_a_running_job_outlives_the_move_of_its_store(cluster: Cluster, gate: Gate, store: str) -> None:
    cluster.agent()
    ended = submitted(cluster, "--", "seq", "1000")
    whole = list(events(cluster, ended))
    running = submit(cluster, gate.script)
    gate.wait()
    cluster.broker.stop()
    airunner(cluster.home, "store", "copy", f"sqlite:///{cluster.home}/broker/airunner.db", store)
    cluster.broker.options = ["--store", store]
    cluster.broker.start()
    gate.open(1)
    assert list(events(cluster, ended)) == whole
    log = list(events(cluster, running))
    assert [event["sequence"] for event in log] == [*range(1, len(log) + 1)]
    assert (log[-1]["kind"], log[-1]["state"]) == ("JOB_FINISHED", "COMPLETED")
    assert {event["attempt"] for event in log if event["kind"] == "OUTPUT"} == {1}
