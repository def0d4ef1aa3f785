"""`--after`: jobs that wait for others are submitted by name, explained, run in their order, or skipped."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.running import Cluster, stored, submitted


def test_a_job_runs_after_others_or_is_skipped_and_explain_says_why(cluster: Cluster, tmp_path: Path) -> None:
    go = tmp_path / "go"
    cluster.agent(spawn=2)
    build = submitted(
        cluster, "--name", "build", "--", "sh", "-c", f"until test -e {go}; do sleep 0.05; done; echo built"
    )
    lint = submitted(cluster, "--", "sh", "-c", f"until test -e {go}; do sleep 0.05; done; exit 3")
    test = submitted(cluster, "--after", "build", "--", "echo", "tested")
    mend = submitted(cluster, "--after", f"{lint[:8]}:failure", "--after", f"{build}:any", "--", "echo", "mended")
    deploy = submitted(cluster, "--name", "deploy", "--after", test, "--after", lint, "--", "echo", "deployed")
    report = submitted(cluster, "--after", "deploy:any", "--", "echo", "reported")
    for running in (build, lint):
        stored(cluster, running, "PROCESS_START")
    assert cluster.airunner("explain", mend).stdout.decode().splitlines() == [
        f"job {mend} BLOCKED: waits for the end of 2 jobs: {lint}:failure (RUNNING), {build}:any (RUNNING)",
        f"    airunner explain {lint}",
    ]
    assert "BLOCKED" in cluster.airunner("show", deploy).stdout.decode()
    go.touch()
    ended = {job: cluster.airunner("wait", job).returncode for job in (test, mend, deploy, report)}
    assert ended == {test: 0, mend: 0, deploy: 125, report: 0}
    assert f"SKIPPED: job {lint} had to succeed, and is FAILED" in cluster.airunner("explain", deploy).stdout.decode()
    assert cluster.airunner("logs", test).stdout == b"tested\n"
    refused = cluster.airunner("submit", "--after", "nothing:any", "--", "true")
    assert (refused.returncode, b"there is no job nothing" in refused.stderr) == (66, True), refused.stderr
    refused = cluster.airunner("submit", "--after", f"{build}:never", "--", "true")
    assert refused.returncode == 66, "what is no end is a part of the name"
    refused = cluster.airunner("submit", "--after", "build", "--after", build, "--", "true")
    assert (refused.returncode, b"two of these are the same job" in refused.stderr) == (64, True)
    refused = cluster.airunner("run", "--after", "build", "--", "true")
    assert (refused.returncode, b"--after is for `airunner submit`" in refused.stderr) == (64, True)
