"""What is said about a local folder that is given as repository."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.client.cli import worktree
from airunner.client.cli.worktree import uncommitted_in
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import JobSpec
from tests.agent.checkout.repositories import ENVIRONMENT, commit, git, new_repository


def said_of(folder: Path, **fields: str) -> str | None:
    """Return the line about a job of this folder, without the folder and the hash."""
    work = uncommitted_in(JobSpec(command="x", repository=str(folder), **fields), ENVIRONMENT)  # type: ignore[arg-type]
    return re.sub("at [0-9a-f]{7},", "at HASH,", work.hint).replace(str(folder), "R") if work else None


def rename(folder: Path) -> None:
    git(folder, "mv", "file", "? a name")


CHANGES: list[tuple[Callable[[Path], object], str | None]] = [
    (lambda _: None, None),
    (lambda folder: (folder / "file").write_text("new"), "1 changed"),
    (lambda folder: (folder / "file").unlink(), "1 changed"),
    (rename, "1 changed"),
    (lambda folder: ((folder / "a").touch(), (folder / "b").mkdir(), (folder / "b/c").touch()), "2 untracked"),
    (lambda folder: ((folder / "file").write_text("new"), (folder / "\udcff\n").touch()), "1 changed and 1 untracked"),
    (lambda folder: ((folder / ".git/info/exclude").write_text("a"), (folder / "a").touch()), None),
]


@pytest.mark.parametrize(("change", "work"), CHANGES)
def test_uncommitted_work_is_said_in_one_line(tmp_path: Path, change: Callable[[Path], object], work: str) -> None:
    repository = new_repository(tmp_path / "project")
    change(repository)
    hint = f"the job runs main at HASH, without uncommitted work in R: {work}; with --tree it gets that too"
    assert said_of(repository) == (work and hint)


def test_what_is_not_checked_out_needs_no_word(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "project")
    (repository / "new").touch()
    git(repository, "branch", "dev")
    assert said_of(repository, branch="main")
    assert said_of(repository, commit="HEAD")
    for fields in ({"branch": "dev"}, {"ref": "refs/heads/main"}, {"commit": "0" * 40}):
        assert said_of(repository, **fields) is None
    git(repository, "checkout", "--quiet", "--detach")
    assert (said_of(repository) or "").startswith("the job runs a detached HEAD at HASH, without")


def test_a_folder_that_cannot_be_cloned_is_refused_with_what_to_give_instead(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "project")
    git(repository, "worktree", "add", "--quiet", "../linked")
    git(repository, "clone", "--quiet", "--bare", ".", "../bare")
    (repository / "src" / "lib").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    git(tmp_path, "init", "--quiet", "new")
    for usable in ("project", "linked", "bare", "project/.git"):
        assert said_of(tmp_path / usable) is None
    for folder, told in (
        ("project/src/lib", f"submit {repository} --working-directory src/lib"),
        ("other", "is not a Git repository: run `git init`"),
        ("new", "has no commit yet: run `git commit` there, or give --tree"),
    ):
        with pytest.raises(OperatorError, match=re.escape(told)):
            said_of(tmp_path / folder)


def test_git_runs_nothing_of_the_folder_and_looks_at_no_other(tmp_path: Path) -> None:
    """A client may run inside of a git hook, whose variables name another repository."""
    repository, other = new_repository(tmp_path / "project"), new_repository(tmp_path / "other")
    (other / "new").touch()
    git(repository, "config", "core.fsmonitor", f"touch {tmp_path}/canary")
    inside = {**ENVIRONMENT, "GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git" / "index")}
    assert uncommitted_in(JobSpec(command="x", repository=str(repository)), inside) is None
    assert not (tmp_path / "canary").exists()


def test_nothing_is_said_where_git_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = new_repository(tmp_path / "project")
    commit(repository, "two")
    (repository / "new").touch()
    assert uncommitted_in(JobSpec(command="x", repository=str(repository)), {"PATH": str(tmp_path)}) is None
    monkeypatch.setattr(worktree, "STATUS_S_MAX", 0.0)
    assert uncommitted_in(JobSpec(command="x", repository=str(repository)), dict(os.environ)) is None
    for elsewhere in ("https://example.org/x.git", "/no/such", f"/{'x' * 300}"):  # the last one cannot be looked at
        assert uncommitted_in(JobSpec(command="x", repository=elsewhere), {}) is None
