"""Writing of a cache: makes its files in new folders of the shelf, from pieces or from another version.

The folders are new, and in the agent's own folder: so nothing in them leads out of them, as links are made when all
files are written, and no file is written where something is already.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from airunner.agent.caches.manifest import ONE_PART, Entry
from airunner.agent.caches.scanning import Folders
from airunner.agent.workspace.jobuser import JobUser

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_FICLONE: Final = 0x40049409  # ioctl: the file has the other's blocks until one of them is changed
_NO_CLONE: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)
_COPY_BYTES: Final = 1 << 30


class Writer:
    """Writer of files below `folder`, which belong to `user`, or to the agent. Methods raise `OSError`."""

    def __init__(self, folder: Path, user: JobUser | None) -> None:
        self._folder = os.fsencode(folder)
        self._user = user
        self._clones = True

    def begin(self, entries: Iterable[Entry]) -> None:
        """Make all folders, and the files that are empty or have several parts."""
        for entry in entries:
            if entry.kind == stat.S_IFDIR:
                os.mkdir(self._place(entry), _FOLDER_MODE)  # noqa: PTH102 - bytes
            elif entry.kind == stat.S_IFREG and len(entry.parts) != ONE_PART:
                os.close(os.open(self._place(entry), _NEW, _DRAFT_MODE))

    def write(self, entry: Entry, at: int, content: bytes | memoryview) -> None:
        """Write a part of a file, or all of it if it has only one."""
        whole = len(entry.parts) == ONE_PART
        descriptor = os.open(self._place(entry), _NEW if whole else _OLD, _DRAFT_MODE)
        try:
            while content:
                written = os.pwrite(descriptor, content, at)
                content, at = content[written:], at + written
            if whole:
                self._set(descriptor, entry)
        finally:
            os.close(descriptor)

    def copy(self, entry: Entry, folders: Folders) -> None:
        """Copy a file of other folders; if the disk can, both share their blocks."""
        origin = folders.file(entry)
        try:
            descriptor = os.open(self._place(entry), _NEW, _DRAFT_MODE)
            try:
                if not (self._clones and self._clone(origin, descriptor)):
                    while os.copy_file_range(origin, descriptor, _COPY_BYTES):
                        pass
                self._set(descriptor, entry)
            finally:
                os.close(descriptor)
        finally:
            os.close(origin)

    def _clone(self, origin: int, descriptor: int) -> bool:
        try:
            fcntl.ioctl(descriptor, _FICLONE, origin)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            self._clones = False
        return self._clones

    def finish(self, entries: Sequence[Entry]) -> None:
        """Make the links; set modes and times of what was not written in one part, inner folders first."""
        for entry in reversed(entries):
            place = self._place(entry)
            if entry.kind == stat.S_IFLNK:
                os.symlink(entry.target, place)  # noqa: PTH211 - bytes
                if self._user is not None:
                    os.chown(place, self._user.uid, self._user.gid, follow_symlinks=False)
                os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        for entry in reversed(entries):
            if entry.kind == stat.S_IFDIR or (entry.kind == stat.S_IFREG and len(entry.parts) != ONE_PART):
                descriptor = os.open(self._place(entry), _READ)
                try:
                    self._set(descriptor, entry)
                finally:
                    os.close(descriptor)

    def _set(self, descriptor: int, entry: Entry) -> None:
        if self._user is not None:
            os.fchown(descriptor, self._user.uid, self._user.gid)
        os.fchmod(descriptor, stat.S_IMODE(entry.mode))
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _place(self, entry: Entry) -> bytes:
        return b"%s/%d/%s" % (self._folder, entry.place, entry.path)


def copy(entries: Sequence[Entry], source: Path, writer: Writer) -> None:
    """Copy a version with these entries from its folder. Raises `OSError`."""
    bare = [entry for entry in entries if entry.kind == stat.S_IFDIR]
    writer.begin(bare)
    with Folders(source) as folders:
        for entry in entries:
            if entry.kind == stat.S_IFREG:
                writer.copy(entry, folders)
    writer.finish([entry for entry in entries if entry.kind != stat.S_IFREG])
