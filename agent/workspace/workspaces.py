"""Workspaces of one agent: made for each attempt, or reused if the attempt before has left its workspace untouched.

Most short jobs need no files, and to make and remove four folders takes longer than such a command; to rename a folder
takes almost no time. Untouched means: the same folders, empty, with inodes that have not changed since they were made.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from airunner.agent.workspace.jobuser import JobUsers
from airunner.agent.workspace.workspace import (
    FOLDER_MODE,
    Workspace,
    WorkspaceFailed,
    fresh_root,
    make_workspace,
    remove_workspace,
)

NO_USERS: Final = JobUsers(())
UNUSED: Final = "unused"  # stands for the job id in the name of a workspace that waits for its next job

_OURS: Final = stat.S_IFDIR | FOLDER_MODE
_Stamp = tuple[int, int, int]  # of a folder: mode, inode number, last change of the inode (ns)


class Workspaces:
    """Workspaces in `agent_home`. The caller removes a workspace that `reclaim` rejects, then calls `removed`."""

    def __init__(self, agent_home: Path, users: JobUsers = NO_USERS) -> None:
        self._home = agent_home
        self._users = users
        self._unused: list[Workspace] = []
        self._stamps: dict[Workspace, tuple[_Stamp, ...]] = {}  # of each workspace's folders, when they were made

    def acquire(self, job_id: str, attempt: int) -> Workspace:
        """Return an empty workspace that no other attempt uses or has changed. Raises as `make_workspace`."""
        if (user := self._users.assign()) is not None:
            try:
                return make_workspace(self._home, job_id, attempt, user)
            except BaseException:
                self._users.give_back(user)
                raise
        if self._unused:
            unused = self._unused.pop()
            workspace = Workspace(fresh_root(self._home, job_id, attempt))
            try:
                unused.root.rename(workspace.root)
            except OSError as error:
                raise WorkspaceFailed(f"cannot rename the workspace {unused.root}", error) from error
            self._stamps[workspace] = self._stamps.pop(unused)
        else:
            workspace = make_workspace(self._home, job_id, attempt)
            self._stamps[workspace] = tuple(_stamp(folder) for folder in workspace.folders)
        return workspace

    def reclaim(self, workspace: Workspace) -> bool:
        """Reclaim a workspace for a later attempt if it is untouched; return False if the caller has to remove it."""
        if workspace.user is not None:  # another user may have the next job
            return False
        stamps = self._stamps.pop(workspace)
        try:
            if not _untouched(workspace, stamps):
                return False
            kept = Workspace(fresh_root(self._home, UNUSED, len(self._unused)))
            workspace.root.rename(kept.root)
        except OSError:  # the job has removed a folder
            return False
        self._unused.append(kept)
        self._stamps[kept] = stamps
        return True

    def removed(self, workspace: Workspace) -> None:
        """Note that a workspace is removed, so that its user may get another job."""
        if workspace.user is not None:
            self._users.give_back(workspace.user)

    def close(self) -> None:
        """Remove the unused workspaces."""
        while self._unused:
            remove_workspace(self._unused.pop().root)


def _untouched(workspace: Workspace, stamps: tuple[_Stamp, ...]) -> bool:
    """Return whether a workspace is unchanged since it was made. Raises `OSError`."""
    folders = workspace.folders
    if tuple(_stamp(folder) for folder in folders) != stamps or any(any(os.scandir(folder)) for folder in folders):
        return False
    return len(list(os.scandir(workspace.root))) == len(folders) and _stamp(workspace.root)[0] == _OURS


def _stamp(folder: Path) -> _Stamp:
    status = os.lstat(folder)
    return status.st_mode, status.st_ino, status.st_ctime_ns
