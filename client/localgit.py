"""Git on this machine: runs git in a repository as the user would there, but without hooks and monitors.

Beside a repository it works on a copy of the index, and writes objects to a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from airunner.protocol.errors import EXIT_WRONG_STATE, OperatorError

ELSEWHERE: Final = frozenset(
    {
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX"),
    }
)
"""Variables that point git to another repository; a git hook has them, for example."""

_QUIET: Final = (
    *("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.safecrlf=false"),
    *("-c", "pack.threads=1", "-c", "advice.addEmbeddedRepo=false"),  # with several threads packs differ each time
)


def repository_around(folder: Path, environ: Mapping[str, str], failing: str) -> LocalGit:
    """Return git in the working tree around a folder; errors begin with what is `failing`. Raises `OperatorError`."""
    git = LocalGit(folder, {name: value for name, value in environ.items() if name not in ELSEWHERE}, failing)
    return git.at(Path(git.text("rev-parse", "--show-toplevel")))


class LocalGit:
    """Git in a folder. Its methods raise `OperatorError` if git fails, with git's own words behind `failing`."""

    def __init__(self, folder: Path, environ: Mapping[str, str], failing: str) -> None:
        self.folder = folder
        self._failing = failing
        self._environ = {**environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}

    def at(self, folder: Path) -> LocalGit:
        """Return git in another folder."""
        return LocalGit(folder, self._environ, self._failing)

    def with_environ(self, more: Mapping[str, str]) -> LocalGit:
        """Return git with more variables."""
        return LocalGit(self.folder, {**self._environ, **more}, self._failing)

    def beside(self, scratch: Path) -> LocalGit:
        """Return git that works on a copy of the index, and writes objects to a new folder; both are in `scratch`."""
        objects, index = scratch / "objects", scratch / "index"
        objects.mkdir()
        present = self.folder / self.text("rev-parse", "--git-path", "index")
        if present.exists():
            shutil.copy2(present, index)  # with its time, by which git knows whether a file may have changed since
        alternate = str(self.folder / self.text("rev-parse", "--git-path", "objects"))
        quoted = alternate.replace("\\", "\\\\").replace('"', '\\"')
        return self.with_environ(
            {
                "GIT_INDEX_FILE": str(index),
                "GIT_OBJECT_DIRECTORY": str(objects),
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
            }
        )

    def end(
        self,
        *words: str,
        given: bytes = b"",
        stdin: IO[bytes] | None = None,
        out: IO[bytes] | int = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git to its end, whatever that is; `given` or the rest of the file `stdin` is its input."""
        try:
            return subprocess.run(  # noqa: S603 - git, with words of ours
                ["git", *_QUIET, *words],  # noqa: S607 - the user's
                cwd=self.folder,
                env=self._environ,
                stdin=stdin,
                input=given if stdin is None else None,
                stdout=out,
                stderr=subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise self.refused(f"git cannot be run in {self.folder}: {error.strerror}") from error

    def run(
        self,
        *words: str,
        given: bytes = b"",
        stdin: IO[bytes] | None = None,
        out: IO[bytes] | int = subprocess.PIPE,
        codes: Sequence[int] = (0,),
    ) -> bytes:
        """Run git; return its output. It fails unless its exit code is one of `codes`."""
        done = self.end(*words, given=given, stdin=stdin, out=out)
        if done.returncode not in codes:
            raise self.refused(words_of(done.stderr) or f"git {words[0]} failed")
        return done.stdout or b""

    def text(self, *words: str, codes: Sequence[int] = (0,)) -> str:
        """Run git; return its output without the last newline."""
        return os.fsdecode(self.run(*words, codes=codes)).rstrip("\n")

    def names(self, *words: str, codes: Sequence[int] = (0,)) -> list[str]:
        """Run git; return the entries of its output, each of which ends with a NUL."""
        return os.fsdecode(self.run(*words, codes=codes)).split("\0")[:-1]

    def refuse_conflicts(self) -> None:
        """Refuse a working tree in which conflicts are not resolved yet."""
        if unmerged := self.names("ls-files", "--unmerged", "-z"):
            name = unmerged[0].split("\t", 1)[1]
            raise self.refused(f"{name} has conflicts: resolve them, and `git add` it")

    def refused(self, why: str) -> OperatorError:
        """Make the error that says why not."""
        return OperatorError(f"{self._failing}: {why}", exit_code=EXIT_WRONG_STATE)


def words_of(stderr: bytes) -> str:
    """Return in a line what git says about its failure."""
    said = [line for line in os.fsdecode(stderr).splitlines() if not line.startswith("hint:")]
    fatal = next((line for line in said if line.startswith(("fatal:", "error:"))), "".join(said[-1:]))
    return fatal.partition(": ")[2] or fatal
