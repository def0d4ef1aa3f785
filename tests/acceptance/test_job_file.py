"""A job file as users of other runners have it, unchanged: YAML and JSON, from a folder and from a URL."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.acceptance.running import Cluster
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.checkout.serving import over_http

BASH = "/usr/bin/bash"
JOB_FILE = """\
command: /usr/bin/bash
args: ["-c", "echo hello; sleep 1; echo done"]
processType: pty
timeout: 0
workingDirectory: ""
environment: {STAGE: dev}
metadata: {}
repository: https://example.org/project.git
commit: main
branch: ""
owner: somebody
"""

pytestmark = pytest.mark.timeout(60)  # starting a cluster takes seconds


@pytest.mark.skipif(not os.access(BASH, os.X_OK), reason=f"there is no {BASH} here, which the job file names")
def test_a_job_file_of_another_runner_runs_unchanged(cluster: Cluster, tmp_path: Path) -> None:
    project = new_repository(tmp_path / "web" / "project.git")
    tip = commit(project, "two")
    git(project, "update-server-info")
    cluster.agent(spawn=4)
    with over_http(tmp_path / "web") as server:
        jobs: list[str] = []
        for repository in (str(project), f"http://{server.authority}/project.git/.git"):
            text = JOB_FILE.replace("https://example.org/project.git", repository)
            (tmp_path / "job.yaml").write_text(text)
            (tmp_path / "job.json").write_text(json.dumps(yaml.safe_load(text)))
            for name in ("job.yaml", "job.json"):
                done = cluster.airunner("submit", "--no-monitor", "--config", str(tmp_path / name))
                assert done.returncode == 0, done.stderr
                jobs.append(done.stdout.decode().strip())
        for job in jobs:
            done = cluster.airunner("monitor", "--json", job)
            events = [json.loads(line) for line in done.stdout.splitlines()]
            assert done.returncode == 0, events
            assert "".join(event.get("data", "") for event in events) == "hello\r\ndone\r\n"
            checked_out = [event["commit"] for event in events if event["kind"] == "GIT_CLONE_END"]
            assert checked_out == [tip], "what main was resolved to"
            spec = json.loads(cluster.airunner("show", "--json", job).stdout)["spec"]
            assert (spec["environment"], spec["owner"], spec.get("timeout_seconds")) == (
                {"STAGE": "dev"},
                "somebody",
                None,
            )
