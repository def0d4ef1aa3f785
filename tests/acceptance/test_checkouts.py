"""A second job's checkout transfers nothing that the first had, and what means harm is refused, on real processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from tests.acceptance.running import Cluster, Process
from tests.agent.checkout.repositories import git, new_repository

pytestmark = pytest.mark.timeout(120)

HISTORY_BYTES = 10_000_000
VERSIONS = 10
TALK_BYTES_MAX = 16_384  # what a server says where there is nothing to transfer
PASSWORD = "hunter2"


class Served(ThreadingTCPServer):
    """Serves the repositories of a folder by git's own daemon, and counts what it sends."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.folder = folder
        self.sent_bytes = 0

    @property
    def url(self) -> str:
        return f"git://127.0.0.1:{self.server_address[1]}"


class Connection(BaseRequestHandler):
    """One daemon for one connection."""

    server: Served

    def handle(self) -> None:
        options = ("--inetd", "--export-all", f"--base-path={self.server.folder}", str(self.server.folder))
        with subprocess.Popen(("git", "daemon", *options), stdin=self.request, stdout=subprocess.PIPE) as daemon:
            assert daemon.stdout is not None
            while chunk := daemon.stdout.read1():
                self.server.sent_bytes += len(chunk)
                self.request.sendall(chunk)


@contextmanager
def serving(folder: Path) -> Generator[Served]:
    with Served(folder) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def add_version(repository: Path, content: bytes) -> None:
    (repository / "file").write_bytes(content)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "version")


def run(cluster: Cluster, home: Path, **which: str) -> list[dict[str, object]]:
    """The log of a job that does nothing but check out; it comes from a file, which no flag's parser has seen."""
    file = home / "job.json"
    file.write_text(json.dumps({"command": "true", **which}))
    done = cluster.airunner("submit", "--json", "--config", str(file), timeout_s=60)
    assert PASSWORD.encode() not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[1:]]


def checkout_ms(log: list[dict[str, object]]) -> int:
    """How long it took, by the agent's own clock."""
    assert log[-1]["state"] == "COMPLETED", log
    (ended,) = [event for event in log if event["kind"] == "GIT_CLONE_END"]
    duration_ms = ended["duration_ms"]
    assert isinstance(duration_ms, int)
    return duration_ms


def test_a_second_job_transfers_nothing_that_the_first_had(cluster: Cluster, tmp_path: Path) -> None:
    chance = random.Random(1)
    repository = new_repository(tmp_path / "served" / "p")
    for _ in range(VERSIONS):
        add_version(repository, chance.randbytes(HISTORY_BYTES // VERSIONS))
    agent = cluster.agent()
    with serving(tmp_path / "served") as server:
        url = f"{server.url}/p/.git"
        first_ms = checkout_ms(run(cluster, tmp_path, repository=url))
        first_bytes, server.sent_bytes = server.sent_bytes, 0
        assert HISTORY_BYTES < first_bytes < 1.05 * HISTORY_BYTES  # once, not for the mirror and for the job

        second_ms = checkout_ms(run(cluster, tmp_path, repository=url))
        second_bytes, server.sent_bytes = server.sent_bytes, 0
        assert second_bytes < TALK_BYTES_MAX
        sys.stdout.write(f"the second checkout took {second_ms / first_ms:.1%} of the first's {first_ms} ms\n")

        add_version(repository, chance.randbytes(100_000))
        assert agent.stop() == 0
        cluster.agent()  # what is kept is on disk
        checkout_ms(run(cluster, tmp_path, repository=url))
        assert 100_000 < server.sent_bytes < 100_000 + TALK_BYTES_MAX


def test_what_means_harm_or_has_no_leave_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    repository = new_repository(tmp_path / "repository")
    agent = Process(cluster.home, ["agent", "--broker", cluster.broker.requests])
    cluster.agents.append(agent)
    agent.line("airunner agent ready")
    for which in (
        {"repository": f"--upload-pack=touch {canary}"},
        {"repository": f"ssh://-oProxyCommand=touch%20{canary}/x"},
        {"repository": repository.as_uri()},
        {"repository": str(repository)},
        {"repository": "https://example.org/x", "branch": f"--upload-pack=touch {canary}"},
        {"repository": f"gopher://user:{PASSWORD}@example.org/x"},
    ):
        log = run(cluster, tmp_path, **which)
        assert (log[-1]["state"], log[-1]["reason"]) == ("FAILED", "checkout-failed"), which
        told = [event["kind"] for event in log if str(event["kind"]).startswith("GIT")]
        assert told == ["GIT_CLONE_START", "GIT_CLONE_ERROR"], which
    for never in (f"ext::sh -c touch% {canary}", f"ssh://-oProxyCommand=touch {canary}/x"):
        assert run(cluster, tmp_path, repository=never) == [], "refused before anything is stored"
    assert not canary.exists()
