"""Changes that jobs return: `apply` brings them into the working tree, as if the command had been run there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster

IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
FORMAT = """
set -e
sed -i 's/ *= */ = /' a.py folder/b.py
printf 'new\\n' > folder/new.py
printf '\\000\\001' > binary
rm gone.py
git mv old.py renamed.py
chmod +x a.py
ln -s a.py link
echo ignored > x.log
"""


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A clone with uncommitted work."""
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "work")
    folder = tmp_path / "work"
    (folder / "folder").mkdir()
    for name in ("a.py", "folder/b.py", "gone.py", "old.py"):
        (folder / name).write_text(f"name   =   '{name}'\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    git(folder, "push", "--quiet", "origin", "HEAD")
    (folder / "a.py").write_text("uncommitted=1\n")
    return folder


def returned(cluster: Cluster, work: Path, *words: str) -> str:
    done = cluster.airunner("submit", "--quiet", "--no-monitor", "--return", *words, cwd=work)
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.decode().strip()
    cluster.airunner("wait", job_id)
    return job_id


def test_a_job_that_formats_code_gives_the_diff_of_doing_it_here(standing: Cluster, work: Path, tmp_path: Path) -> None:
    job_id = returned(standing, work, "--tree", "--", "sh", "-c", FORMAT + "exit 3")
    shown = standing.airunner("show", job_id).stdout.decode()
    assert f"returned:     changes in 8 files: airunner apply {job_id}\n" in shown
    subprocess.run(["cp", "-a", str(work), str(tmp_path / "here")], check=True)
    subprocess.run(["sh", "-c", FORMAT.replace("git mv", "mv")], cwd=tmp_path / "here", check=True)
    (tmp_path / "here" / "x.log").unlink()
    done = standing.airunner("apply", job_id, cwd=work / "folder")
    assert (done.returncode, done.stderr) == (0, b"airunner: changes in 8 files applied\n")
    for words in (("status", "--porcelain=v2"), ("diff",), ("diff", "--cached")):
        assert git(work, *words) == git(tmp_path / "here", *words)
    assert subprocess.run(["diff", "-r", "--exclude=.git", work, tmp_path / "here"], check=False).returncode == 0
    again = standing.airunner("apply", job_id, cwd=work)
    assert (again.returncode, again.stderr) == (0, b"airunner: the job's changes are here already\n")


def test_apply_says_what_there_is_to_apply_and_its_exit_code_is_true(standing: Cluster, work: Path) -> None:
    def apply(*words: str) -> tuple[int, str]:
        done = standing.airunner("apply", *words, cwd=work)
        return done.returncode, (done.stderr or done.stdout).decode()

    origin = str(work.parent / "origin.git")
    unchanged = returned(standing, work, origin, "--", "true")
    assert apply(unchanged) == (0, "airunner: the job has changed nothing in its checkout\n")
    without = standing.airunner("submit", "--quiet", "--no-monitor", "--", "true").stdout.decode().strip()
    assert apply(without) == (66, "airunner: the job was submitted without --return, and has returned nothing\n")
    job_id = returned(standing, work, origin, "--", "sh", "-c", "echo x >> a.py; git clone -q . inner")
    log = standing.airunner("monitor", job_id).stderr
    assert b"not returned:\n" in log
    assert b"inner: it is a repository of its own" in log
    refused = "a.py has changes here that the job did not have: commit or stash them first"
    assert apply(job_id) == (65, f"airunner: the changes cannot be applied: {refused}\n")
    git(work, "commit", "--quiet", "-am", "another")
    assert apply(job_id, "--check")[0] == 65
    assert git(work, "status", "--porcelain") == ""
    code, words = apply(job_id)
    assert (code, "airunner: Applied patch to 'a.py' with conflicts.\n" in words) == (65, True)
    git(work, "reset", "--quiet", "--hard", "HEAD~1")
    assert apply(job_id, "--check") == (0, "airunner: changes in 1 file can be applied\n")
    patch = standing.airunner("apply", job_id, "--patch", cwd=work).stdout
    subprocess.run(["git", "apply"], cwd=work, input=patch, check=True)
    assert apply(job_id) == (0, "airunner: the job's changes are here already\n")
    words = "airunner: branch it has the job's changes in 1 file as its last commit\n"
    assert apply(job_id, "--branch", "it") == (0, words)
    assert git(work, "diff", "it") == ""
    assert apply(job_id, "--patch", "--check")[0] == 64
