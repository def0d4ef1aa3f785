"""`airunner continue`: a job begins in the workspace that another saved, on another agent, whatever ended the first."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.running import Cluster, start, submitted
from tests.agent.checkout.repositories import new_repository

SAVING = """
import os, pathlib, sys, time
os.remove("file")
os.makedirs("out/empty")
os.makedirs(os.environ["HOME"] + "/.state")
pathlib.Path(os.environ["HOME"], ".state/here").write_text("home")
pathlib.Path("out/run").write_text("#!/bin/sh\\necho ran")
os.chmod("out/run", 0o750)
os.utime("out/run", ns=(5, 1_234_567_890_123_456_789))
os.symlink("/nowhere", "out/link")
pathlib.Path("out/large").write_bytes(bytes(3_000_000))
pathlib.Path("out/step").write_text("first")
print("ready", flush=True)
while True:
    time.sleep(60)
"""
LOOK = (
    "cat out/step ~/.state/here; out/run; readlink out/link; stat -c '%a %.Y' out/run; ls out; git status --short;"
    "test -e file || echo gone; echo $NAME; echo second > out/step"
)
SEEN = b"""firsthomeran
/nowhere
750 1234567890.123456789
empty
large
link
run
step
 D file
?? out/
gone
mine
"""


def saved_twice(cluster: Cluster, job_id: str) -> None:
    """Wait until the workspace was saved twice after the job is ready: the second save began after that."""
    with start(cluster.environ, "monitor", "--json", job_id, stdout=subprocess.PIPE) as monitor:
        assert monitor.stdout is not None
        kinds = (json.loads(line)["kind"] for line in monitor.stdout)
        for kind in ("OUTPUT", "KEPT", "KEPT"):
            assert kind in kinds, f"it ended without {kind}"
        monitor.kill()


def refused(cluster: Cluster, *words: str) -> str:
    """The line that says why a job cannot be continued."""
    done = cluster.airunner("continue", *words, "--", "true")
    assert (done.returncode, done.stderr.count(b"\n")) == (65, 1), done.stderr
    return done.stderr.decode()


def test_the_last_save_is_there_on_another_agent_though_the_first_was_killed(cluster: Cluster, tmp_path: Path) -> None:
    repository = str(new_repository(tmp_path / "repository"))
    first = cluster.agent()
    cluster.agent("--queue", "other")
    keep = ("--keep", ".", "--keep", "~/.state", "--keep-every", "1", "--env", "NAME=mine", "--max-attempts", "1")
    job = submitted(cluster, *keep, repository, "--", sys.executable, "-c", SAVING)
    saved_twice(cluster, job)
    assert "is RUNNING" in refused(cluster, job)
    first.kill()
    cluster.agent("--queue", "lost")  # finds what the first one has left, and gives it back
    assert cluster.airunner("wait", job).returncode == 125
    shown = cluster.airunner("show", job).stdout.decode()
    assert re.search(rf"saved: +\d+ files, 2.9 MiB, at 20\S+Z: airunner continue {job} -- COMMAND\n", shown), shown
    done = cluster.airunner("continue", "--quiet", "--queue", "other", job, "--", "sh", "-c", LOOK)
    assert (done.returncode, done.stdout) == (0, SEEN), done.stderr
    done = cluster.airunner("continue", "--quiet", "@last", "--", "cat", "out/step")
    assert done.stdout == b"second\n", done.stderr
    again = cluster.airunner("retry", "@last", "--quiet")
    assert again.stdout == b"second\n", again.stderr
    file = str(tmp_path / "record")
    assert cluster.airunner("export", "@last", "--format", "job", "-o", file).returncode == 0
    for record in ("@last", file):
        here = cluster.airunner("run", "--quiet", "--job", record, "--", "sh", "-c", "cat out/step; ls -A ~/.state")
        assert (here.returncode, here.stdout) == (0, b"second\nhere\n"), here.stderr
    assert "submit with --keep PATH" in refused(cluster, submitted(cluster, "--queue", "other", "--", "true"))
    never = submitted(cluster, "--queue", "nobody", "--keep", ".", "--", "true")
    cluster.airunner("cancel", never)
    assert "has saved no workspace: it did not get so far, or `airunner logs" in refused(cluster, never)
