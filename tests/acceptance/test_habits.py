"""What people type elsewhere works here: the words of docker, kubectl, gh and pueue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, submitted

# A command line, in which JOB is the id of a job that has ended, and a word that it prints.
HABITS = {
    "docker logs": ("logs --tail 20 --since 5m -t JOB", "hello"),
    "kubectl logs -f": ("logs -f JOB", "hello"),
    "docker ps -q": ("ps -q", "JOB"),
    "gh run list -n": ("ls -n 5 --status completed", "COMPLETED"),
    "kubectl get -l": ("list -l tool=docker", "habit"),
    "gh run watch": ("monitor JOB", "hello"),
    "docker wait": ("wait JOB", "COMPLETED 0"),
    "docker run -d": ("submit -d -i -t -e HOME -e A=b -w . --name later -l tool=run -- true", "-"),
    "docker run -it": ("run -i -t -e HOME -e A=b --name now -l tool=run -- echo hello", "hello"),
    "kubectl describe": ("show habit", "COMPLETED"),
    "kubectl delete -l": ("cancel -l tool=none", ""),
    "pueue clean": ("cancel --queue none --state scheduled", ""),
    "gh completion": ("completion bash", "complete -o nosort"),
    "gh help": ("help submit", "Usage: airunner submit"),
    "gh help formatting": ("help formatting", "--json"),
    "docker --version": ("-V", "airunner "),
}


def test_the_habits_of_other_programs_work(standing: Cluster) -> None:
    job = submitted(standing, "--name", "habit", "-l", "tool=docker", "--", "echo", "hello")
    assert standing.airunner("wait", job).returncode == 0
    for habit, (line, word) in HABITS.items():
        done = standing.airunner(*line.replace("JOB", job).split())
        assert done.returncode == 0, (habit, done.stderr)
        assert word.replace("JOB", job) in (done.stdout + done.stderr).decode(), habit


PIPES = {  # command lines of a shell, and what they print
    "airunner list --label tool=docker -q | head -n 1": "JOB",
    "airunner logs JOB | head -n 1": "hello",
    "airunner logs JOB | less -R": "hello",
    "airunner config set clusters.p.broker tcp://b:1; airunner config use p; "
    "env -u AIRUNNER_BROKER airunner config show | grep -o tcp://b:1": "tcp://b:1",
    "airunner submit -- echo hi > log 2>&1; grep -c -e ^hi -e COMPLETED log": "2",
}


def test_pipes_redirections_and_contexts_are_right(standing: Cluster, tmp_path: Path) -> None:
    job = submitted(standing, "-l", "tool=docker", "--", "echo", "hello")
    assert standing.airunner("wait", job).returncode == 0
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "AIRUNNER_CONFIG_FILE": str(tmp_path / "c")}
    for line, printed in PIPES.items():
        words = ["bash", "-o", "pipefail", "-c", line.replace("JOB", job)]
        done = subprocess.run(words, env={**standing.environ, **own}, cwd=tmp_path, capture_output=True, check=False)
        assert done.stdout.decode().strip() == printed.replace("JOB", job), (line, done.stderr)


@pytest.mark.parametrize(
    ("word", "command"),
    [("status", "show"), ("inspect", "show"), ("stop", "cancel"), ("lgos", "logs"), ("sumbit", "submit")],
)
def test_an_unknown_command_is_answered_with_the_nearest_right_one(word: str, command: str, standing: Cluster) -> None:
    done = standing.airunner(word)
    assert (done.returncode, f"airunner {command}".encode() in done.stderr) == (64, True), done.stderr
