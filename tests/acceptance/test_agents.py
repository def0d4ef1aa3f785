"""Agents that are stopped, killed, or without what they need: no job of theirs is lost, or run twice at once."""

from __future__ import annotations

import json
import os
import signal

from airunner.agent.plan import AGENT_DESCRIPTORS, SLOT_DESCRIPTORS
from tests.acceptance.bounded import needs_prlimit, with_descriptors
from tests.acceptance.running import Cluster, Gate, Process, events, stored, submit
from tests.agent.launcher.launching import Watched, children_of

SOFT = 80  # descriptors: four slots' worth


# Its keeper can do nothing, and nobody is left to wake it; it holds on to life.
def test_a_drained_agent_finishes_what_runs_and_a_stopped_one_gives_it_back_and_neither_takes_more(
    cluster: Cluster, gate: Gate
) -> None:
    stopped = cluster.agent()
    job_id = submit(cluster, gate.script)
    job = Watched([gate.wait()])
    stopped.signal(signal.SIGTERM)
    stopped.line("draining")
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 0
    assert job.gone_within(0)
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


def test_a_job_that_outlives_the_drain_timeout_is_given_back_with_its_output(cluster: Cluster, gate: Gate) -> None:
    agent = cluster.agent("--drain-timeout", "0.1", more={"AIRUNNER_AGENT_NAME": "pod-7"})
    job_id = submit(cluster, gate.script)
    job = Watched([gate.wait()])
    agent.signal(signal.SIGTERM)
    agent.line("draining")
    assert agent.wait() == 0
    assert job.gone_within(0)
    cluster.agent()
    gate.wait()
    gate.open(2)
    log = list(events(cluster, job_id))
    assert [event["kind"] for event in log].index("JOB_RELEASED") > 0, "it costs no visibility timeout"
    assert [event["attempt"] for event in log if str(event.get("data")).startswith("early")] == [1, 2]
    assert next(event["agent"] for event in log if event["kind"] == "JOB_LEASED") == "pod-7"


def test_a_stale_agents_job_is_dead_before_another_has_it_and_the_others_result_stands(
    cluster: Cluster, gate: Gate
) -> None:
    stale = cluster.agent("--name", "stale", "--visibility-timeout", "5")
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
        ("LOG_SIGNED", 2),
        ("JOB_FINISHED", 2),
    ]
    assert log[-1]["state"] == "COMPLETED"


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
    assert (refused.returncode, r"owner: ada\u200b contains" in refused.stderr.decode()) == (64, True)


def test_when_agent_launcher_and_keepers_are_killed_at_once_the_next_attempt_begins_when_nothing_is_left(
    cluster: Cluster, gate: Gate
) -> None:
    agent = cluster.agent()
    job_id = submit(cluster, gate.script)
    first = Watched([gate.wait()])
    (launcher,) = children_of(agent.pid)
    processes = [agent.pid, launcher, *children_of(launcher)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in processes:
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


def agent_with(cluster: Cluster, soft: int, hard: int, slots: int) -> Process:
    words = ["agent", "--broker", cluster.broker.requests, "--spawn", str(slots)]
    cluster.agents.append(with_descriptors(cluster.home, soft, hard, words))
    return cluster.agents[-1]


@needs_prlimit
def test_an_agent_opens_what_its_slots_need_and_its_jobs_keep_the_bound_that_a_shell_gives(cluster: Cluster) -> None:
    agent = agent_with(cluster, SOFT, 4_096, slots=24)
    assert " 24 slots," in agent.line("airunner agent ready")
    done = cluster.airunner("submit", "--", "sh", "-c", "ulimit -Sn")
    assert done.stdout == f"{SOFT}\n".encode(), "a program that uses select() counts on it"


@needs_prlimit
def test_no_more_slots_are_taken_than_descriptors_carry_and_that_is_said(cluster: Cluster) -> None:
    hard = AGENT_DESCRIPTORS + 3 * SLOT_DESCRIPTORS
    agent = agent_with(cluster, hard, hard, slots=9)
    said = agent.line("--spawn 9")
    assert "only 3 jobs run at once" in said
    assert "LimitNOFILE=" in said
    assert " 3 slots," in agent.line("airunner agent ready")
