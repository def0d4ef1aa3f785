"""The working tree as a job: `submit --tree` runs what is on the screen, and sends what the repository lacks of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, submitted
from tests.acceptance.screens import Screen, needs_tmux

SHOW = ("sh", "-c", "cat one two; git status --porcelain; git log --format=%s")
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A clone with uncommitted work."""
    subprocess.run(["git", "init", "--quiet", "--bare", "origin.git"], cwd=tmp_path, check=True)
    subprocess.run(["git", "clone", "--quiet", "origin.git", "work"], cwd=tmp_path, check=True, capture_output=True)
    folder = tmp_path / "work"
    (folder / "one").write_text("committed\n")
    subprocess.run(["git", "add", "one"], cwd=folder, check=True)
    subprocess.run(["git", *IDENTITY, "commit", "--quiet", "-m", "first"], cwd=folder, check=True)
    subprocess.run(["git", "push", "--quiet", "origin", "HEAD"], cwd=folder, check=True, capture_output=True)
    (folder / "one").write_text("changed\n")
    (folder / "two").write_text("new\n")
    return folder


def blobs(cluster: Cluster) -> set[str]:
    return {file.name for file in (cluster.home / "broker/blobs").glob("*/blobs/*/*")}


def test_a_job_gets_the_working_tree_and_nothing_is_sent_twice(standing: Cluster, work: Path) -> None:
    before = (work / ".git" / "index").stat().st_mtime_ns
    jobs = [submitted(standing, "--tree", str(work), "--", *SHOW)]
    stored = blobs(standing)
    jobs.append(submitted(standing, "--tree", str(work), "--", *SHOW))
    jobs.append(standing.airunner("retry", "--no-monitor", _ended(standing, jobs[0])).stdout.decode().strip())
    for job_id in jobs:
        done = standing.airunner("monitor", "--quiet", job_id)
        assert (done.returncode, done.stdout) == (0, b"changed\nnew\nUncommitted work\nfirst\n"), done.stderr
    assert blobs(standing) == stored
    assert (work / ".git" / "index").stat().st_mtime_ns == before


def test_a_tree_that_the_agent_has_seen_is_not_fetched_again(cluster: Cluster, work: Path) -> None:
    cluster.agent()
    job_id = _ended(cluster, submitted(cluster, "--tree", str(work), "--", *SHOW))
    for file in (cluster.home / "broker/blobs").glob("*/blobs/*/*"):
        file.write_bytes(b"broken")
    assert cluster.airunner("retry", "--quiet", job_id).stdout == b"changed\nnew\nUncommitted work\nfirst\n"


def _ended(cluster: Cluster, job_id: str) -> str:
    assert cluster.airunner("wait", job_id).returncode == 0
    return job_id


def test_a_tree_without_uncommitted_work_is_its_commit(standing: Cluster, work: Path) -> None:
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=work, check=True)
    (work / "two").unlink()
    stored = blobs(standing)
    job_id = submitted(standing, "--tree", str(work), "--", "git", "log", "--format=%s")
    assert standing.airunner("monitor", "--quiet", job_id).stdout == b"first\n"
    assert blobs(standing) == stored


def test_the_tree_of_this_folder_has_ignored_files_that_are_named(standing: Cluster, work: Path) -> None:
    (work / ".gitignore").write_text("kept\nleft\n")
    for name in ("kept", "left"):
        (work / name).write_text(name)
    words = ("submit", "--quiet", "--tree", "--include-ignored", "kept", "--", "sh", "-c", "cat kept; test ! -e left")
    done = standing.airunner(*words, cwd=work)
    assert (done.returncode, done.stdout) == (0, b"kept"), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tree", "https://example.org/x.git"), "--tree needs a folder"),
        (("--tree", "--commit", "1234567", "."), "leave out --commit"),
        (("--tree", os.sep), "not a git repository"),
    ],
)
def test_what_is_no_working_tree_is_refused(
    standing: Cluster, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = standing.airunner("submit", *words, "--", "true", cwd=tmp_path)
    assert done.returncode in (64, 65)
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@needs_tmux
def test_a_person_is_asked_about_uncommitted_work_and_a_pipe_is_told(standing: Cluster, work: Path) -> None:
    words = ("submit", str(work), "--", "cat", "one")
    asked = f"uncommitted work in {work} (1 changed and 1 untracked): Enter to run it too,"
    for keys, code, shown in ((("Enter",), 0, "changed"), (("c", "Enter"), 0, "committed")):
        with Screen(standing, 200, *words) as screen:
            screen.until(asked)
            screen.keys(*keys)
            screen.until(f"{shown}\r")
            assert screen.ended() == code
    with Screen(standing, 200, *words) as screen:
        screen.until(asked)
        screen.keys("x", "Enter")
        screen.until("airunner: 'x' is no answer: uncommitted work in")
        screen.keys("q", "Enter")
        screen.until("airunner: nothing was submitted")
        assert screen.ended() == 130
    with Screen(standing, 200, *words) as screen:
        screen.until(asked)
        screen.keys("C-c")
        screen.until("airunner: nothing was submitted")
        assert screen.ended() == 130
    with Screen(standing, 200, *words[:2], "--no-tree", *words[2:]) as screen:
        assert screen.ended() == 0
        assert "uncommitted" not in screen.text()
    piped = standing.airunner(*words)
    assert (piped.returncode, piped.stdout) == (0, b"committed\n")
    assert b"without uncommitted work in" in piped.stderr
    silent = standing.airunner(*words[:2], "--no-tree", *words[2:])
    assert b"uncommitted" not in silent.stderr
