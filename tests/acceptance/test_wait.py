"""`airunner wait` ends with the jobs that it waits for, and with their exit code."""

from __future__ import annotations

import json
import subprocess

from tests.acceptance.running import Cluster, Gate, start, submit, submitted


def test_wait_ends_with_its_jobs_and_with_the_code_of_the_first_that_failed(cluster: Cluster, gate: Gate) -> None:
    cluster.agent(spawn=2)
    slow = submit(cluster, f"{gate.script}; exit 7")
    gate.wait()
    quick = submit(cluster, "true")
    never = submitted(cluster, "--queue", "nowhere", "--", "true")
    done = cluster.airunner("wait", slow, never, "--timeout", "20ms")
    assert (done.returncode, done.stdout) == (124, b"")
    assert done.stderr.decode() == f"airunner: gave up after 20ms; {slow} is RUNNING, {never} is SCHEDULED\n"
    one = cluster.airunner("wait", "--any", slow, quick)
    assert (one.returncode, one.stdout.decode()) == (0, f"{quick} COMPLETED 0\n")
    look = cluster.airunner("wait", "--timeout", "0", quick)
    assert (look.returncode, look.stdout.decode()) == (0, f"{quick} COMPLETED 0\n")
    with start(cluster.environ, "wait", "--json", slow, quick, quick, never, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        ended = [json.loads(waiting.stdout.readline())]
        gate.open(1)
        ended.append(json.loads(waiting.stdout.readline()))
        cluster.airunner("cancel", never)
        ended.append(json.loads(waiting.stdout.readline()))
        assert waiting.wait(20) == 7
    assert [(end["job_id"], end["state"], end["exit_code"]) for end in ended[:2]] == [
        (quick, "COMPLETED", 0),
        (slow, "FAILED", 7),
    ]
    assert (ended[2]["job_id"], ended[2]["state"]) == (never, "CANCELLED")
    assert cluster.airunner("wait", quick, "nothing-like-it").returncode == 66
