"""Look at a workspace: finds the files below the paths that are kept, each with its stamp, and follows no link.

A file is unchanged while its stamp is: size, times of its content and of its inode, which no program can set back, and
number. A file that was changed in the same tick of the clock in which the look began has no certain stamp.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final, NamedTuple

from msgspec import Struct

from airunner.agent.artifacts.tree import Tree
from airunner.protocol.filefields import GIT_FOLDER
from airunner.protocol.printable import escaped
from airunner.protocol.savemanifest import CHECKOUT, FILES_MAX

_MODE: Final = 0o777
_PATH_CHARS_MAX: Final = 4_096


class TooMuch(Exception):
    """More than an agent saves of a workspace; the message says which bound."""


class Stamp(NamedTuple):
    """Stamp of a file: it changes with every change of the content."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Seen(Struct, frozen=True):
    """File, folder or link that was seen; a folder's path ends with `/`, and a link has a `target`."""

    path: str
    mode: int
    stamp: Stamp
    certain: bool
    target: str = ""

    @property
    def has_content(self) -> bool:
        """Whether it is a file."""
        return not self.target and not self.path.endswith("/")


class Look:
    """Look at `paths` of a workspace, whose folders `tree` opens. `left_out` says what is not kept, and why.

    `owner` is the id of the user that the job runs as, if it is another than the agent's: a file that is neither of
    this user nor without other names may be one that the job itself cannot read.
    """

    def __init__(self, tree: Tree, owner: int | None = None) -> None:
        self.seen: list[Seen] = []
        self.left_out: list[str] = []
        self._tree = tree
        self._owner = owner
        self._now_ns = _tick(tree)

    def at(self, path: str) -> None:
        """Look at a path, and at everything below it. Raises `TooMuch`."""
        folder, _, name = path.rpartition("/")
        waiting: list[str] = []
        try:
            if folder:
                waiting += self._take(folder, name)
            else:
                waiting.append(path)  # the checkout or HOME itself
        except FileNotFoundError:
            self._leave_out(path, "nothing is there")
        except NotADirectoryError:
            self._leave_out(path, "a file or a link is on its path")
        except OSError as error:
            self._leave_out(path, f"it cannot be read: {error.strerror}")
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(self._tree.folder(folder)) as entries:
                    names = sorted(entry.name for entry in entries)
            except OSError as error:
                self._leave_out(folder, f"it cannot be read: {error.strerror}")
                continue
            for name in names:
                if folder != CHECKOUT or name != GIT_FOLDER:
                    with suppress(FileNotFoundError):
                        waiting += self._take(folder, name)

    def _take(self, folder: str, name: str) -> list[str]:
        """Take one of a folder; return the folders to look at next. Raises `OSError`."""
        path = f"{folder}/{name}"
        if (problem := _path_problem(path)) is not None:
            self._leave_out(path, problem)
            return []
        descriptor = self._tree.folder(folder)
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                self._add(f"{path}/", status)
                return [path]
            case stat.S_IFLNK:
                target = os.readlink(name, dir_fd=descriptor)
                if not _is_text(target):
                    self._leave_out(path, "its target is not UTF-8")
                else:
                    self._add(path, status, target)
            case stat.S_IFREG if self._owner in (None, status.st_uid) or status.st_nlink == 1:
                self._add(path, status)
            case stat.S_IFREG:
                self._leave_out(path, "it is a hard link to another user's file")
            case _:
                self._leave_out(path, "it is no file")
        return []

    def _add(self, path: str, status: os.stat_result, target: str = "") -> None:
        stamp = Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        mode = stat.S_IMODE(status.st_mode) & _MODE
        self.seen.append(Seen(path, mode, stamp, status.st_ctime_ns < self._now_ns, target))
        if len(self.seen) > FILES_MAX:
            raise TooMuch(f"it has more than {FILES_MAX:,} files")

    def _leave_out(self, path: str, why: str) -> None:
        self.left_out.append(f"{escaped(os.fsencode(path).decode(errors='replace'))}: {why}")


def _tick(tree: Tree) -> int:
    """Return the time now by the clock of the file system, on which the stamps of files are."""
    top = tree.folder("")
    os.utime(top)
    return os.fstat(top).st_ctime_ns


def _path_problem(path: str) -> str | None:
    if not _is_text(path):
        return "its name is not UTF-8"
    return "its path is too long" if len(path) >= _PATH_CHARS_MAX else None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
