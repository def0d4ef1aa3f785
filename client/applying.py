"""Applying of changes that a job has returned: brings its commit into the repository of this folder.

```
 bundles of the job ──► side objects ──► commit and its parent ──► patch ──git apply --3way──► working tree
                          (a folder)                                            └── side index, as the files are
```

git applies the patch with an index beside the repository's, in which each file that the job changed is as it is in the
working tree. So the changes come as if the job's command had been run here: they are not staged. Only a conflict is
written to the repository's index, as after a merge, so that git's own commands resolve it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from airunner.client.localgit import LocalGit, repository_around, words_of

FAILING: Final = "the changes cannot be applied"
HEAD_BYTES_MAX: Final = 65_536  # of a bundle: its signature, and a line for each base
HASH_CHARS: Final = 10
_GITLINK: Final = "160000"
_PATCH: Final = ("diff-tree", "--patch", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv")
_NAMED_MAX: Final = 3


class Applied(Struct, frozen=True):
    """Result of applying: how many files were changed, and git's own words if there are `conflicts` among them.

    `submodules` are those whose commit the job has changed, which is not applied.
    """

    files: int
    conflicts: str = ""
    submodules: tuple[str, ...] = ()


class _Change(Struct, frozen=True):
    """Change of one path."""

    path: str
    is_submodule: bool


class Changes:
    """Changes of a job, as the commit `commit` on top of `base`: they are read with `side`, a git beside `git`."""

    def __init__(self, git: LocalGit, side: LocalGit, scratch: Path, commit: str) -> None:
        self._git = git
        self._side = side
        self._scratch = scratch
        self.commit = commit
        self.base = side.text("rev-parse", "--verify", "--quiet", f"{commit}^")

    def apply(self, *, check: bool) -> Applied:
        """Apply the changes to the working tree; to `check` changes nothing, and returns the same.

        Raises `OperatorError`, and nothing is changed: a file has uncommitted changes that the job did not have, or git
        refuses.
        """
        self._git.refuse_conflicts()
        changed = self._changed()
        submodules = tuple(each.path for each in changed if each.is_submodule)
        paths = [each.path for each in changed if not each.is_submodule]
        modes = {path: self._mode(path) for path in paths}
        folders = [path for path, mode in modes.items() if stat.S_ISDIR(mode)]
        absent = {path for path, mode in modes.items() if not mode}.union(folders)
        self._update(absent, "--force-remove")
        self._update(modes.keys() - absent, "--add", "--remove", "--ignore-skip-worktree-entries")
        missing = set(paths) & self._differing(self.commit)
        self._refuse_dirty(missing, {kept for folder in folders for kept in self._kept_in(folder, modes)})
        if not missing:
            return Applied(0, submodules=submodules)
        patch = self._scratch / "patch"
        with patch.open("wb") as file:
            self._side.run(*_PATCH, "--ignore-submodules=all", self.base, self.commit, out=file)
        cached = ("--cached",) if check else ()
        done = self._side.end("apply", "--3way", "--whitespace=nowarn", *cached, "--", str(patch))
        unmerged = self._side.run("ls-files", "--unmerged", "-z")
        if done.returncode and not unmerged:
            raise self._git.refused(words_of(done.stderr))
        if unmerged and not check:
            self._leave_conflicts(unmerged)
        said = os.fsdecode(done.stderr).strip() if unmerged else ""
        return Applied(len(missing), said, submodules)

    def write_patch(self, file: IO[bytes]) -> None:
        """Write the changes as a patch, which `git am` and `git apply` read."""
        self._side.run(*_PATCH, "--pretty=email", self.commit, out=file)

    def _mode(self, path: str) -> int:
        """Return type and mode of what is at a path of the working tree; 0: nothing, or a link leads there."""
        place = self._git.folder / path
        above = place.parent
        while above != self._git.folder:
            if above.is_symlink():
                return 0
            above = above.parent
        try:
            return place.lstat().st_mode
        except OSError:
            return 0

    def _update(self, paths: Iterable[str], *how: str) -> None:
        """Set paths in the side index."""
        names = "".join(f"{path}\0" for path in paths)
        self._side.run("update-index", *how, "-z", "--stdin", given=os.fsencode(names))

    def _changed(self) -> list[_Change]:
        entries = self._side.names("diff-tree", "-r", "-z", "--no-renames", self.base, self.commit)
        return [
            _Change(path, _GITLINK in facts.removeprefix(":").split(" ")[:2])
            for facts, path in zip(entries[::2], entries[1::2], strict=True)
        ]

    def _differing(self, commit: str) -> set[str]:
        """Return the paths at which the side index differs from a commit."""
        return set(self._side.names("diff-index", "--cached", "--name-only", "-z", "--no-renames", commit, "--"))

    def _kept_in(self, path: str, changed: Container[str]) -> Iterator[str]:
        """Yield what is in a folder that the job has replaced by a file, and is not changed by the job."""
        for folder, folders, files in os.walk(self._git.folder / path):
            inner = Path(folder).relative_to(self._git.folder)
            links = [name for name in folders if (self._git.folder / inner / name).is_symlink()]
            names = [str(inner / name) for name in [*files, *links]]
            yield from (name for name in names if name not in changed)
            if not folders and not files:
                yield str(inner)

    def _refuse_dirty(self, paths: set[str], kept: set[str]) -> None:
        """Refuse files that are neither as the job found them, nor as they were committed, and those to be `kept`."""
        dirty = paths & self._differing(self.base)
        if dirty:
            head = self._side.text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", codes=(0, 1))
            dirty = dirty & self._differing(head) if head else dirty
        if dirty := dirty | kept:
            names = sorted(dirty)
            more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
            verb = "has" if len(names) == 1 else "have"
            shown = f"{', '.join(names[:_NAMED_MAX])}{more} {verb}"
            raise self._git.refused(f"{shown} changes here that the job did not have: commit or stash them first")

    def _leave_conflicts(self, unmerged: bytes) -> None:
        """Write the conflicts of the side index into the repository's own, with the contents that they name."""
        lines: dict[str, list[str]] = {}
        for entry in os.fsdecode(unmerged).split("\0")[:-1]:
            facts, _, path = entry.partition("\t")
            mode, blob, _ = facts.split(" ")
            if mode != _GITLINK:
                self._git.run("hash-object", "-w", "--stdin", given=self._side.run("cat-file", "blob", blob))
            lines.setdefault(path, [f"0 {'0' * len(blob)}\t{path}"]).append(entry)
        listing = "".join(f"{line}\0" for entries in lines.values() for line in entries)
        self._git.run("update-index", "-z", "--index-info", given=os.fsencode(listing))


@contextmanager
def changes_here(
    folder: Path, environ: Mapping[str, str], commit: str, bundles: Sequence[Path], repository: str
) -> Generator[Changes]:
    """Read the changes of a job beside the repository around `folder`.

    `bundles` are in the order in which they need each other. Raises `OperatorError`: it is no repository, or not the
    job's, which is cloned from the address `repository`.
    """
    git = repository_around(folder, environ, FAILING)
    with tempfile.TemporaryDirectory(prefix="airunner-apply-") as name:
        scratch = Path(name)
        side = git.beside(scratch)
        _unbundle(git, side, bundles, repository)
        yield Changes(git, side, scratch, commit)


def make_branch(
    folder: Path, environ: Mapping[str, str], branch: str, commit: str, bundles: Sequence[Path], repository: str
) -> None:
    """Make a branch with the changes of a job as its last commit. Raises `OperatorError`."""
    git = repository_around(folder, environ, "the branch cannot be made")
    git.run("check-ref-format", "--branch", branch)
    if git.text("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", codes=(0, 1)):
        raise git.refused(f"a branch {branch} exists: give another name, or remove it with `git branch -D {branch}`")
    _unbundle(git, git, bundles, repository)
    git.run("branch", "--no-track", "--", branch, commit)


def _unbundle(git: LocalGit, into: LocalGit, bundles: Iterable[Path], repository: str) -> None:
    """Store the objects of bundles."""
    for bundle in bundles:
        with bundle.open("rb") as file:
            head, _, _ = file.read(HEAD_BYTES_MAX).partition(b"\n\n")
            for line in os.fsdecode(head).splitlines():
                base = line[1:].partition(" ")[0]
                if line.startswith("-") and into.end("cat-file", "-e", f"{base}^{{commit}}").returncode:
                    raise git.refused(
                        f"this repository lacks the commit {base[:HASH_CHARS]} on which the job ran: `git fetch`, or "
                        f"go to a clone of {repository}"
                    )
            os.lseek(file.fileno(), len(head) + 2, os.SEEK_SET)
            into.run("index-pack", "--stdin", "--fix-thin", stdin=file)
