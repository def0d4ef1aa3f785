"""Placing of a cache's folders: where they come in a workspace, and that nothing of a job leads the agent elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.agent.caches.placing import NotPlaced, put, take
from airunner.agent.workspace.workspace import Workspace, make_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "agent")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / "file").write_text("content")
    return folder


@pytest.mark.parametrize(("path", "place"), [("~/.cache/go", "home/.cache/go"), ("a/b", "checkout/a/b")])
@pytest.mark.parametrize("mode", [0o755, 0o555])
def test_a_folder_is_put_at_its_path_and_taken_back(
    workspace: Workspace, folder: Path, path: str, place: str, mode: int
) -> None:
    inode = folder.stat().st_ino
    put(folder, workspace, path)
    assert (workspace.root / place / "file").read_text() == "content"
    (workspace.root / place).chmod(mode)
    assert take(workspace, path, folder)
    assert (folder.stat().st_ino, (folder / "file").read_text()) == (inode, "content")
    assert not (workspace.root / place).exists()


def test_what_is_at_the_path_already_stays(workspace: Workspace, folder: Path) -> None:
    (workspace.checkout / "target/of-the-repository").mkdir(parents=True)
    (workspace.checkout / "file").touch()
    (workspace.checkout / "link").symlink_to("target")
    for path in ("target", "file", "file/below", "link"):
        with pytest.raises(NotPlaced, match="exists already"):
            put(folder, workspace, path)
    assert (folder / "file").exists()
    (workspace.checkout / "empty").mkdir()
    put(folder, workspace, "empty")
    assert (workspace.checkout / "empty/file").exists()


def test_no_link_is_followed(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "cache").mkdir(parents=True)
    (workspace.root / "home/.cache").symlink_to(outside)
    with pytest.raises(NotPlaced):
        put(folder, workspace, "~/.cache/go")
    assert not take(workspace, "~/.cache/cache", tmp_path / "taken")
    (workspace.root / "home/cache").symlink_to(outside / "cache")
    with pytest.raises(NotPlaced, match="no folder"):
        take(workspace, "~/cache", tmp_path / "taken")
    (workspace.root / "home").rename(workspace.root / "away")
    (workspace.root / "home").symlink_to(outside)
    assert not take(workspace, "~/cache", tmp_path / "taken")
    assert list(outside.iterdir()) == [outside / "cache"]


def test_a_path_without_a_folder_is_not_taken(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.checkout / "file").touch()
    os.mkfifo(workspace.checkout / "pipe")
    assert not take(workspace, "none", tmp_path / "taken")
    assert not take(workspace, "none/below", tmp_path / "taken")
    for path in ("file", "pipe"):
        with pytest.raises(NotPlaced, match="no folder"):
            take(workspace, path, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()
