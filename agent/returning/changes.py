"""Changes of a job: makes a commit of what differs in a checkout from the commit that was checked out.

Tracked files and new ones that are not ignored are in it. git runs as the job's user, and has no credentials: what the
job's own settings make it run, such as a filter, the job could have run itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from airunner.agent.artifacts.tree import Tree
from airunner.agent.checkout.git import Git, message_lines
from airunner.agent.checkout.remote import object_format

AUTHOR: Final = ("airunner", "airunner@localhost")
BUNDLE: Final = "bundle"
REF: Final = "refs/heads/airunner-return"  # of the commit in the bundle
LISTING_BYTES_MAX: Final = 67_108_864  # of the list of changed files, some 500,000
NAMES_MAX: Final = 256  # names in the arguments of one git
_GITLINK: Final = "160000"
_INDEX: Final = ".git/index"


class Changes(Struct):
    """Changes as a commit: how many `files` they are in, and what is `left_out` of them, in words.

    Without any file there is no bundle, and the commit is the one that was checked out.
    """

    commit: str
    files: int = 0
    left_out: list[str] = field(default_factory=list[str])


class _Change(Struct, frozen=True):
    """Change of one path, by the modes before and after it."""

    path: str
    before: str
    after: str


async def pack_changes(git: Git, base: str, scratch: Path, message: str, now_s: int) -> Changes:
    """Commit what was changed since the commit `base`, and write its bundle into the folder `scratch`.

    `scratch` has nothing but the copy of the job's index, if there is one. Raises as `Git.must_run`.
    """
    side = git.at(git.folder, {**git.environment, **_side_environment(git, scratch, now_s)})
    changes = Changes(base)
    added = await side.run("add", "--all", "--ignore-errors", "--verbose", "--", ".")
    if not added.succeeded:
        changes.left_out += message_lines(added.stderr)
    changed = await _changed(side, base)
    embedded = [each.path for each in changed if each.after == _GITLINK != each.before]
    for start in range(0, len(embedded), NAMES_MAX):
        await side.must_run("update-index", "--force-remove", "--", *embedded[start : start + NAMES_MAX])
    changes.left_out += [f"{path}: it is a repository of its own" for path in embedded]
    changes.left_out += await _inside_of_submodules(side)
    large = await _large_files(side, [each.path for each in changed if _GITLINK not in (each.before, each.after)])
    for start in range(0, len(large), NAMES_MAX):
        await side.must_run("reset", "--quiet", base, "--", *large[start : start + NAMES_MAX])
    changes.left_out += [f"{path}: it is a file of Git LFS, to be kept as an artifact" for path in large]
    changes.files = len(changed) - len(embedded) - len(large)
    if changes.files:
        tree = await _line(side, "write-tree")
        changes.commit = await _line(side, "commit-tree", tree, "-p", base, "-m", message)
        await _bundle(side, changes.commit, base, scratch)
    return changes


def copy_index(checkout: Path, scratch: Path) -> Path | None:
    """Copy the job's index, with its time, by which git knows whether a file may have changed since.

    Return the copy; None: there is none. No link is followed. Raises `OSError`: the copy cannot be written.
    """
    copy = scratch / "index"
    try:
        tree = Tree(checkout)
    except OSError:
        return None
    with tree:
        try:
            times = os.stat("index", dir_fd=tree.folder(".git"), follow_symlinks=False)
            chunks = tree.chunks(_INDEX)
        except OSError:
            return None
        if times.st_nlink > 1:  # perhaps another user's file
            return None
        with copy.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    return copy


def _side_environment(git: Git, scratch: Path, now_s: int) -> dict[str, str]:
    alternate = str(git.folder / ".git" / "objects").replace("\\", "\\\\").replace('"', '\\"')
    return {
        "GIT_INDEX_FILE": str(scratch / "index"),
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{alternate}"',
        "GIT_LITERAL_PATHSPECS": "1",  # names of files are given, no patterns
        "GIT_OPTIONAL_LOCKS": "0",
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), AUTHOR[0]),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), AUTHOR[1]),
        **dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"@{now_s} +0000"),
    }


async def _line(git: Git, *words: str) -> str:
    return (await git.must_run(*words)).stdout.decode().strip()


async def _changed(side: Git, base: str) -> list[_Change]:
    """List what differs between a commit and the index."""
    words = ("diff-index", "--cached", "-z", "--no-renames", "--ignore-submodules=none", base, "--")
    entries = (await side.must_run(*words, keep=LISTING_BYTES_MAX)).stdout.split(b"\0")[:-1]
    return [
        _Change(os.fsdecode(path), *facts.decode().removeprefix(":").split(" ")[:2])
        for facts, path in zip(entries[::2], entries[1::2], strict=True)
    ]


async def _inside_of_submodules(git: Git) -> list[str]:
    """Say in which submodules files were changed: these are commits of other repositories."""
    if not (git.folder / ".gitmodules").is_file():
        return []
    words = ("status", "--porcelain=v2", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=none")
    entries = os.fsdecode((await git.must_run(*words, keep=LISTING_BYTES_MAX)).stdout).split("\0")
    fields = [entry.split(" ", 8) for entry in entries if entry.startswith("1 ")]
    return [
        f"{path}: what was changed inside of a submodule"
        for _, _, submodule, *_, path in fields
        if submodule.startswith("S") and submodule[2:] != ".."
    ]


async def _large_files(git: Git, paths: list[str]) -> list[str]:
    """List those of the paths whose contents Git LFS keeps beside the repository: the commit has only pointers."""
    if not paths or not (await git.run("config", "filter.lfs.clean")).succeeded:
        return []
    large: list[str] = []
    for start in range(0, len(paths), NAMES_MAX):
        words = ("check-attr", "-z", "filter", "--", *paths[start : start + NAMES_MAX])
        entries = os.fsdecode((await git.must_run(*words, keep=LISTING_BYTES_MAX)).stdout).split("\0")
        large += [path for path, value in zip(entries[::3], entries[2::3], strict=False) if value == "lfs"]
    return large


async def _bundle(side: Git, commit: str, base: str, scratch: Path) -> None:
    """Write the bundle: git names its commit by a ref, so the bundle is made in a repository beside the job's."""
    own = str(scratch / "repository")
    form = object_format(len(commit))
    await side.must_run("init", "--quiet", "--bare", "--template=", f"--object-format={form}", own)
    beside = replace(side, environment={**side.environment, "GIT_DIR": own})
    await beside.must_run("update-ref", REF, commit)
    await beside.must_run("bundle", "create", "--progress", str(scratch / BUNDLE), REF, f"^{base}")
