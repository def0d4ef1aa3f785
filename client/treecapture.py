"""Tree capture: the uncommitted state of a working tree as a commit, without a change of the repository.

```
 working tree ──git add──► side index, side objects ──► tree ──► commit, child of HEAD
                              (a copy)  (a folder)                 │
 what the remote has ◄── bases ───────────────────────── bundle of what it lacks: a thin pack
```

The index, HEAD, the objects and what `git status` says stay as they are: git works on a copy of the index, and writes
objects to a folder that is removed. What a commit of everything would contain is what is captured: ignored files are
left out, filters and line endings are applied. The same state gives the same commit and the same bundle.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Final

from msgspec import Struct

from airunner.client.localgit import LocalGit, repository_around
from airunner.protocol.blobs import TREE_REF

MESSAGE: Final = "Uncommitted work"
FILE_BYTES_MAX: Final = 1 << 30  # of a new or changed file
AUTHOR: Final = ("airunner", "airunner@localhost")
_GITLINK: Final = "160000"


class Capture(Struct, frozen=True):
    """Captured tree: its `commit`, and a Git `bundle` with what the `repository` lacks of it (None: nothing).

    Without uncommitted work it is the commit of HEAD. `bases` are the commits that the bundle needs.
    """

    repository: str
    commit: str
    tree: str
    bases: tuple[str, ...]
    bundle: Path | None


@contextmanager
def captured(folder: Path, environ: Mapping[str, str], *, include_ignored: Sequence[str] = ()) -> Generator[Capture]:
    """Capture the working tree around `folder`; the bundle is removed at the end.

    The repository to clone is the remote of the branch, or origin, or the only one; without a remote it is the working
    tree's own. `include_ignored` are patterns of ignored files to capture too, as in .gitignore.

    Raises `OperatorError`: it is no working tree, has conflicts or a submodule with changes, or git fails.
    """
    git = repository_around(folder, environ, "the tree cannot be captured")
    git.refuse_conflicts()
    with tempfile.TemporaryDirectory(prefix="airunner-tree-") as scratch:
        side = git.beside(Path(scratch))
        _refuse_large(git)
        side.run("add", "--all", "--", ".")
        if include_ignored:
            side.run("add", "--force", "--", *(f":(top,glob){pattern}" for pattern in include_ignored))
        if links := {entry.split("\t", 1)[1] for entry in side.names("ls-files", "-sz") if entry.startswith(_GITLINK)}:
            _refuse_embedded(side, links)
            _refuse_dirty_submodules(git)
        yield _commit(side, Path(scratch) / "bundle", *_remote_of(git))


def _remote_of(git: LocalGit) -> tuple[str, tuple[str, ...]]:
    """Return the address to clone from, and how git names the refs that are there, as far as it knows."""
    branch = git.text("symbolic-ref", "--quiet", "--short", "HEAD", codes=(0, 1))
    remotes = git.text("remote").split()
    upstream = git.text("config", f"branch.{branch}.remote", codes=(0, 1)) if branch else ""
    name = next((name for name in (upstream, "origin", *remotes[:1]) if name in remotes), None)
    if name is None:
        return str(git.folder), ("--branches", "--tags", "--remotes")
    address = git.text("remote", "get-url", name)
    return str((git.folder / address).resolve()) if (git.folder / address).is_dir() else address, (f"--remotes={name}",)


def _commit(side: LocalGit, bundle: Path, repository: str, there: tuple[str, ...]) -> Capture:
    tree = side.text("write-tree")
    head = side.text("rev-parse", "--quiet", "--verify", "HEAD^{commit}", codes=(0, 1))
    show = ("-c", "log.showSignature=false", "show", "--no-patch", "--format=%T %ct")
    heads_tree, instant = side.text(*show, head).split(" ") if head else ("", "0")
    commit = head
    if heads_tree != tree:
        _refuse_changed_large_files(side, heads_tree, tree)
        dated = side.with_environ(
            {
                **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), AUTHOR[0]),
                **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), AUTHOR[1]),
                **dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"@{instant} +0000"),
            }
        )
        parents = ("-p", head) if head else ()
        commit = dated.text("commit-tree", tree, *parents, "-m", MESSAGE)
    listed = side.text("rev-list", "--boundary", commit, "--not", *there).split()
    if not listed:
        return Capture(repository, commit, tree, (commit,), None)
    bases = tuple(line[1:] for line in listed if line.startswith("-"))
    wanted = "".join(f"{line}\n" for line in (commit, *(f"^{base}" for base in bases))).encode()
    with bundle.open("wb") as file:
        file.write(
            "".join(("# v2 git bundle\n", *(f"-{base}\n" for base in bases), f"{commit} {TREE_REF}\n\n")).encode()
        )
        file.flush()
        side.run("pack-objects", "--revs", "--thin", "--delta-base-offset", "--stdout", "-q", given=wanted, out=file)
    return Capture(repository, commit, tree, bases, bundle)


def _refuse_large(git: LocalGit) -> None:
    """Refuse files that would take too long: git compresses each, and the broker keeps it."""
    for name in git.names("ls-files", "--others", "--modified", "--exclude-standard", "-z"):
        with suppress(OSError):
            status = (git.folder / name).lstat()
            if S_ISREG(status.st_mode) and status.st_size > FILE_BYTES_MAX:
                size = f"{status.st_size / (1 << 30):.1f} GiB, more than {FILE_BYTES_MAX >> 30}"
                raise git.refused(f"{name} has {size}: add it to .gitignore, or commit and push it")


def _refuse_changed_large_files(side: LocalGit, heads_tree: str, tree: str) -> None:
    """Refuse uncommitted changes of files that Git LFS keeps beside the repository: the tree has only pointers."""
    if not side.text("config", "filter.lfs.clean", codes=(0, 1)):
        return
    listing = ("diff-tree", "-r", "--diff-filter=d", heads_tree) if heads_tree else ("ls-tree", "-r")
    changed = side.run(*listing, "-z", "--name-only", tree)
    facts = os.fsdecode(side.run("check-attr", "-z", "--stdin", "filter", given=changed)).split("\0")
    if name := next((name for name, value in zip(facts[::3], facts[2::3], strict=False) if value == "lfs"), None):
        raise side.refused(f"{name} is a file of Git LFS with uncommitted changes: commit and push it")


def _refuse_dirty_submodules(git: LocalGit) -> None:
    entries = git.names(
        "status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=none", "--no-renames"
    )
    for entry in entries:
        fields = entry.split(" ", 8)
        if fields[0] == "1" and fields[2].startswith("S") and fields[2][2:] != "..":
            raise git.refused(f"the submodule {fields[8]} has changes of its own: commit and push them there")


def _refuse_embedded(side: LocalGit, links: set[str]) -> None:
    """Refuse a repository inside of the working tree that is no submodule: nobody could fetch its commit."""
    declared = side.names("config", "-z", "--file", ".gitmodules", "--get-regexp", r"\.path$", codes=(0, 1))
    for link in sorted(links - {entry.split("\n", 1)[1] for entry in declared}):
        why = "is a repository of its own, and no submodule: add it to .gitignore, or as a submodule"
        raise side.refused(f"{link} {why}")
