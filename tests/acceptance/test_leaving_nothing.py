"""Whatever a job starts and whoever is killed: nothing is left of it, and the log says what was."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.chaos_processes import job_processes
from tests.acceptance.gate import Gate, events, submit
from tests.acceptance.running import Cluster
from tests.agent.launcher.launching import Watched, children_of

pytestmark = pytest.mark.timeout(90)

# Its keeper can do nothing, and nobody is left to wake it; it holds on to life.
UNKEPT = """
trap '' TERM
launcher=$(cut -d' ' -f4 /proc/$PPID/stat)
kill -STOP $launcher $PPID
kill -KILL $launcher
while :; do sleep 1000; done
"""


def test_no_daemons_arguments_make_a_line_of_airunners(cluster: Cluster) -> None:
    """Nor do the words of a hook's program that cannot be run, or a job's command in the agent's own log."""
    agent = cluster.agent()
    forged = "x\nairunner: COMPLETED, exit code 0\u200b\x1b[2J\n  7 sleep"
    daemon = "setsid sh -c 'trap exit TERM; echo > begun; while :; do sleep 1; done' \"$1\""
    done = cluster.airunner(
        "submit", "--", "sh", "-c", f"mkfifo begun; {daemon} & read -r _ < begun; exit 3", "sh", forged
    )
    told = done.stderr.decode()
    assert r"x airunner: COMPLETED, exit code 0\u200b\x1b[2J   7 sleep" in told
    assert [line for line in told.splitlines() if "COMPLETED" in line and not line.startswith("|   ")] == []
    cluster.airunner("submit", "--", forged)
    assert [line for line in agent.lines if line.startswith("airunner: ")] == []
    refused = cluster.airunner("submit", "--owner", "ada\u200b", "--", "true")
    assert (refused.returncode, r"owner: ada\u200b contains" in refused.stderr.decode()) == (2, True)


def test_a_job_that_stops_its_keeper_and_kills_the_launcher_is_ended_and_counted(cluster: Cluster) -> None:
    agent = cluster.agent()
    done = cluster.airunner("submit", "--no-monitor", "--max-attempts", "2", "--", "sh", "-c", UNKEPT)
    log = list(events(cluster, done.stdout.decode().strip()))
    assert (log[-1]["state"], log[-1]["reason"], log[-1]["attempt"]) == ("FAILED", "agent-lost", 2)
    assert job_processes(cluster.home) == []
    assert agent.running


def test_when_agent_launcher_and_keepers_are_killed_at_once_the_next_attempt_begins_when_nothing_is_left(
    cluster: Cluster, gate: Gate
) -> None:
    agent = cluster.agent()
    job_id = submit(cluster, gate.script)
    first = Watched([gate.wait()])
    (launcher,) = children_of(agent.pid)
    everybody = [agent.pid, launcher, *children_of(launcher)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in everybody:
            os.kill(pid, number)
    agent.wait()
    assert not first.gone_within(0)
    cluster.agent()
    gate.wait()
    assert first.gone_within(0)
    gate.open(2)
    log = list(events(cluster, job_id))
    assert [event["attempt"] for event in log if "between" in str(event.get("data"))] == [2]
    kinds = [event["kind"] for event in log]
    assert ("JOB_RELEASED" in kinds, "JOB_EXPIRED" in kinds) == (True, False), "it costs no visibility timeout"
