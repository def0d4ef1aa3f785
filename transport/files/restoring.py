"""Restorer of files: writes the files of a job into a folder, and never outside of it.

Paths and targets of links are those of the job, so they are not trusted. All are checked before anything is written: a
path has plain names only, no file or link is in place of a folder, and no link leads out of the folder. While files are
written each folder is opened below the one before it without following a link (`openat`, `O_NOFOLLOW`), so that what
changes meanwhile leads nowhere else. A file is written under another name beside its own, and renamed when it is whole.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from airunner.protocol.errors import EXIT_IO, EXIT_WRONG_STATE, OperatorError
from airunner.protocol.printable import one_line

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DRAFT: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Restored(Protocol):
    """File, folder or link that is restored: its path, mode and, of a link, its target; None: its time is not known."""

    @property
    def path(self) -> str: ...  # noqa: D102 - see the class
    @property
    def kind(self) -> str: ...  # noqa: D102 - `file`, `folder` or `link`
    @property
    def mode(self) -> int: ...  # noqa: D102 - see the class
    @property
    def target(self) -> str: ...  # noqa: D102 - see the class
    @property
    def mtime_ns(self) -> int | None: ...  # noqa: D102 - of its last change


class Part(NamedTuple):
    """Part of a file's content; `ended`: it is the last."""

    file: Restored
    content: bytes
    ended: bool


def names_of(path: str) -> tuple[str, ...]:
    """Split a path into names. Raises `OperatorError`: it is none below a folder."""
    names = tuple(path.removesuffix("/").split("/"))
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise OperatorError(f"the path {one_line(path)} leads out of the folder", exit_code=EXIT_WRONG_STATE)
    return names


def leads_out(path: str, target: str) -> bool:
    """Return whether a link at `path` with this target leads out of the folder, or may do so.

    A `..` behind a name may: the name may be another link, and then the folder above it is not the one that is read.
    """
    names = [name for name in target.split("/") if name not in ("", ".")]
    ups = names.count("..")
    return target.startswith("/") or "\0" in target or ups > path.count("/") or ".." in names[ups:]


def parents_of(names: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the folders in which a path is."""
    return ("/".join(names[:depth]) for depth in range(1, len(names)))


class Restorer:
    """Restorer of files in `folder`; `files` and `size_bytes` count what is written. Any thread may call it.

    What is made gets the `owner`, a user and a group, if they are given. `free_links`: a link may lead anywhere, as in
    a workspace; it is not followed here either.
    """

    def __init__(self, folder: Path, owner: tuple[int, int] | None = None, *, free_links: bool = False) -> None:
        self.files = 0
        self.size_bytes = 0
        self._owner = owner
        self._free_links = free_links
        self._root = folder
        self._parents: tuple[str, ...] | None = None  # names of the folder that is open
        self._parent: int | None = None  # its descriptor
        self._draft: int | None = None  # descriptor of the file that is being written
        self._draft_name = ""
        self._made: set[str] = set()  # folders that did not exist
        self._folders: list[Restored] = []

    def check(self, files: Sequence[Restored]) -> None:
        """Check all files before any is written. Raises `OperatorError`."""
        if self._root.exists() and not self._root.is_dir():
            raise OperatorError(f"{self._root} is no folder", exit_code=EXIT_IO)
        found = [(file, names_of(file.path)) for file in files]
        leaves = {"/".join(names) for file, names in found if file.kind != "folder"}
        folders: set[str] = set()
        for file, names in found:
            if file.kind == "link" and not self._free_links and leads_out(file.path, file.target):
                words = f"{one_line(file.path)} is a link to {one_line(file.target)}, which leads out of the folder"
                raise OperatorError(words, exit_code=EXIT_WRONG_STATE)
            within = [*parents_of(names), *(["/".join(names)] if file.kind == "folder" else [])]
            if inside := next((each for each in within if each in leaves), None):
                words = f"{one_line(file.path)}: {one_line(inside)} is a file or a link of the job, and no folder"
                raise OperatorError(words, exit_code=EXIT_WRONG_STATE)
            folders.update(within)
        self._check_existing(sorted(folders), sorted(leaves))

    def _check_existing(self, folders: Iterable[str], leaves: Iterable[str]) -> None:
        for path in folders:
            mode = self._mode(path)
            if mode and not stat.S_ISDIR(mode):
                what = "a link, which is never followed" if stat.S_ISLNK(mode) else "no folder"
                raise OperatorError(f"{self._shown(path)} is {what}: remove it first", exit_code=EXIT_IO)
        for path in leaves:
            if stat.S_ISDIR(self._mode(path)):
                raise OperatorError(f"{self._shown(path)} is a folder: remove it first", exit_code=EXIT_IO)

    def _mode(self, path: str) -> int:
        """Return type and mode of what exists at a path; 0: nothing."""
        try:
            return os.lstat(self._root / path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise self._failed(path, error) from error

    def write(self, portion: Iterable[Part]) -> None:
        """Write the next parts of files. Raises `OperatorError`."""
        for part in portion:
            with self._blaming(part.file.path):
                if part.file.kind == "file":
                    self._write_part(part)
                elif part.file.kind == "link":
                    self._make_link(part.file)
                else:
                    self._open_folder(names_of(part.file.path))
                    self._folders.append(part.file)
            self.size_bytes += len(part.content)
            self.files += part.ended

    def _write_part(self, part: Part) -> None:
        names = names_of(part.file.path)
        parent = self._open_folder(names[:-1])
        if self._draft is None:
            self._draft_name = f".airunner-{secrets.token_hex(8)}"
            self._draft = os.open(self._draft_name, _DRAFT, 0o600, dir_fd=parent)
        rest = memoryview(part.content)
        while rest:
            rest = rest[os.write(self._draft, rest) :]
        if part.ended:
            self._give(self._draft)
            os.fchmod(self._draft, part.file.mode)
            if part.file.mtime_ns is not None:
                os.utime(self._draft, ns=(part.file.mtime_ns, part.file.mtime_ns))
            os.rename(self._draft_name, names[-1], src_dir_fd=parent, dst_dir_fd=parent)
            os.close(self._draft)
            self._draft = None

    def _make_link(self, file: Restored) -> None:
        *parents, name = names_of(file.path)
        parent = self._open_folder(tuple(parents))
        draft = f".airunner-{secrets.token_hex(8)}"
        os.symlink(file.target, draft, dir_fd=parent)
        try:
            if self._owner is not None:
                os.chown(draft, *self._owner, dir_fd=parent, follow_symlinks=False)
            if file.mtime_ns is not None:
                os.utime(draft, ns=(file.mtime_ns, file.mtime_ns), dir_fd=parent, follow_symlinks=False)
            os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            os.unlink(draft, dir_fd=parent)
            raise

    def _open_folder(self, names: tuple[str, ...]) -> int:
        """Open a folder, and make those that do not exist; return its descriptor, which the next call closes."""
        if self._parent is not None and names == self._parents:
            return self._parent
        self._close_parent()
        self._parents = None
        self._root.mkdir(parents=True, exist_ok=True)
        self._parent = os.open(self._root, _FOLDER)
        for depth, name in enumerate(names, start=1):
            made = False
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._parent)
                self._made.add("/".join(names[:depth]))
                made = True
            outer = self._parent
            self._parent = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=outer)
            os.close(outer)
            if made:
                self._give(self._parent)
        self._parents = names
        return self._parent

    def finish(self) -> None:
        """Set modes and times of the folders that were made, inner ones first. Raises `OperatorError`."""
        for folder in sorted(self._folders, key=lambda each: each.path, reverse=True):
            with self._blaming(folder.path):
                if folder.path.rstrip("/") in self._made:
                    descriptor = self._open_folder(names_of(folder.path))
                    os.fchmod(descriptor, folder.mode)
                    if folder.mtime_ns is not None:
                        os.utime(descriptor, ns=(folder.mtime_ns, folder.mtime_ns))

    def _give(self, descriptor: int) -> None:
        if self._owner is not None:
            os.fchown(descriptor, *self._owner)

    def close(self) -> None:
        """Remove what is written of a file that is not whole, and close the folder."""
        if self._draft is not None:
            os.close(self._draft)
            self._draft = None
            with suppress(OSError):
                os.unlink(self._draft_name, dir_fd=self._parent)
        self._close_parent()

    def _close_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent)
            self._parent = None

    def _shown(self, path: str) -> str:
        return one_line(str(self._root / path))

    @contextmanager
    def _blaming(self, path: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(path, error) from error

    def _failed(self, path: str, error: OSError) -> OperatorError:
        return OperatorError(f"cannot write {self._shown(path)}: {error.strerror}", exit_code=EXIT_IO)
