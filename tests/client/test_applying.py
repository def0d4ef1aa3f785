"""Applying of a job's changes: as if its command had been run here, whatever it did to files, or not at all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.client.applying import Applied, changes_here, make_branch
from airunner.protocol.errors import OperatorError

ENVIRON = {
    **os.environ,
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Ada"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "ada@example.org"),
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}
LINES = "".join(f"line {number}\n" for number in range(20))


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return os.fsdecode(done.stdout)


def write(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "work"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "work")
    for name in ("text", "other", "folder/inner", "script"):
        write(folder, name, LINES)
    write(folder, "binary", bytes(range(256)))
    write(folder, "dos", LINES.replace("\n", "\r\n"))
    write(folder, ".gitattributes", "dos text eol=crlf\n")
    write(folder, ".gitignore", "*.log\n")
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("text")
    (folder / "way").symlink_to("folder")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


class Job:
    """A job that was run on a clone: its bundle, and the commit in it. `tree`: the clone has the uncommitted work."""

    def __init__(self, work: Path, change: Callable[[Path], object], *, tree: bool = False) -> None:
        self.folder = work.parent / "job"
        subprocess.run(["cp", "-a", str(work), str(self.folder)], check=True)
        self.bundles: list[Path] = []
        if tree:
            git(self.folder, "add", "--all")
            git(self.folder, "commit", "--quiet", "--allow-empty", "-m", "Uncommitted work")
            self._bundle("tree", "HEAD~1" if git(work, "for-each-ref") else "")
        else:
            git(self.folder, "reset", "--hard", "--quiet")
            git(self.folder, "clean", "-dfq")
        change(self.folder)
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "-m", "changes")
        self.commit = self._bundle("changes", "HEAD~1")

    def _bundle(self, name: str, base: str) -> str:
        file = self.folder.parent / f"{name}.bundle"
        git(self.folder, "bundle", "create", "--quiet", str(file), "HEAD", *([f"^{base}"] if base else []))
        self.bundles.append(file)
        return git(self.folder, "rev-parse", "HEAD").strip()

    def apply(self, work: Path, *, check: bool = False) -> Applied:
        with changes_here(work, ENVIRON, self.commit, self.bundles, "https://example.org/x.git") as changes:
            return changes.apply(check=check)


def state(work: Path) -> tuple[str, ...]:
    diffs = (git(work, "status", "--porcelain=v2"), git(work, "diff", "--binary"), git(work, "diff", "--cached"))
    files = subprocess.run(["find", ".", "-not", "-path", "./.git*", "-ls"], cwd=work, capture_output=True, check=True)
    names = [line.split(maxsplit=10) for line in files.stdout.decode().splitlines()]
    return (*diffs, repr(sorted((fields[2], fields[10]) for fields in names)))


def _all(folder: Path) -> None:
    write(folder, "text", LINES.replace("line 3\n", "another\n"))
    write(folder, "binary", bytes(reversed(range(256))))
    write(folder, "new/file", b"\0new")
    write(folder, "empty", "")
    write(folder, "with space\tand tab", "x")
    (folder / "folder" / "inner").rename(folder / "moved")
    (folder / "folder").rmdir()
    (folder / "script").chmod(0o644)
    (folder / "link").unlink()
    (folder / "link").symlink_to("/nowhere")
    (folder / "other").unlink()
    write(folder, "other/file", "a folder now")


def _dos(folder: Path) -> None:
    write(folder, "dos", LINES.replace("\n", "\r\n").replace("line 3", "another"))


def _remove_inner(folder: Path) -> None:
    (folder / "folder/inner").unlink()
    (folder / "folder").rmdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "of all kinds": _all,
    "CRLF": _dos,
    "no newline at the end": lambda folder: write(folder, "text", LINES + "end"),
    "folder to link": lambda folder: (_remove_inner(folder), (folder / "folder").symlink_to("/nowhere")),
    "folder to file": lambda folder: (_remove_inner(folder), write(folder, "folder", "a file now")),
    "link to folder": lambda folder: ((folder / "way").unlink(), write(folder, "way/inner", "a folder now")),
    "file to link": lambda folder: ((folder / "text").unlink(), (folder / "text").symlink_to("other")),
}


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_the_changes_are_those_of_the_command_here(work: Path, change: str, *, tree: bool) -> None:
    if tree:
        write(work, "text", "uncommitted\n" + LINES)
        write(work, "dos", "uncommitted\r\n" + LINES.replace("\n", "\r\n"))
        git(work, "add", "text")
        write(work, "script", "uncommitted too\n" + LINES)
        (work / "script").chmod(0o755)
    job = Job(work, CHANGES[change], tree=tree)
    before = state(work)
    assert job.apply(work, check=True).files > 0
    assert state(work) == before
    subprocess.run(["cp", "-a", str(work), str(work.parent / "here")], check=True)
    CHANGES[change](work.parent / "here")
    applied = job.apply(work)
    assert (applied.conflicts, applied.submodules) == ("", ())
    assert state(work) == state(work.parent / "here")
    assert job.apply(work).files == 0


def test_what_was_committed_here_meanwhile_is_merged_and_conflicts_are_gits_own(work: Path) -> None:
    job = Job(work, lambda folder: write(folder, "text", LINES.replace("line 3\n", "theirs\n")))
    write(work, "text", LINES.replace("line 15\n", "ours\n"))
    git(work, "commit", "--quiet", "-am", "far from it")
    assert job.apply(work) == Applied(1)
    assert (work / "text").read_text() == LINES.replace("line 15\n", "ours\n").replace("line 3\n", "theirs\n")
    git(work, "reset", "--hard", "--quiet")
    write(work, "text", LINES.replace("line 3\n", "ours\n"))
    git(work, "commit", "--quiet", "-am", "the same line")
    before = state(work)
    checked = job.apply(work, check=True)
    assert "Applied patch to 'text' with conflicts." in checked.conflicts
    assert state(work) == before
    assert job.apply(work) == checked
    assert "<<<<<<< ours\nours\n=======\ntheirs\n>>>>>>> theirs\n" in (work / "text").read_text()
    assert git(work, "status", "--porcelain") == "UU text\n"
    assert git(work, "show", ":3:text") == LINES.replace("line 3\n", "theirs\n")
    with pytest.raises(OperatorError, match="text has conflicts: resolve them"):
        job.apply(work)


@pytest.mark.parametrize("tree", [False, True])
def test_other_uncommitted_work_in_the_same_files_is_refused_and_nothing_is_changed(work: Path, *, tree: bool) -> None:
    job = Job(work, _all, tree=tree)
    write(work, "script", LINES + "unrelated here\n")
    write(work, "new/file", "not tracked")
    before = state(work)
    for check in (True, False):
        with pytest.raises(OperatorError, match=r"new/file, script have changes here .* commit or stash them"):
            job.apply(work, check=check)
    assert state(work) == before
    git(work, "add", "script")
    with pytest.raises(OperatorError, match="script"):
        job.apply(work)


@pytest.mark.parametrize("kept", ["folder/own", "folder/empty/", "folder/link"])
def test_a_folder_with_files_of_its_own_is_not_replaced_and_nothing_is_changed(work: Path, kept: str) -> None:
    job = Job(work, CHANGES["folder to link"])
    if kept.endswith("/"):
        (work / kept).mkdir()
    elif kept == "folder/link":
        (work / kept).symlink_to("/usr")
    else:
        write(work, kept, "own")
    before = state(work)
    for check in (True, False):
        with pytest.raises(OperatorError, match=f"{kept.rstrip('/')} has changes here that the job did not have"):
            job.apply(work, check=check)
        assert state(work) == before


def test_an_ignored_file_that_is_in_the_way_is_refused(work: Path) -> None:
    job = Job(work, lambda folder: (write(folder, ".gitignore", ""), write(folder, "x.log", "the job's")))
    write(work, "x.log", "mine")
    with pytest.raises(OperatorError, match=r"x\.log has changes here"):
        job.apply(work)
    assert (work / "x.log").read_text() == "mine"


def test_a_repository_without_a_commit_gets_the_changes(tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "init", "--quiet", "work")
    write(work, "file", "one\n")
    job = Job(work, lambda folder: write(folder, "file", "two\n"), tree=True)
    assert job.apply(work) == Applied(1)
    assert (work / "file").read_text() == "two\n"
    write(work, "file", "three\n")
    with pytest.raises(OperatorError, match="file has changes here"):
        job.apply(work)


def test_another_commit_of_a_submodule_is_said_and_left(work: Path) -> None:
    git(work.parent, "clone", "--quiet", "work", "origin")
    git(work, "submodule", "--quiet", "add", "../origin", "module")
    git(work, "commit", "--quiet", "-m", "module")

    def change(folder: Path) -> None:
        write(folder, "text", "changed")
        write(folder / "module", "text", "changed")
        git(folder / "module", "commit", "--quiet", "-am", "another")

    job = Job(work, change)
    assert job.apply(work) == Applied(1, submodules=("module",))
    assert git(work, "status", "--porcelain") == " M text\n"


def test_a_branch_and_a_patch_have_the_commit(work: Path, tmp_path: Path) -> None:
    write(work, "text", "uncommitted\n" + LINES)
    job = Job(work, _all, tree=True)
    tree = git(job.folder, "rev-parse", "HEAD^{tree}")
    with (
        changes_here(work, ENVIRON, job.commit, job.bundles, "x") as changes,
        (tmp_path / "patch").open("wb") as file,
    ):
        changes.write_patch(file)
    git(job.folder, "checkout", "--quiet", "-f", "HEAD~1")
    git(job.folder, "am", "--quiet", str(tmp_path / "patch"))
    assert git(job.folder, "rev-parse", "HEAD^{tree}") == tree
    before = state(work)
    make_branch(work, ENVIRON, "fix/it", job.commit, job.bundles, "x")
    assert state(work) == before
    assert git(work, "rev-parse", "fix/it^{tree}") == tree
    assert git(work, "log", "--format=%s", "fix/it") == "changes\nUncommitted work\nfirst\n"
    git(work, "fsck", "--strict")
    for name, words in {"fix/it": "a branch fix/it exists", "a b": "'a b' is not a valid branch name"}.items():
        with pytest.raises(OperatorError, match=words):
            make_branch(work, ENVIRON, name, job.commit, job.bundles, "x")


def test_another_repository_is_refused(work: Path, tmp_path: Path) -> None:
    job = Job(work, _all)
    git(tmp_path, "init", "--quiet", "unrelated")
    for use in (job.apply, lambda folder: make_branch(folder, ENVIRON, "b", job.commit, job.bundles, "the address")):
        with pytest.raises(OperatorError, match=r"lacks the commit \w{10} on which the job ran: `git fetch`, or go to"):
            use(tmp_path / "unrelated")
    with pytest.raises(OperatorError, match="not a git repository"):
        job.apply(tmp_path)
