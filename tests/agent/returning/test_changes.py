"""Changes of a job as a commit: whatever the job did to its checkout, and its own repository stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.agent.checkout.git import CheckoutFailed, Git, git_environment
from airunner.agent.checkout.repository import Rules
from airunner.agent.launcher.contract import Starter
from airunner.agent.returning.changes import Changes, copy_index, pack_changes
from airunner.agent.workspace.workspace import Workspace, make_workspace
from tests.agent.checkout.repositories import commit, git, new_repository

NOW_S = 1_800_000_000


class Returning:
    """Return of what was changed in a checkout of a repository."""

    def __init__(self, launcher: Starter, workspace: Workspace, base: str) -> None:
        self.git = Git(
            launcher=launcher,
            environment=git_environment(os.environ, workspace, Rules()),
            folder=workspace.checkout,
            repository="",
            address="",
            tell=lambda _: None,
            warn=lambda _: None,
            random=lambda: 0.0,
        )
        self.checkout = workspace.checkout
        self.scratch = workspace.root / "scratch"
        self.base = base

    async def __call__(self) -> Changes:
        (self.scratch / "objects").mkdir(parents=True)
        copy_index(self.checkout, self.scratch)
        return await pack_changes(self.git, self.base, self.scratch, "Changes of a job", NOW_S)

    def received(self, commit: str) -> Path:
        """A clone of what was checked out, at the commit in the bundle."""
        there = self.scratch / "there"
        git(self.checkout, "branch", "--force", "before", self.base)
        git(self.scratch, "clone", "--quiet", "--branch=before", str(self.checkout), "there")
        git(there, "fetch", "--quiet", str(self.scratch / "bundle"), "refs/heads/airunner-return")
        assert git(there, "rev-parse", "FETCH_HEAD") == commit
        git(there, "checkout", "--quiet", "FETCH_HEAD")
        return there


@pytest.fixture
def returning(launcher: Starter, tmp_path: Path) -> Returning:
    repository = new_repository(tmp_path / "repository")
    (repository / ".gitignore").write_text("*.log\n")
    base = commit(repository, "content")
    workspace = make_workspace(tmp_path / "home")
    git(workspace.checkout, "clone", "--quiet", str(repository), ".")
    return Returning(launcher, workspace, base)


def _all(folder: Path) -> None:
    (folder / "file").write_text("changed")
    (folder / "new").mkdir()
    (folder / "new" / "binary").write_bytes(bytes(range(256)))
    (folder / "link").symlink_to("file")
    (folder / ".gitignore").chmod(0o755)
    (folder / "x.log").write_text("ignored")


def _committed(folder: Path) -> None:
    _all(folder)
    commit(folder, "changed")
    git(folder, "checkout", "--quiet", "-b", "elsewhere")


def _staged_in_part(folder: Path) -> None:
    _all(folder)
    git(folder, "add", "file")
    git(folder, "rm", "--quiet", "--cached", ".gitignore")


def _without_index(folder: Path) -> None:
    _all(folder)
    (folder / ".git" / "index").unlink()


def _with_a_linked_index(folder: Path) -> None:
    _all(folder)
    (folder / ".git" / "index").rename(folder.parent / "index")
    (folder / ".git" / "index").symlink_to(folder.parent / "index")


@pytest.mark.parametrize("change", [_all, _committed, _staged_in_part, _without_index, _with_a_linked_index])
async def test_what_was_changed_is_one_commit_however_the_job_left_its_repository(
    returning: Returning, change: Callable[[Path], None]
) -> None:
    change(returning.checkout)
    before = {path: path.read_bytes() for path in (returning.checkout / ".git").rglob("*") if path.is_file()}
    changes = await returning()
    assert (changes.files, changes.left_out) == (4, [])
    assert {path: path.read_bytes() for path in (returning.checkout / ".git").rglob("*") if path.is_file()} == before
    there = returning.received(changes.commit)
    subjects = git(there, "log", "--format=%s, %an %at").splitlines()
    assert subjects[0] == f"Changes of a job, airunner {NOW_S}"
    assert git(there, "rev-parse", "HEAD~1") == returning.base
    assert (there / "file").read_text() == "changed"
    assert (there / "new" / "binary").read_bytes() == bytes(range(256))
    assert (there / "link").readlink() == Path("file")
    assert os.access(there / ".gitignore", os.X_OK)
    assert not (there / "x.log").exists()


async def test_without_a_change_there_is_no_bundle(returning: Returning) -> None:
    (returning.checkout / "file").write_text("content")
    (returning.checkout / "x.log").write_text("ignored")
    assert await returning() == Changes(returning.base)
    assert not (returning.scratch / "bundle").exists()


async def test_repositories_inside_are_left_out_with_a_word(returning: Returning, tmp_path: Path) -> None:
    for name in ("inner", "module"):
        new_repository(tmp_path / name)
    git(returning.checkout, "submodule", "--quiet", "add", str(tmp_path / "module"), "module")
    git(returning.checkout, "commit", "--quiet", "-m", "module")
    returning.base = git(returning.checkout, "rev-parse", "HEAD")
    git(returning.checkout, "clone", "--quiet", str(tmp_path / "inner"), "inner")
    (returning.checkout / "module" / "file").write_text("changed inside")
    (returning.checkout / "file").write_text("changed")
    changes = await returning()
    assert changes.left_out == [
        "inner: it is a repository of its own",
        "module: what was changed inside of a submodule",
    ]
    assert changes.files == 1
    there = returning.received(changes.commit)
    assert git(there, "diff", "--name-only", "HEAD~1") == "file"


async def test_files_of_git_lfs_are_left_out_with_a_word(returning: Returning) -> None:
    for name in ("old.bin", "removed.bin"):
        (returning.checkout / name).write_text("pointer")
    (returning.checkout / ".gitattributes").write_text("*.bin filter=lfs\n")
    returning.base = commit(returning.checkout, "with large files")
    git(returning.checkout, "config", "filter.lfs.clean", "echo pointer to; cat")
    (returning.checkout / "old.bin").write_text("changed")
    (returning.checkout / "new.bin").write_text("new")
    (returning.checkout / "removed.bin").unlink()
    (returning.checkout / "file").write_text("changed")
    changes = await returning()
    why = "it is a file of Git LFS, to be kept as an artifact"
    assert changes.left_out == [f"new.bin: {why}", f"old.bin: {why}", f"removed.bin: {why}"]
    assert changes.files == 1
    assert git(returning.received(changes.commit), "diff", "--name-only", "HEAD~1") == "file"


async def test_a_checkout_that_is_no_repository_any_more_fails_in_gits_words(returning: Returning) -> None:
    (returning.checkout / ".git" / "HEAD").unlink()
    with pytest.raises(CheckoutFailed, match="not a git repository"):
        await returning()
