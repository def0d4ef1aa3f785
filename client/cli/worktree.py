"""Working tree: what `submit` and `run` check and say about a folder of this machine that is given as repository.

The agent clones it, so a job gets a commit, and neither uncommitted work nor a subfolder. git runs here as the user
would run it in that folder, but without hooks and monitors, and without the variables that point it to another one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from airunner.client.localgit import ELSEWHERE
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import JobSpec

STATUS_S_MAX: Final = 2.0  # seconds for `git status`: of a working tree that takes longer, nothing is said
COMMIT_CHARS: Final = 7
_STATUS: Final = (
    *("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
    *("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal"),
)


class Status(Struct, frozen=True):
    """Status of a working tree: the branch, empty if HEAD is detached; the commit, empty if there is none yet."""

    branch: str
    commit: str
    changed: int
    untracked: int


class Uncommitted(Struct, frozen=True):
    """Uncommitted work in a folder that a job runs the commit of: which commit that is, and how much work."""

    folder: Path
    at: str
    work: str

    @property
    def hint(self) -> str:
        """What to say about it."""
        without = f"without uncommitted work in {self.folder}: {self.work}"
        return f"the job runs {self.at}, {without}; with --tree it gets that too"

    @property
    def question(self) -> str:
        """What to ask a person about it."""
        work = f"uncommitted work in {self.folder} ({self.work})"
        return f"{work}: Enter to run it too, c to run {self.at} without it, q to submit nothing?"


def uncommitted_in(spec: JobSpec, environ: Mapping[str, str]) -> Uncommitted | None:
    """Find uncommitted work in the repository of a job, if that is a folder here, which the job does not get.

    Raises `OperatorError`: it is no repository, or only a folder in one, or has no commit.
    """
    folder = Path(spec.repository)
    try:
        if not folder.is_absolute() or not folder.is_dir():
            return None
        _refuse_other_folders(folder)
    except OSError:  # this user may not look there; perhaps the agent may
        return None
    if spec.ref or spec.commit not in ("", "HEAD") or (status := _status_of(folder, environ)) is None:
        return None
    if spec.branch not in ("", status.branch):
        return None
    if not status.commit:
        raise OperatorError(f"{folder} has no commit yet: run `git commit` there, or give --tree to run what is there")
    counts = ((status.changed, "changed"), (status.untracked, "untracked"))
    work = " and ".join(f"{count} {what}" for count, what in counts if count)
    at = f"{status.branch or 'a detached HEAD'} at {status.commit[:COMMIT_CHARS]}"
    return Uncommitted(folder, at, work) if work else None


def _refuse_other_folders(folder: Path) -> None:
    """Refuse a folder that git cannot clone from; as git does, look for a repository in its parents."""
    if _is_repository(folder):
        return
    around = next((parent for parent in folder.parents if (parent / ".git").exists()), None)
    if around is None:
        raise OperatorError(
            f"{folder} is not a Git repository: run `git init` and commit there, or submit without a repository"
        )
    inner = folder.relative_to(around)
    raise OperatorError(f"{folder} is a folder in the repository {around}: submit {around} --working-directory {inner}")


def _is_repository(folder: Path) -> bool:
    return (folder / ".git").exists() or all((folder / name).exists() for name in ("HEAD", "objects", "refs"))


def _status_of(folder: Path, environ: Mapping[str, str]) -> Status | None:
    """Ask git for the status of a working tree; None: it cannot tell, or not in time."""
    if not (folder / ".git").exists():
        return None  # a bare repository
    try:
        done = subprocess.run(  # noqa: S603 - git
            _STATUS,
            cwd=folder,
            env={name: value for name, value in environ.items() if name not in ELSEWHERE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=STATUS_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _parsed(os.fsdecode(done.stdout)) if done.returncode == 0 else None


def _parsed(output: str) -> Status:
    """Parse the output of `git status`, a line for each entry, behind which a renamed one has its old name."""
    facts: dict[str, str] = {}
    changed = untracked = 0
    entries = iter(output.split("\0"))
    for entry in entries:
        kind = entry[:1]
        if kind == "#":
            _, name, value = entry.split(" ", 2)
            facts[name] = value
        elif kind == "?":
            untracked += 1
        elif kind:
            changed += 1
            if kind == "2":
                next(entries, None)
    head, commit = facts.get("branch.head", ""), facts.get("branch.oid", "")
    return Status("" if head == "(detached)" else head, "" if commit == "(initial)" else commit, changed, untracked)
