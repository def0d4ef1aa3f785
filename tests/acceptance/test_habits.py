"""What people type elsewhere works here: the words of docker, kubectl, gh and pueue."""

from __future__ import annotations

import pytest

from tests.acceptance.running import Cluster, submitted

# A command line, in which JOB is the id of a job that has ended, and a word that it prints.
HABITS = {
    "docker logs": ("logs --tail 20 --since 5m -t JOB", "hello"),
    "kubectl logs -f": ("logs -f JOB", "hello"),
    "docker ps -q": ("ps -q", "JOB"),
    "gh run list -n": ("ls -n 5 --status completed", "COMPLETED"),
    "kubectl get -l": ("list -l tool=docker", "habit"),
    "docker wait": ("wait JOB", "COMPLETED 0"),
    "docker run -d": ("submit -d -i -t -e HOME -e A=b -w . --name later -l tool=run -- true", "-"),
    "kubectl describe": ("show habit", "COMPLETED"),
    "kubectl delete -l": ("cancel -l tool=none", ""),
    "gh help": ("help submit", "Usage: airunner submit"),
    "docker --version": ("-V", "airunner "),
}


def test_the_habits_of_other_programs_work(standing: Cluster) -> None:
    job = submitted(standing, "--name", "habit", "-l", "tool=docker", "--", "echo", "hello")
    assert standing.airunner("wait", job).returncode == 0
    for habit, (line, word) in HABITS.items():
        done = standing.airunner(*line.replace("JOB", job).split())
        assert done.returncode == 0, (habit, done.stderr)
        assert word.replace("JOB", job) in (done.stdout + done.stderr).decode(), habit


@pytest.mark.parametrize(
    ("word", "command"),
    [("status", "show"), ("inspect", "show"), ("stop", "cancel"), ("lgos", "logs"), ("sumbit", "submit")],
)
def test_an_unknown_command_is_answered_with_the_nearest_right_one(word: str, command: str, standing: Cluster) -> None:
    done = standing.airunner(word)
    assert (done.returncode, f"airunner {command}".encode() in done.stderr) == (64, True), done.stderr
