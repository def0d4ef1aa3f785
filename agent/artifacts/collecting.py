"""Collecting of artifacts: finds what is kept of the checkout, and never leaves it.

Of what the globs name, files are kept with their modes, folders if they are empty, and symbolic links as links, if they
lead to a place below the checkout whatever other links are kept. All else is left out, and the log says so: sockets,
devices, pipes, names that are not UTF-8, and what cannot be read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from airunner.agent.artifacts.globs import Globs, Places
from airunner.agent.artifacts.tree import Tree
from airunner.agent.launcher.refusal import refusal_in
from airunner.protocol.artifactpaths import link_problem, path_problem
from airunner.protocol.printable import escaped

FILES_MAX: Final = 100_000  # of one job
NAMED_MAX: Final = 20  # paths that one line of the log names
_MODE: Final = 0o777
_KINDS: Final = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class Found(Struct, frozen=True):
    """Found file, folder or link: its path, which ends with `/` for a folder; a link has a `target`."""

    path: str
    mode: int
    size_bytes: int = 0
    target: str = ""

    @property
    def has_content(self) -> bool:
        """Whether it is a file."""
        return not self.target and not self.path.endswith("/")


class Collection(Struct):
    """Collection of what was found, sorted by path; of what is left out, in words; and of patterns without a match."""

    found: list[Found]
    left_out: list[str]
    unmatched: list[str]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(found.size_bytes for found in self.found)


class TooManyArtifacts(Exception):
    """More artifacts than an agent keeps of one job; the message says which bound."""


def collect(tree: Tree, patterns: tuple[str, ...], bytes_max: int, owner: int | None = None) -> Collection:
    """Find what the patterns name. Raises `TooManyArtifacts`; `OSError`: the machine cannot read the checkout.

    `owner` is the id of the user that the job runs as, if it is another than the agent's: a file that is neither of
    this user nor without other names may be one that the job itself cannot read.
    """
    collector = _Collector(tree, Globs(patterns), owner)
    collector.run()
    left_out = sorted(collector.left_out)
    unmatched = [pattern for number, pattern in enumerate(patterns) if number not in collector.matched]
    collection = Collection(collector.kept(), left_out, unmatched)
    if collection.size_bytes > bytes_max:
        raise TooManyArtifacts(too_large(bytes_max))
    return collection


def too_many() -> str:
    """Return why more than `FILES_MAX` artifacts are not kept."""
    return f"they are more than {FILES_MAX:,} files"


def too_large(bytes_max: int) -> str:
    """Return why artifacts of more than `bytes_max` bytes are not kept."""
    return f"they have more than {bytes_max / (1 << 30):g} GiB, which `airunner agent --artifact-gib` allows"


class _Collector:
    def __init__(self, tree: Tree, globs: Globs, owner: int | None) -> None:
        self._tree = tree
        self._globs = globs
        self._owner = owner
        self._found: list[Found] = []
        self._folders: dict[str, Found] = {}  # that are named, by their paths without the last `/`
        self.left_out: list[str] = []
        self.matched: set[int] = set()

    def run(self) -> None:
        """Look at each folder in which the patterns may name something."""
        waiting = [("", self._globs.top)]
        while waiting:
            path, places = waiting.pop()
            try:
                waiting += self._look(path, places)
            except OSError as error:
                if not path or not _concerns_file(error):
                    raise
                self._leave_out(path, f"it cannot be read: {error.strerror}")

    def kept(self) -> list[Found]:
        """Return what is kept, sorted by path: of folders only those in which nothing else is."""
        filled: set[str] = set()
        for found in [*self._found, *self._folders.values()]:
            path = found.path.rstrip("/")
            while path := path.rpartition("/")[0]:
                if path in filled:
                    break
                filled.add(path)
        empty = (found for path, found in self._folders.items() if path not in filled)
        return sorted([*self._found, *empty], key=lambda found: found.path)

    def _look(self, folder: str, places: Places) -> list[tuple[str, Places]]:
        """Look at what is in a folder, and return the folders to look at next."""
        inner: list[tuple[str, Places]] = []
        with os.scandir(self._tree.folder(folder)) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                there = self._globs.below(places, entry.name, folder=is_folder)
                matched = self._globs.matched(there)
                if not there or not (is_folder or matched):
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if (problem := path_problem(path)) is not None:
                    self._leave_out(path, problem)
                    continue
                if is_folder:
                    inner.append((path, there))
                if matched:
                    self._take(path, entry.stat(follow_symlinks=False), matched, entry.name)
        return inner

    def _take(self, path: str, status: os.stat_result, matched: set[int], name: str) -> None:
        mode = stat.S_IMODE(status.st_mode) & _MODE
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                self._folders[path] = Found(f"{path}/", mode)
            case stat.S_IFLNK:
                folder = self._tree.folder(path.rpartition("/")[0])
                target = os.readlink(name, dir_fd=folder)
                if (problem := link_problem(path, target)) is not None:
                    return self._leave_out(path, problem)
                self._add(Found(path, mode, target=target))
            case stat.S_IFREG:
                if self._owner not in (None, status.st_uid) and status.st_nlink > 1:
                    return self._leave_out(path, "it is a hard link to another user's file")
                self._add(Found(path, mode, status.st_size))
            case kind:
                return self._leave_out(path, f"it is {_KINDS.get(kind, 'no file')}")
        self.matched |= matched
        return None

    def _add(self, found: Found) -> None:
        self._found.append(found)
        if len(self._found) > FILES_MAX:
            raise TooManyArtifacts(too_many())

    def _leave_out(self, path: str, why: str) -> None:
        self.left_out.append(f"{escaped(os.fsencode(path).decode(errors='replace'))}: {why}")


def _concerns_file(error: OSError) -> bool:
    """Return whether a file cannot be read because of what it is, and not because of the machine."""
    return refusal_in(error) is None


def reading(tree: Tree, collection: Collection, bytes_max: int) -> Iterator[tuple[Found, Iterator[bytes]]]:
    """Yield what was found, each with its content in chunks; a file that cannot be opened is left out.

    Raises `TooManyArtifacts`: files have grown beyond `bytes_max` meanwhile; `OSError`: the machine cannot read a file.
    """
    left_bytes = bytes_max

    def counted(chunks: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal left_bytes
        for chunk in chunks:
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise TooManyArtifacts(too_large(bytes_max))
            yield chunk

    for found in collection.found:
        if not found.has_content:
            yield found, iter(())
            continue
        try:
            chunks = tree.chunks(found.path)
        except OSError as error:
            if not _concerns_file(error):
                raise
            collection.left_out.append(f"{escaped(found.path)}: it cannot be read: {error.strerror}")
        else:
            yield found, counted(chunks)
