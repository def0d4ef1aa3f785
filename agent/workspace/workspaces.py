"""Workspaces of one agent: made for each attempt, or reused if the attempt before has left its workspace untouched.

Most short jobs need no files, and to make and remove these folders takes longer than such a command.
Untouched means: the same folders, empty, with inodes that have not changed since they were made. In an old workspace
each change shows in an inode. In a new one a change may have the time at which the folder was made, because the
clock of a disk is coarse; so the folders are read too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from msgspec import Struct

from airunner.agent.workspace.jobuser import JobUsers
from airunner.agent.workspace.listening import NAME, listen
from airunner.agent.workspace.workspace import (
    FOLDER_MODE,
    Leftover,
    Workspace,
    clear_workspace,
    make_workspace,
)

NO_USERS: Final = JobUsers(())
OLD_S: Final = 3.0  # age of a workspace from which on each change shows: some disks count in whole seconds
_OURS: Final = stat.S_IFDIR | FOLDER_MODE
_Stamp = tuple[int, int, int]  # of a folder: mode, inode number, last change of the inode (ns)


class _Made(Struct):
    """Workspace as it was made, at `made_s` (monotonic clock); `old`: when the last attempt began."""

    paths: tuple[str, ...]  # whose change shows that it was touched: the link's folder, if any; the folders; the root
    stamps: tuple[_Stamp, ...]  # of these
    made_s: float
    socket: _Stamp | None  # of the socket at which the agent listens, and no job
    old: bool = False


class Workspaces:
    """Workspaces in `agent_home`. The caller clears a workspace that `reclaim` rejects, then calls `removed`."""

    def __init__(self, agent_home: Path, users: JobUsers = NO_USERS, bases: Sequence[Path] = ()) -> None:
        """`bases` are folders for short paths, see `shortpaths.py`."""
        self._home = agent_home
        self._users = users
        self._bases = bases
        self._unused: list[Workspace] = []
        self._made: dict[Workspace, _Made] = {}

    def acquire(self, name: str | None = None) -> Workspace:
        """Return an empty workspace that no other attempt uses or has changed, if possible one of the name `name`.

        Raises as `make_workspace`.
        """
        if (user := self._users.assign()) is not None:
            try:
                return _listening(make_workspace(self._home, user, self._bases, name))
            except BaseException:
                self._users.give_back(user)
                raise
        while self._unused and name is None:
            workspace = self._unused.pop()
            made = self._made[workspace]
            if workspace.link is None or _is_there(made):
                made.old = monotonic() - made.made_s >= OLD_S
                return workspace
            self._remove(workspace)
        workspace = _listening(make_workspace(self._home, None, self._bases, name))
        if name is not None:
            return workspace
        places = [*workspace.folders, workspace.root]
        if workspace.link is not None:
            places.insert(0, workspace.link.parent)
        paths = tuple(map(str, places))
        stamps = tuple(map(_stamp, paths))
        self._made[workspace] = _Made(paths, stamps, monotonic(), _socket_stamp(workspace))
        return workspace

    def reclaim(self, workspace: Workspace) -> bool:
        """Reclaim a workspace for a later attempt if it is untouched; return False if the caller has to clear it."""
        if workspace not in self._made:  # another user may have the next job, or another agent want its name
            _close(workspace)
            return False
        if workspace.listening is not None:
            with suppress(OSError):  # none is left: close the connections that wait, whose processes have ended
                while True:
                    workspace.listening.accept()[0].close()
        try:
            untouched = _untouched(workspace, self._made[workspace])
        except OSError:  # the job has removed a folder
            untouched = False
        if untouched:
            self._unused.append(workspace)
        else:
            del self._made[workspace]
            _close(workspace)
        return untouched

    def clear(self, workspace: Workspace) -> list[Leftover]:
        """Remove a workspace, which may take long, and return what is left. Then call `removed`."""
        return clear_workspace(workspace.root, self._bases)

    def removed(self, workspace: Workspace) -> None:
        """Note that a workspace is removed, so that its user may get another job."""
        if workspace.user is not None:
            self._users.give_back(workspace.user)

    def close(self) -> None:
        """Remove the unused workspaces."""
        while self._unused:
            self._remove(self._unused.pop())

    def _remove(self, workspace: Workspace) -> None:
        del self._made[workspace]
        _close(workspace)
        self.clear(workspace)


def _listening(workspace: Workspace) -> Workspace:
    """Have a workspace listen at its socket."""
    workspace.listening = listen(workspace.root, workspace.user)
    return workspace


def _close(workspace: Workspace) -> None:
    """Close the socket of a workspace: nothing listens there any more."""
    if workspace.listening is not None:
        workspace.listening.close()


def _is_there(made: _Made) -> bool:
    """Whether the link is untouched: /tmp may be emptied of what is old, also while a workspace waits for a job."""
    try:
        return _stamp(made.paths[0]) == made.stamps[0]
    except OSError:
        return False


def _untouched(workspace: Workspace, made: _Made) -> bool:
    """Return whether a workspace is unchanged since it was made. Raises `OSError`."""
    stamps = tuple(map(_stamp, made.paths))
    if made.old and stamps == made.stamps:
        return True
    if stamps[:-1] != made.stamps[:-1] or any(any(os.scandir(folder)) for folder in workspace.folders):
        return False
    # The agent puts files into the root, so the last change of its inode shows nothing.
    entries = len(workspace.folders) + (made.socket is not None)
    ours = len(list(os.scandir(workspace.root))) == entries and _socket_stamp(workspace) == made.socket
    return ours and stamps[-1][0] == _OURS


def _socket_stamp(workspace: Workspace) -> _Stamp | None:
    return None if workspace.listening is None else _stamp(str(workspace.root / NAME))


def _stamp(path: str) -> _Stamp:
    status = os.lstat(path)
    return status.st_mode, status.st_ino, status.st_ctime_ns
