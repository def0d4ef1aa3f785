"""What `airunner explain` says is true: doing it starts the job."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.acceptance.running import Cluster, Gate, stored, submit, submitted


def explained(cluster: Cluster, job: str) -> Any:
    done = cluster.airunner("explain", "--json", job)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def obey(cluster: Cluster, job: str, cause: str) -> None:
    """Do what the first command says, for as long as it is the cause."""
    why = explained(cluster, job)
    assert (why["cause"], why["state"]) == (cause, "SCHEDULED")
    _, verb, *words = shlex.split(why["commands"][0])
    if verb == "agent":
        cluster.agent(*words)
    else:
        assert cluster.airunner(verb, *words).returncode == 0


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
    assert f"job {job} RUNNING: " in doing
    assert doing.splitlines()[0].endswith(": early")
    next_job = submitted(cluster, "--queue", "gpu", "--", "true")
    busy = explained(cluster, next_job)
    assert (busy["cause"], busy["ahead"]) == ("slots-busy", 0)
    cluster.airunner("cancel", job)
    other.stop()
    lacking = submitted(cluster, "--queue", "gpu", "--require", "arch=x86", "--", "true")
    obey(cluster, lacking, "tags-missing")
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
    assert [cluster.airunner(*words).returncode for _, *words in following] == [127, 0]
    assert cluster.airunner("explain", "nothing-like-it").returncode == 66
