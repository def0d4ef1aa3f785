"""Taking a hand in what runs, and where, from the command line."""

from __future__ import annotations

import json
import os
from subprocess import PIPE

from airunner.client.cli.bulk import CONFIRMED_MIN
from airunner.protocol.errors import EXIT_USAGE
from tests.acceptance.running import Cluster, Gate, events, start, submit, submitted


def lines(cluster: Cluster, *arguments: str) -> list[str]:
    done = cluster.airunner(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def told(cluster: Cluster, *arguments: str, code: int = 0) -> str:
    done = cluster.airunner(*arguments)
    assert done.returncode == code, done.stderr
    return done.stderr.decode()


def test_jobs_are_cancelled_waiting_or_running_and_what_had_ended_is_said(cluster: Cluster, gate: Gate) -> None:
    waiting = submit(cluster, "true")
    assert f"job {waiting} is cancelled" in told(cluster, "cancel", waiting)
    cluster.agent("--cancel-grace", "0")
    running = submit(cluster, gate.script)
    gate.wait()
    cluster.agent()
    ended = submit_and_wait(cluster, "true")
    done = cluster.airunner("cancel", "--json", running, ended, "no-such-job")
    assert done.returncode == 66
    said = done.stderr.decode()
    assert f"job {running} is being cancelled" in said
    assert f"job {ended} had already ended: COMPLETED" in said
    assert "there is no job no-such-job" in said
    assert [json.loads(line)["job_id"] for line in done.stdout.splitlines()] == [running, ended]
    assert list(events(cluster, running))[-1]["state"] == "CANCELLED"


def submit_and_wait(cluster: Cluster, script: str) -> str:
    job_id = submit(cluster, script)
    assert list(events(cluster, job_id))[-1]["kind"] == "JOB_FINISHED"
    return job_id


def test_an_ended_job_is_run_again_and_its_exit_code_is_ours(standing: Cluster) -> None:
    first = submit_and_wait(standing, "echo again; exit 7")
    done = standing.airunner("retry", first)
    assert (done.returncode, done.stdout) == (7, b"again\n")
    assert f"as a retry of {first}" in done.stderr.decode()
    (second,) = lines(standing, "retry", "--no-monitor", first)
    assert json.loads(standing.airunner("show", "--json", second).stdout)["origin"] == first
    assert "there is no job nothing" in told(standing, "retry", "nothing", code=66)


def test_jobs_are_cancelled_and_retried_by_what_they_have_in_common(cluster: Cluster) -> None:
    jobs = [
        submitted(cluster, "--queue", "a", "--metadata", f"odd={at % 2}", "--", "true") for at in range(CONFIRMED_MIN)
    ]
    other = submitted(cluster, "--queue", "b", "--name", "same", "--", "false")
    assert lines(cluster, "cancel", "--queue", "a", "--label", "odd=1", "--state", "running") == []
    assert lines(cluster, "cancel", "--queue", "a", "--label", "odd=1") == jobs[1::2]
    again = lines(cluster, "retry", "--queue", "a", "--state", "cancelled")
    assert lines(cluster, "retry", "--queue", "a", "--state", "cancelled") == again, "each of them only once"
    assert [json.loads(cluster.airunner("show", "--json", job).stdout)["origin"] for job in again] == jobs[1::2]
    for answer, code in ((b"\n", 130), (b"y\n", 0)):
        ours, theirs = os.openpty()
        with start(cluster.environ, "cancel", "--queue", "a", stdin=theirs, stderr=theirs, stdout=PIPE) as asking:
            os.close(theirs)
            os.write(ours, answer)
            assert asking.stdout is not None
            cancelled = asking.stdout.read().decode().split()
            assert asking.wait(20) == code
        os.close(ours)
    assert sorted(cancelled) == sorted([*jobs[::2], *again])
    cluster.agent("--queue", "b")
    assert cluster.airunner("wait", other).returncode == 1
    (failed,) = lines(cluster, "retry", "--name", "same")
    assert cluster.airunner("wait", failed).returncode == 1
    assert len({*lines(cluster, "retry", other, failed), other, failed}) == 4
    assert "not both" in told(cluster, "retry", "--queue", "b", other, code=EXIT_USAGE)
    assert "SCHEDULED or RUNNING" in told(cluster, "cancel", "--state", "failed", code=EXIT_USAGE)


def test_a_mistyped_queue_is_told(standing: Cluster) -> None:
    """One that has no job, but an agent, is none."""
    assert "there is no queue buidls to resume" in told(standing, "resume", "buidls", code=66)
    for command in ("pause", "drain"):
        assert "queue buidls is new: it has no jobs, and no agent serves it" in told(standing, command, "buidls", "-q")
        assert "is new" not in told(standing, command, "buidls")
        assert told(standing, "resume", "buidls") == "airunner: queue buidls is open\n"
    assert told(standing, "resume", "default") == "airunner: queue default is open\n"


def test_what_cannot_be_started_is_told_as_what_it_is(standing: Cluster) -> None:
    job = ("submit", "--", "/etc/passwd")
    for words, code, message, reason in (
        (job, 126, "/etc/passwd: not executable; run `chmod +x` on it", "not-executable"),
        (
            ("submit", "--working-directory", "src", *job[1:]),
            126,
            "the working directory src is not a folder of the",
            "no-working-directory",
        ),
        (("submit", "--", "nosuch"), 127, "nosuch: command not found", "command-not-found"),
    ):
        said = told(standing, *words, code=code).splitlines()
        assert [message in said[-2], said[-1].endswith(f"FAILED, exit code {code} ({reason})")] == [True, True], said


def test_queues_are_paused_drained_and_opened_and_shown(cluster: Cluster) -> None:
    assert "queue default is paused" in told(cluster, "pause", "default")
    urgent = ("--priority", "5", "--owner", "ada", "--metadata", "build=42", "--require", "os=linux")
    submitted(cluster, "--not-before", "+1d", "--", "true")
    job_id = submitted(cluster, *urgent, "--", "true")
    cluster.agent("--name", "one", "--tag", "os=linux", spawn=3)
    assert lines(cluster, "queues")[1].split()[:5] == ["default", "paused", "2", "1", "0"]
    agent = json.loads(lines(cluster, "agents", "--json")[0])
    assert (agent["name"], agent["slots"], agent["tags"]) == ("one", 3, {"os": "linux"})
    assert json.loads(lines(cluster, "queues", "--json")[0])["delayed"] == 1
    assert "queue default is draining" in told(cluster, "drain", "default")
    assert "is being drained" in told(cluster, "submit", "--", "true", code=65)
    assert list(events(cluster, job_id))[-1]["state"] == "COMPLETED"
    assert "queue default is open" in told(cluster, "resume", "default")
    assert cluster.airunner("submit", "--", "true").returncode == 0
    found = lines(cluster, "list", "--owner", "ada", "--metadata", "build=42")
    assert [line.split()[0] for line in found[1:]] == [job_id]
    assert "priority:     5" in lines(cluster, "show", job_id)
