"""What `airunner explain` says is true: doing it starts the job. Ten causes are staged with real brokers and agents."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.running import Cluster, Gate, running_broker, start, stored, submit, submitted


def explained(cluster: Cluster, job: str) -> Any:
    done = cluster.airunner("explain", "--json", job)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def obey(cluster: Cluster, job: str, cause: str) -> Any:
    """Do what the first command says, for as long as it is the cause."""
    why = explained(cluster, job)
    assert (why["cause"], why["state"]) == (cause, "SCHEDULED")
    _, verb, *words = shlex.split(why["commands"][0])
    if verb == "agent":
        cluster.agent(*words)
    else:
        assert cluster.airunner(verb, *words).returncode == 0
    return why


def test_doing_what_explain_says_starts_the_job(cluster: Cluster, gate: Gate) -> None:
    job = submitted(
        cluster, "--queue", "gpu", "--require", "os=linux", "--require", "arch=arm", "--", "sh", "-c", gate.script
    )
    cluster.airunner("pause", "gpu")
    obey(cluster, job, "queue-paused")
    other = cluster.agent("--queue", "other")
    obey(cluster, job, "no-agent")
    gate.wait()
    stored(cluster, job, "OUTPUT")
    doing = cluster.airunner("explain", job).stdout.decode()
    assert f"job {job} RUNNING: running " in doing
    assert doing.splitlines()[0].endswith(": early")
    next_job = submitted(cluster, "--queue", "gpu", "--", "true")
    assert explained(cluster, next_job)["ahead"] == 0
    cluster.airunner("cancel", job)
    other.stop()
    lacking = submitted(cluster, "--queue", "gpu", "--require", "os=linux", "--require", "arch=x86", "--", "true")
    assert obey(cluster, lacking, "tags-missing")["text"].endswith("; the nearest, vm-2, lacks arch=x86")
    for ended in (next_job, lacking):
        stored(cluster, ended, "JOB_FINISHED")
    failed = submit(cluster, "exit 127")
    cluster.agent()
    stored(cluster, failed, "JOB_FINISHED")
    assert "a program was not found" in explained(cluster, failed)["text"]
    shown = cluster.airunner("show", failed).stdout.decode()
    assert f"why:          {explained(cluster, failed)['text']}\n" in shown
    assert "\nran:          " in shown
    following = [line.split()[1:] for line in shown.splitlines() if line.startswith("next:")]
    assert [cluster.airunner(*words).returncode for _, *words in following] == [127, 127], (
        "its log, as it has no output"
    )
    assert cluster.airunner("explain", "nothing-like-it").returncode == 66


def test_where_all_slots_are_busy_another_agent_starts_the_job(cluster: Cluster, gate: Gate) -> None:
    cluster.agent()
    for _ in range(3):
        assert cluster.airunner("submit", "--", "true").returncode == 0
    held = submit(cluster, gate.script)
    gate.wait()
    submitted(cluster, "--name", "never", "--require", "os=plan9", "--", "true")
    submitted(cluster, "--name", "lint", "--", "true")
    job = submit(cluster, "true")
    why = obey(cluster, job, "slots-busy")
    busy = "the only slot of vm-1 is busy with jobs of queue default (1), the longest for "
    assert why["text"].startswith(f"1 job is ahead (lint); {busy}")
    assert "the queue's last 3 jobs took " in why["text"]
    assert "since_ms" in why
    stored(cluster, job, "JOB_FINISHED")
    assert explained(cluster, job)["text"] == "its command ended with exit code 0"
    cluster.airunner("cancel", held)


def test_a_job_that_is_not_due_begins_by_itself(standing: Cluster) -> None:
    later = submitted(standing, "--not-before", "+4s", "--", "true")
    assert obey(standing, later, "not-due")["until_ms"] > 0
    words = ("--retry", "1", "--retry-backoff", "4s", "--", "sh", "-c", "exit $((AIRUNNER_ATTEMPT < 2))")
    job = submitted(standing, *words)
    with start(standing.environ, "monitor", "--json", job, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        assert any(json.loads(line).get("retry") for line in monitor.stdout)
        monitor.terminate()
    assert obey(standing, job, "retry-pause")["until_ms"] > 0
    attempts = [line for line in standing.airunner("show", job).stdout.decode().splitlines() if "attempt:" in line]
    assert [line.rpartition(": ")[2] for line in attempts] == ["exit code 1, tried again", "COMPLETED, exit code 0"]


def test_a_quota_refuses_a_job_and_says_what_makes_room(home: Path) -> None:
    with running_broker(home, "memory:", "--tenant-waiting", "1") as broker:
        full = Cluster(broker)
        submitted(full, "--", "true")
        refused = full.airunner("submit", "--", "true")
        assert (refused.returncode, b"its limit is 1" in refused.stderr) == (69, True)
        (command,) = [word for word in refused.stderr.decode().split("`") if word.startswith("airunner ")]
        assert full.airunner(*shlex.split(command)[1:]).returncode == 0
        submitted(full, "--", "true")
