"""Placing of folders: moves the folders of a cache to their paths in a workspace, and back.

A folder is moved, not copied: `rename` takes the same time for any number of files. What a job has left is not trusted:
each folder on a path is opened below the one before it, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from airunner.agent.workspace.jobuser import JobUser
from airunner.agent.workspace.workspace import FOLDER_MODE, Workspace

HOME: Final = "~"
_PARENT_MODE: Final = 0o755
_FOLDER: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY: Final = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


class NotPlaced(Exception):
    """Failure to move a folder because of what the job or its repository has there; the message says why."""


def put(folder: Path, workspace: Workspace, path: str) -> None:
    """Move `folder` to the path of a cache in a workspace. Raises `NotPlaced`; `OSError`."""
    anchor, parents, name = _names(workspace, path)
    try:
        parent = _open(anchor, parents, workspace.user, make=True)
        try:
            os.rename(folder, name, dst_dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise NotPlaced(f"{path} exists already, and is no empty folder") from error
        raise


def take(workspace: Workspace, path: str, folder: Path) -> bool:
    """Move what is at the path of a cache to `folder`, unless nothing is there. Raises `NotPlaced`; `OSError`."""
    anchor, parents, name = _names(workspace, path)
    uid = os.geteuid() if workspace.user is None else workspace.user.uid
    try:
        parent = _open(anchor, parents, None, make=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        place = os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)
        try:
            if os.fstat(place).st_uid != uid:
                raise NotPlaced(f"{path} belongs to another user")
            if not os.fstat(place).st_mode & stat.S_IWUSR:  # a folder that is read-only cannot be moved
                Path(f"/proc/self/fd/{place}").chmod(FOLDER_MODE)
            os.rename(name, folder, src_dir_fd=parent)
            if folder.lstat().st_ino != os.fstat(place).st_ino:
                raise NotPlaced(f"{path} was replaced meanwhile")
        finally:
            os.close(place)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise NotPlaced(f"{path} is no folder") from error
        raise
    finally:
        os.close(parent)
    return True


def _names(workspace: Workspace, path: str) -> tuple[Path, list[str], str]:
    """Return the folder to which a path is relative, the names of the folders on it, and the last name."""
    *parents, name = path.split("/")
    if parents and parents[0] == HOME:
        return workspace.root / "home", parents[1:], name
    return workspace.checkout, parents, name


def _open(anchor: Path, names: Sequence[str], owner: JobUser | None, *, make: bool) -> int:
    """Open the folder below `anchor`, and make what is missing. Raises `OSError`."""
    folder = os.open(anchor, _FOLDER | os.O_RDONLY)
    for name in names:
        outer = folder
        try:
            made = False
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, _PARENT_MODE, dir_fd=outer)
                    made = True
            folder = os.open(name, _FOLDER | os.O_RDONLY, dir_fd=outer)
            if made and owner is not None:
                os.fchown(folder, owner.uid, owner.gid)
        finally:
            os.close(outer)
    return folder
