"""Workspaces are fresh, private, and wholly removable, whatever a job did in them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from math import inf
from pathlib import Path

import pytest

from airunner.agent.workspace.listening import NAME
from airunner.agent.workspace.workspace import (
    LEFTOVERS_MAX,
    WORKSPACES_FOLDER,
    Workspace,
    make_workspace,
    remove_workspace,
    remove_workspaces,
)
from airunner.agent.workspace.workspaces import Workspaces
from airunner.protocol.errors import OperatorError

NOBODY = 65_534
DEPTH = 1_200  # beyond what recursion, PATH_MAX and most limits of descriptors allow


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Root may do all, so what matters is tried as somebody else where we are root."""
    if os.geteuid() != 0:
        yield
        return
    for place in (folder, *folder.rglob("*")):
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
    for place in folder.parents:
        if place.stat().st_uid == 0 and stat.S_IMODE(place.stat().st_mode) & 0o001 == 0:
            place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o011)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def make_deep(folder: Path) -> None:
    """Folder in folder, each by the descriptor of the one above: there is no path so long."""
    above = os.open(folder, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("folder", dir_fd=above)
        below = os.open("folder", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)


def test_a_workspace_is_private_and_empty(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        workspace = make_workspace(tmp_path / "agent")
    finally:
        os.umask(before)
    assert workspace.root.is_absolute()
    for folder in (tmp_path / "agent", workspace.root, workspace.checkout, workspace.home, workspace.temporary):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(workspace.root.iterdir()) == [workspace.checkout, workspace.home, workspace.temporary]
    assert [*workspace.checkout.iterdir(), *workspace.home.iterdir(), *workspace.temporary.iterdir()] == []


def test_no_two_attempts_share_a_workspace(tmp_path: Path) -> None:
    """Not even twice the same attempt: an agent that was killed may have left one."""
    first, second = [make_workspace(tmp_path) for _ in range(2)]
    assert first.root != second.root


def test_a_home_that_cannot_be_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "agent").write_text("")
    with pytest.raises(OperatorError):
        make_workspace(tmp_path / "agent")


def test_all_is_gone_after_removal(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    (workspace.checkout / "src" / "deep").mkdir(parents=True)
    (workspace.checkout / "src" / "deep" / "file").write_text("x")
    (workspace.home / os.fsdecode(b"not \xff text")).write_text("x")
    os.mkfifo(workspace.temporary / "pipe")
    assert remove_workspace(workspace.root) == []
    assert not workspace.root.exists()
    assert (tmp_path / WORKSPACES_FOLDER).exists()


def test_removing_what_is_gone_is_no_fault(tmp_path: Path) -> None:
    assert remove_workspace(tmp_path / "nothing") == []
    assert remove_workspaces(tmp_path / "nothing") == []


def test_read_only_files_and_closed_folders_are_removed(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    folder = workspace.checkout / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "file").write_text("x")
    (folder / "file").chmod(0o400)
    with as_nobody(tmp_path / WORKSPACES_FOLDER):
        for place, mode in ((folder, 0o500), (folder.parent, 0), (workspace.checkout, 0o100), (workspace.root, 0)):
            place.chmod(mode)
        leftovers = remove_workspace(workspace.root)
    assert leftovers == []
    assert not workspace.root.exists()


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    outside.chmod(0o500)
    workspace = make_workspace(tmp_path)
    (workspace.checkout / "folder").symlink_to(outside)
    (workspace.checkout / "file").symlink_to(outside / "precious")
    (workspace.checkout / "loop").symlink_to(workspace.checkout)
    assert remove_workspace(workspace.root) == []
    assert (outside / "precious").read_text() == "x"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o500


def test_a_workspace_that_became_a_link_is_only_unlinked(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    workspace = make_workspace(tmp_path)
    workspace.root.rename(tmp_path / "moved away")
    workspace.root.symlink_to(outside)
    assert remove_workspace(workspace.root) == []
    assert not workspace.root.is_symlink()
    assert outside.is_dir()


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    make_deep(workspace.checkout)
    assert remove_workspace(workspace.root) == []
    assert not workspace.root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user")
def test_what_belongs_to_another_user_is_reported(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    (workspace.checkout / "mine" / "deep").mkdir(parents=True)
    (workspace.checkout / "mine" / "deep" / "file").write_text("x")
    with as_nobody(tmp_path / WORKSPACES_FOLDER):
        os.seteuid(0)
        theirs = workspace.checkout / "mine" / "theirs"
        theirs.mkdir()
        (theirs / "file").write_text("x")
        (workspace.checkout / "mine" / "their empty one").mkdir()
        (workspace.checkout / "their file").write_text("x")
        os.seteuid(NOBODY)
        leftovers = remove_workspace(workspace.root)
    assert [(leftover.path, leftover.why) for leftover in leftovers] == [(str(theirs), "Permission denied")]
    assert [place.name for place in workspace.root.rglob("*") if place.is_file()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user")
def test_the_report_is_bounded(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    with as_nobody(tmp_path / WORKSPACES_FOLDER):
        os.seteuid(0)
        for number in range(LEFTOVERS_MAX + 1):
            (workspace.root / str(number) / "file").mkdir(parents=True)
        os.seteuid(NOBODY)
        assert len(remove_workspace(workspace.root)) == LEFTOVERS_MAX


def test_what_a_killed_agent_left_is_removed(tmp_path: Path) -> None:
    for _ in range(2):
        workspace = make_workspace(tmp_path)
        (workspace.checkout / "file").write_text("x")
    ((tmp_path / WORKSPACES_FOLDER) / "stray").write_text("x")
    assert remove_workspaces(tmp_path) == []
    assert not any((tmp_path / WORKSPACES_FOLDER).iterdir())


def test_one_that_was_left_untouched_serves_again(tmp_path: Path) -> None:
    workspaces = Workspaces(tmp_path)
    first = workspaces.acquire()
    inode = first.root.stat().st_ino
    assert workspaces.reclaim(first)
    second = workspaces.acquire()
    assert second.root.stat().st_ino == inode
    third = workspaces.acquire()
    assert {second.root, third.root} == set((tmp_path / WORKSPACES_FOLDER).iterdir())
    assert workspaces.reclaim(second)
    assert workspaces.reclaim(third)
    workspaces.close()
    assert list((tmp_path / WORKSPACES_FOLDER).iterdir()) == []


def test_a_workspace_listens_as_long_as_it_is_used_and_forgets_who_waits(tmp_path: Path) -> None:
    workspaces = Workspaces(tmp_path)
    workspace = workspaces.acquire()
    assert workspace.listening is not None
    assert stat.S_IMODE(workspace.socket.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as waiting, chdir(workspace.root):
        waiting.connect(NAME)
        assert workspaces.reclaim(workspace)
        assert waiting.recv(1) == b""
    assert workspaces.acquire() is workspace
    with chdir(workspace.root), socket.socket(socket.AF_UNIX) as later:
        later.connect(NAME)
    assert workspaces.reclaim(workspace)
    workspaces.close()
    assert workspace.listening.fileno() == -1


def test_a_disk_without_sockets_makes_a_workspace_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airunner.agent.workspace.listening.NAME", "no/such/folder")
    workspaces = Workspaces(tmp_path)
    workspace = workspaces.acquire()
    assert workspace.listening is None
    assert workspaces.reclaim(workspace)
    assert workspaces.acquire() is workspace


def _link(workspace: Workspace) -> None:
    workspace.home.rmdir()
    workspace.home.symlink_to("/etc")


def _listen_there(workspace: Workspace) -> None:
    """As a job would that waits for what the next one asks its agent."""
    workspace.socket.unlink()
    with socket.socket(socket.AF_UNIX) as theirs, chdir(workspace.root):
        theirs.bind(NAME)


TOUCHES: dict[str, Callable[[Workspace], object]] = {
    "a file in the checkout": lambda workspace: (workspace.checkout / "file").touch(),
    "a hidden folder at home": lambda workspace: (workspace.home / ".cache").mkdir(),
    "a file beside the folders": lambda workspace: (workspace.root / "file").touch(),
    "an open folder": lambda workspace: workspace.temporary.chmod(0o777),
    "an open root": lambda workspace: workspace.root.chmod(0o755),
    "a folder less": lambda workspace: workspace.temporary.rmdir(),
    "a link instead of a folder": _link,
    "another socket": _listen_there,
    "nothing at all": lambda workspace: remove_workspace(workspace.root),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_one_that_was_touched_is_nobodys_again(
    tmp_path: Path, touch: Callable[[Workspace], object], monkeypatch: pytest.MonkeyPatch, *, old: bool
) -> None:
    workspaces = Workspaces(tmp_path)
    workspace = workspaces.acquire()
    if old:
        assert workspaces.reclaim(workspace)
        monkeypatch.setattr("airunner.agent.workspace.workspaces.monotonic", lambda: inf)
        assert workspaces.acquire() is workspace
    touch(workspace)
    assert not workspaces.reclaim(workspace)
    assert remove_workspace(workspace.root) == []
    another = workspaces.acquire()
    assert another.root.stat().st_mode == stat.S_IFDIR | 0o700
    assert workspaces.reclaim(another)
    workspaces.close()
