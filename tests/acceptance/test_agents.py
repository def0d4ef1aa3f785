"""Agents that are told to stop, are killed, or are stopped for longer than their lease."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, Process

pytestmark = pytest.mark.timeout(60)


class Gate:
    """A job that says that it has begun, and goes on when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.begun, self.go = folder / "begun", folder / "go"
        for fifo in (self.begun, self.attempt(1), self.attempt(2)):
            os.mkfifo(fifo)

    def attempt(self, number: int) -> Path:
        return self.go.with_suffix(f".{number}")

    @property
    def script(self) -> str:
        return f"echo early; echo $$ > {self.begun}; cat {self.go}.$AIRUNNER_ATTEMPT; echo late"

    def wait(self) -> int:
        """The job's process, once it has begun."""
        return int(self.begun.read_text())

    def open(self, attempt: int) -> None:
        self.attempt(attempt).write_text("between\n")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def submit(cluster: Cluster, script: str) -> str:
    done = cluster.airunner("submit", "--no-monitor", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def events(cluster: Cluster, job_id: str) -> Iterator[dict[str, object]]:
    """Its whole log, once it has ended."""
    done = cluster.airunner("monitor", "--json", job_id, timeout_s=40)
    for line in done.stdout.splitlines():
        yield json.loads(line)


def kinds(cluster: Cluster, job_id: str) -> list[object]:
    return [event["kind"] for event in events(cluster, job_id)]


def gone(pid: int) -> None:
    """Wait until a process that is not ours has ended."""
    subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], check=True, timeout=20)


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


def test_an_agent_that_slept_past_its_lease_changes_nothing_when_it_wakes(cluster: Cluster, gate: Gate) -> None:
    stale = cluster.agent("--visibility-timeout", "3")
    job_id = submit(cluster, gate.script)
    pid = gate.wait()
    stale.signal(signal.SIGSTOP)
    second_attempt(cluster, gate)
    log = list(events(cluster, job_id))
    stale.signal(signal.SIGCONT)
    stale.line(f"job {job_id} attempt 1 has lost its lease")
    gone(pid)
    assert list(events(cluster, job_id)) == log
    assert [event["kind"] for event in log].count("JOB_EXPIRED") == 1
    assert (log[-1]["state"], log[-1]["attempt"]) == ("COMPLETED", 2)


def second_attempt(cluster: Cluster, gate: Gate) -> Process:
    """Another agent, which takes the job up and is let finish it."""
    agent = cluster.agent()
    gate.wait()
    gate.open(2)
    return agent
