"""A job that tells a test that it has begun, and that the test lets go on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.running import Cluster, start


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


def submitted(cluster: Cluster, *words: str) -> str:
    """The id of a job that nobody monitors."""
    done = cluster.airunner("submit", "--no-monitor", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def submit(cluster: Cluster, script: str) -> str:
    return submitted(cluster, "--", "sh", "-c", script)


def events(cluster: Cluster, job_id: str) -> Iterator[dict[str, object]]:
    """Its whole log, once it has ended."""
    done = cluster.airunner("monitor", "--json", job_id, timeout_s=40)
    for line in done.stdout.splitlines():
        yield json.loads(line)


def stored(cluster: Cluster, job_id: str, kind: str) -> None:
    """Wait until the broker has such an event of the job; what a process has done its agent may still have to tell."""
    with start(cluster.environ, "monitor", "--json", job_id, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        assert any(json.loads(line)["kind"] == kind for line in monitor.stdout), f"it ended without {kind}"
        monitor.kill()


def kinds(cluster: Cluster, job_id: str) -> list[object]:
    return [event["kind"] for event in events(cluster, job_id)]


def gone(pid: int) -> None:
    """Wait until a process that is not ours has ended."""
    subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], check=True, timeout=20)
