"""`airunner run --job` and `run --tree`: jobs of a cluster again on this machine, with its broker stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.acceptance.running import Cluster, environment, run
from tests.acceptance.test_tree import IDENTITY, work

__all__ = ["work"]  # a fixture
SECRET = "swordfish-and-more"
PRINT = 'printf "%s|" "$@"; printf "\\0\\377"; exit 7'


def recorded_jobs(work: Path) -> dict[str, tuple[tuple[str, ...], bytes]]:
    """Words and standard inputs of ten jobs by their names."""
    origin = str(work.parent / "origin.git")
    show = ("sh", "-c", "cat one; test -e two && cat two; git log --format=%s; pwd | sed s,.*/,,")
    return {
        "plain": (("--", "echo", "hello"), b""),
        "bytes": (("--", "sh", "-c", PRINT, "sh", "a b", "", "*"), b""),
        "stdin": (("--", "sh", "-c", "wc -c; cat"), b"\0" * 70_000 + b"end"),
        "environment": (("--env", "LEVEL=a b=c", "--", "sh", "-c", 'echo "$LEVEL" $AIRUNNER_QUEUE $CI'), b""),
        "secret": (("--env", f"API_TOKEN={SECRET}", "--", "sh", "-c", "printf %s $API_TOKEN | wc -c"), b""),
        "terminal": (("--pty", "--terminal", "99x11", "--", "sh", "-c", "stty size; tty -s && exit 3"), b""),
        "branch": (("--branch", "side", origin, "--", *show), b""),
        "commit": (("--working-directory", "inner", origin, "--", *show), b""),
        "tree": (("--tree", str(work), "--", *show), b""),
        "signal": (("--merge-output", "--", "sh", "-c", "echo out; echo err >&2; kill -9 $$"), b""),
    }


def advance(work: Path) -> None:
    """Commit and push more to the branches, behind the recorded jobs."""
    (work / "one").write_text("later\n")
    for words in (("commit", "-qam", "later"), ("push", "-qf", "origin", "HEAD", "HEAD:side")):
        subprocess.run(["git", *IDENTITY, *words], cwd=work, check=True, capture_output=True)


def test_ten_recorded_jobs_are_the_same_again_with_the_broker_stopped(
    cluster: Cluster, work: Path, tmp_path: Path
) -> None:
    (work / "inner").mkdir()
    (work / "inner/file").write_text("")
    for words in (("add", "inner"), ("commit", "-qm", "inner"), ("push", "-q", "origin", "HEAD", "HEAD:side")):
        subprocess.run(["git", *IDENTITY, *words], cwd=work, check=True, capture_output=True)
    cluster.agent(spawn=2)
    first: dict[str, tuple[int, bytes]] = {}
    for name, (words, stdin) in recorded_jobs(work).items():
        done = cluster.airunner("submit", "--quiet", "--name", name, *words, given=stdin)
        first[name] = (done.returncode, done.stdout)
        file = tmp_path / f"{name}.job"
        wrote = cluster.airunner("export", name, "--format", "job", "-o", str(file))
        assert wrote.returncode == 0, wrote.stderr
        assert SECRET.encode() not in file.read_bytes()
    advance(work)
    here = cluster.airunner("run", "--quiet", "--job", "branch")
    assert (here.returncode, here.stdout) == first["branch"], here.stderr
    cluster.close()
    environ = environment(tmp_path / "untouched", {"AIRUNNER_BROKER": "tcp://nowhere:1"})
    missing = run(environ, "run", "--job", str(tmp_path / "secret.job"))
    assert (missing.returncode, missing.stderr.count(b"\n")) == (64, 1), missing.stderr
    assert b"set API_TOKEN in your environment" in missing.stderr
    again: dict[str, tuple[int, bytes]] = {}
    for name in first:
        done = run({**environ, "API_TOKEN": SECRET}, "run", "--quiet", "--job", str(tmp_path / f"{name}.job"))
        again[name] = (done.returncode, done.stdout)
    assert again == first
    assert {code for code, _ in first.values()} == {0, 3, 7, 137}
    other = run(environ, "run", "-q", "--job", str(tmp_path / "environment.job"), "--env", "LEVEL=x", "--", "env")
    assert b"\nLEVEL=x\n" in other.stdout
    none = run(environ, "run", "--job", str(work / "one"))
    assert (none.returncode, b"is no record of a job" in none.stderr) == (65, True)


def test_the_working_tree_runs_here_as_it_is(work: Path, tmp_path: Path) -> None:
    environ = environment(tmp_path / "untouched")
    before = (work / ".git/index").stat().st_mtime_ns
    done = run(environ, "run", "--quiet", "--tree", "--", "sh", "-c", "cat one two; git status --porcelain", cwd=work)
    assert (done.returncode, done.stdout) == (0, b"changed\nnew\n"), done.stderr
    assert (work / ".git/index").stat().st_mtime_ns == before
    assert not (tmp_path / "untouched").exists()
