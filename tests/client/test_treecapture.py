"""The captured tree is git's own, in thirty shapes of a working tree, and nothing of the repository changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.client.treecapture import captured
from airunner.protocol.blobs import TREE_REF
from airunner.protocol.errors import OperatorError

ENVIRON = {
    **os.environ,
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Ada"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "ada@example.org"),
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return os.fsdecode(done.stdout).strip()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `origin.git` and its clone `work`."""
    root = tmp_path_factory.mktemp("template")
    git(root, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(root, "clone", "--quiet", "origin.git", "work")
    work = root / "work"
    for name, content in {
        "plain.txt": "one\ntwo\n",
        "folder/inner.txt": "inner\n",
        "folder/deep/er.txt": "deeper\n",
        "script.sh": "#!/bin/sh\n",
        ".gitignore": "ignored/\n*.log\n",
        "large.txt": "a line\n" * 20_000,
    }.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content)
    (work / "script.sh").chmod(0o755)
    (work / "link").symlink_to("plain.txt")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "-m", "first")
    git(work, "push", "--quiet", "origin", "HEAD:main")
    git(work, "fetch", "--quiet")
    return root


@pytest.fixture
def work(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "t", symlinks=True)
    folder = tmp_path / "t" / "work"
    git(folder, "remote", "set-url", "origin", "../origin.git")
    return folder


def write(work: Path, name: str, content: str | bytes) -> None:
    path = work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(work: Path, name: str) -> None:
    (work / name).unlink()


def _commit(work: Path, name: str) -> None:
    write(work, name, name)
    git(work, "add", name)
    git(work, "commit", "--quiet", "-m", name)


def _submodule(work: Path) -> None:
    git(work, "submodule", "--quiet", "add", "../origin.git", "module")


def _split_index(work: Path) -> None:
    git(work, "update-index", "--split-index")
    write(work, "plain.txt", "changed")


def _sparse(work: Path) -> None:
    git(work, "sparse-checkout", "set", "folder")
    write(work, "folder/inner.txt", "changed")


def _crlf(work: Path) -> None:
    git(work, "config", "core.autocrlf", "true")
    git(work, "config", "core.safecrlf", "true")
    write(work, "plain.txt", "one\r\ntwo\r\nthree\n")


def _filter(work: Path) -> None:
    git(work, "config", "filter.upper.clean", "tr a-z A-Z")
    git(work, "config", "filter.upper.smudge", "tr A-Z a-z")
    write(work, ".gitattributes", "*.up filter=upper\n")
    write(work, "x.up", "text\n")


def _case(work: Path) -> None:
    (work / "plain.txt").rename(work / "PLAIN.txt")


def _file_to_folder(work: Path) -> None:
    remove(work, "plain.txt")
    write(work, "plain.txt/now", "a folder")


def _folder_to_file(work: Path) -> None:
    shutil.rmtree(work / "folder")
    write(work, "folder", "a file")


def _link_to_file(work: Path) -> None:
    remove(work, "link")
    write(work, "link", "a file")


def _staged_then_changed(work: Path) -> None:
    write(work, "plain.txt", "staged")
    git(work, "add", "plain.txt")
    write(work, "plain.txt", "changed again")


def _staged_new_then_removed(work: Path) -> None:
    write(work, "new", "staged")
    git(work, "add", "new")
    remove(work, "new")


def _rebase(work: Path) -> None:
    git(work, "branch", "side")
    _commit(work, "one")
    git(work, "checkout", "--quiet", "side")
    _commit(work, "two")
    (work / "break").mkdir()
    subprocess.run(["git", "rebase", "-x", "false", "main"], cwd=work, env=ENVIRON, capture_output=True, check=False)
    write(work, "plain.txt", "in the middle of a rebase")


SHAPES: dict[str, Callable[[Path], object]] = {
    "clean": lambda work: work,
    "changed": lambda work: write(work, "plain.txt", "changed\n"),
    "one line of many": lambda work: write(work, "large.txt", "a line\n" * 9_999 + "another\n" + "a line\n" * 10_000),
    "same size and content": lambda work: write(work, "plain.txt", "one\ntwo\n"),
    "new": lambda work: write(work, "new/file", "new"),
    "empty file": lambda work: write(work, "empty", ""),
    "removed": lambda work: remove(work, "plain.txt"),
    "folder removed": lambda work: shutil.rmtree(work / "folder"),
    "renamed": lambda work: (work / "plain.txt").rename(work / "renamed"),
    "renamed in case only": _case,
    "mode on": lambda work: (work / "plain.txt").chmod(0o755),
    "mode off": lambda work: (work / "script.sh").chmod(0o644),
    "new link": lambda work: (work / "other").symlink_to("/nowhere"),
    "link became a file": _link_to_file,
    "file became a folder": _file_to_folder,
    "folder became a file": _folder_to_file,
    "ignored": lambda work: write(work, "ignored/x.log", "not captured"),
    "staged": lambda work: (write(work, "plain.txt", "staged"), git(work, "add", ".")),
    "staged, then changed": _staged_then_changed,
    "staged, then removed": _staged_new_then_removed,
    "intent to add": lambda work: (write(work, "later", "x"), git(work, "add", "--intent-to-add", "later")),
    "removed from the index only": lambda work: git(work, "rm", "--quiet", "--cached", "plain.txt"),
    "assumed unchanged": lambda work: (
        git(work, "update-index", "--assume-unchanged", "plain.txt"),
        write(work, "plain.txt", "unseen"),
    ),
    "strange names": lambda work: (
        write(work, "with space", "1"),
        write(work, "with\nnewline", "2"),
        write(work, "ünï", "3"),
        write(work, "-dash", "4"),
        write(work, ":(top)magic", "5"),
    ),
    "binary": lambda work: write(work, "binary", bytes(range(256)) * 1_000),
    "line endings": _crlf,
    "filter": _filter,
    "commits not pushed": lambda work: (_commit(work, "one"), _commit(work, "two"), write(work, "three", "3")),
    "detached": lambda work: (git(work, "checkout", "--quiet", "--detach"), write(work, "new", "new")),
    "submodule": _submodule,
    "split index": _split_index,
    "sparse": _sparse,
    "in a rebase": _rebase,
}


State = dict[str, tuple[int, bytes]]


def state(work: Path) -> State:
    """All of a repository that a capture could change; git freshens other times by itself."""
    git_dir = work / git(work, "rev-parse", "--git-dir")
    files = {
        str(path.relative_to(git_dir)): (path.stat().st_mtime_ns * (path.name == "index"), path.read_bytes())
        for path in sorted(git_dir.rglob("*"))
        if path.is_file()
    }
    environ = {**ENVIRON, "GIT_OPTIONAL_LOCKS": "0"}
    status = subprocess.run(["git", "status", "--porcelain=v2"], cwd=work, env=environ, capture_output=True, check=True)
    return {**files, "status": (0, status.stdout)}


def changed(before: State, after: State) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def own_tree(work: Path, copy: Path) -> str:
    """The tree that git itself makes of everything, in a copy of the repository."""
    shutil.copytree(work.parent, copy, symlinks=True)
    git(copy / work.name, "-c", "core.safecrlf=false", "add", "--all")
    return git(copy / work.name, "write-tree")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_captured_tree_is_gits_own_and_the_repository_stays_as_it_was(
    work: Path, tmp_path: Path, shape: str
) -> None:
    SHAPES[shape](work)
    before = state(work)
    with captured(work, ENVIRON) as capture, captured(work / ".", ENVIRON) as again:
        assert changed(before, state(work)) == set()
        assert (capture.commit, capture.tree, capture.bases) == (again.commit, again.tree, again.bases)
        assert capture.tree == own_tree(work, tmp_path / "copy")
        assert capture.repository == str(work.parent / "origin.git")
        there = tmp_path / "there"
        git(tmp_path, "clone", "--quiet", str(work.parent / "origin.git"), "there")
        if capture.bundle is not None:
            assert again.bundle is not None
            assert capture.bundle.read_bytes() == again.bundle.read_bytes()
            git(there, "fetch", "--quiet", str(capture.bundle), TREE_REF)
        assert all(git(there, "cat-file", "-t", base) == "commit" for base in capture.bases)
        git(there, "checkout", "--quiet", "--detach", capture.commit)
        assert git(there, "rev-parse", "HEAD^{tree}") == capture.tree
        assert git(there, "status", "--porcelain") == ""


def test_a_small_change_of_a_large_file_is_a_small_pack(work: Path) -> None:
    SHAPES["one line of many"](work)
    with captured(work, ENVIRON) as capture:
        assert capture.bundle is not None
        assert capture.bundle.stat().st_size < 2_000


def test_a_repository_without_a_commit_is_captured_whole(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "new")
    write(tmp_path / "new", "file", "content")
    with captured(tmp_path / "new", ENVIRON) as capture:
        assert capture.bases == ()
        assert capture.bundle is not None
        git(tmp_path, "init", "--quiet", "there")
        git(tmp_path / "there", "fetch", "--quiet", str(capture.bundle), TREE_REF)
        git(tmp_path / "there", "checkout", "--quiet", capture.commit)
        assert (tmp_path / "there" / "file").read_text() == "content"


def test_a_linked_worktree_and_a_folder_in_it_are_captured(work: Path, tmp_path: Path) -> None:
    git(work, "worktree", "add", "--quiet", "../linked")
    linked = work.parent / "linked"
    write(linked, "folder/new", "new")
    with captured(linked / "folder", ENVIRON) as capture:
        assert capture.tree == own_tree(linked, tmp_path / "copy")


def test_ignored_files_are_captured_where_they_are_named(work: Path) -> None:
    write(work, "ignored/needed", "x")
    write(work, "ignored/other.log", "x")
    with captured(work, ENVIRON, include_ignored=["ignored/*ed"]) as capture, captured(work, ENVIRON) as without:
        assert capture.tree != without.tree
    with (
        pytest.raises(OperatorError, match="did not match any files"),
        captured(work, ENVIRON, include_ignored=["nothing*"]),
    ):
        pass


def _conflict(work: Path) -> None:
    git(work, "checkout", "--quiet", "-b", "side")
    write(work, "plain.txt", "side")
    git(work, "commit", "--quiet", "-am", "side")
    git(work, "checkout", "--quiet", "-")
    write(work, "plain.txt", "main")
    git(work, "commit", "--quiet", "-am", "main")
    subprocess.run(["git", "merge", "side"], cwd=work, env=ENVIRON, capture_output=True, check=False)


def _dirty_submodule(work: Path) -> None:
    _submodule(work)
    git(work, "commit", "--quiet", "-m", "module")
    write(work, "module/plain.txt", "changed")


def _embedded(work: Path) -> None:
    git(work, "clone", "--quiet", "../origin.git", "inner")


def _large(work: Path) -> None:
    with (work / "huge").open("wb") as file:
        file.truncate((1 << 30) + 1)


def _lfs(work: Path) -> None:
    git(work, "config", "filter.lfs.clean", "echo pointer")
    write(work, ".gitattributes", "*.bin filter=lfs\n")
    write(work, "a.bin", "content")


def _unreadable_index(work: Path) -> None:
    (work / ".git" / "index").write_bytes(b"damaged")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (_conflict, "plain.txt has conflicts"),
        (_dirty_submodule, "submodule module has changes of its own"),
        (_embedded, "inner is a repository of its own"),
        (
            _large,
            "huge has 1.0 GiB, more than 1: add it to .gitignore, or commit and push it",
        ),
        (_lfs, "a.bin is a file of Git LFS with uncommitted changes: commit and push it"),
        (_unreadable_index, "index"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_a_line(work: Path, shape: Callable[[Path], None], words: str) -> None:
    shape(work)
    with pytest.raises(OperatorError) as refused, captured(work, ENVIRON):
        pass
    assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_a_folder_outside_of_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="not a git repository"), captured(tmp_path, ENVIRON):
        pass
