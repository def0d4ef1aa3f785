"""Reading of a job's output with `airunner logs`."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack

from airunner.protocol.errors import EXIT_USAGE, EXIT_WRONG_STATE
from tests.acceptance.running import Cluster, Gate, start, submit, submitted
from tests.acceptance.test_views import on_a_terminal

SCRIPT = "for n in 1 2 3; do echo out $n; echo err $n >&2; done; exit 7"


def test_logs_are_read_as_docker_and_kubectl_read_them(standing: Cluster) -> None:
    job = submit(standing, SCRIPT)
    followed = standing.airunner("logs", "-f", job)
    assert (followed.returncode, followed.stdout, followed.stderr) == (
        0,
        b"out 1\nout 2\nout 3\n",
        b"err 1\nerr 2\nerr 3\n",
    )
    again = standing.airunner("logs", job[:8])
    assert (again.returncode, again.stdout, again.stderr) == (0, followed.stdout, followed.stderr)
    stamp = rb"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z out (\d)$"
    assert re.findall(stamp, standing.airunner("logs", "-t", "--stdout", job).stdout) == [b"1", b"2", b"3"]
    assert re.findall(stamp, standing.airunner("logs", "-tn", "1", "--stdout", job).stdout) == [b"3"]
    found = standing.airunner("logs", "-i", "--grep", "^OUT 3", "-C1", "--stdout", "--since", "1h", "--json", job)
    assert [json.loads(line)["line"] for line in found.stdout.splitlines()] == ["out 2", "out 3"]
    assert standing.airunner("logs", "--until", "1h", job).stdout == b""
    none = standing.airunner("logs", "--attempt", "2", job)
    assert (none.returncode, none.stderr) == (EXIT_USAGE, b"airunner: --attempt 2: the job has had 1 attempt\n")
    assert standing.airunner("logs", "no-such-job").returncode == 66


def test_logs_of_a_running_job_end_with_what_it_has_written_and_follow_it_if_asked(
    standing: Cluster, gate: Gate
) -> None:
    job = submit(standing, f"echo old; {gate.script}")
    gate.wait()
    words = ("logs", "-f", job), ("logs", "-f", "--tail", "1", job)
    with ExitStack() as stack:
        every, last = (stack.enter_context(start(standing.environ, *each, stdout=subprocess.PIPE)) for each in words)
        assert every.stdout is not None is not last.stdout
        assert (every.stdout.readline(), every.stdout.readline()) == (b"old\n", b"early\n")
        assert standing.airunner("logs", "-n", "1", job).stdout == b"early\n"
        assert b"the job is RUNNING; to follow its output: airunner logs -f" in on_a_terminal(standing, "logs", job)
        assert last.stdout.readline() in (b"old\n", b"early\n"), "whichever was the last when it began"
        gate.open(1)
        for following in (every, last):
            assert following.stdout is not None
            assert following.stdout.read().endswith(b"between\nlate\n")
            assert following.wait() == 0


def test_several_jobs_are_followed_together_and_fail_with_the_first_that_failed(standing: Cluster) -> None:
    jobs: list[str] = []
    for name, code in (("fast", 0), ("slow", 6), ("slower", 5)):
        jobs.append(submitted(standing, "--name", name, "--", "sh", "-c", f"echo {name}; exit {code}"))
        assert standing.airunner("wait", jobs[-1]).returncode == code
    for words in (("monitor", "--events", "output"), ("monitor", "-q"), ("logs",), ("logs", "-f")):
        done = standing.airunner(*words, *reversed(jobs), jobs[0])
        assert sorted(done.stdout.splitlines()) == [b"fast   | fast", b"slow   | slow", b"slower | slower"]
        assert (done.returncode, done.stderr) == (6 if words[0] == "monitor" else 0, b"")
    lifecycle = standing.airunner("monitor", "--events", "lifecycle", *jobs[:1], timeout_s=60)
    assert re.fullmatch(rb"(?s)waiting .*\nleased .*\nstarted, .*\ncommand ended .*\nCOMPLETED, .*\n", lifecycle.stdout)
    assert standing.airunner("monitor", jobs[0], "no-such-job").returncode == 66


def test_a_finished_job_is_played_back_and_a_waiting_one_is_not(standing: Cluster) -> None:
    job = submit(standing, SCRIPT)
    assert standing.airunner("wait", job).returncode == 7
    played = standing.airunner("monitor", "--playback", "--speed", "1000", "--idle-max", "1s", "-q", job)
    assert (played.returncode, played.stdout.count(b"out"), played.stderr.count(b"err")) == (7, 3, 3)
    waiting = submitted(standing, "--not-before", "+1d", "--", "true")
    refused = standing.airunner("monitor", "--playback", waiting)
    assert (refused.returncode, b"--playback plays finished jobs" in refused.stderr) == (EXIT_WRONG_STATE, True)
