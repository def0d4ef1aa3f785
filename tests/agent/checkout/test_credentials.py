"""What opens a repository reaches its host, and no argv, no file and no other host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from airunner.agent.checkout.checkout import Terms, check_out
from airunner.agent.checkout.credentials import access_to
from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.repository import Rules
from airunner.agent.checkout.source import Source
from airunner.agent.launcher.contract import Launcher
from airunner.agent.workspace.workspace import Workspace
from tests.agent.checkout.repositories import git, new_repository
from tests.agent.checkout.serving import HttpServer, over_http

pytestmark = pytest.mark.anyio

PASSWORD = "hunter/2:x"
QUOTED = "hunter%2F2:x"


@pytest.fixture
def server(tmp_path: Path) -> Generator[HttpServer]:
    """It has `p.git`, and `outer.git`, which has the other as a submodule."""
    folder = tmp_path / "served"
    new_repository(folder / "p")
    outer = new_repository(folder / "outer")
    git(outer, "submodule", "--quiet", "add", "--", "../p", "sub")
    git(outer, "config", "--file", ".gitmodules", "submodule.sub.url", "../p.git")
    git(outer, "commit", "--all", "--quiet", "--message", "two")
    for name in ("p", "outer"):
        git(folder, "clone", "--quiet", "--bare", name, f"{name}.git")
        git(folder / f"{name}.git", "update-server-info")
    with over_http(folder, f"somebody:{PASSWORD}") as server:
        yield server


def traced(folder: Path) -> dict[str, str]:
    """An environment whose git writes down every program that it starts, with its arguments."""
    real = shutil.which("git")
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\necho "$*" >> {folder}/trace\nGIT_TRACE={folder}/trace exec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


async def test_a_password_opens_the_repository_and_stands_nowhere(
    launcher: Launcher, workspace: Workspace, server: HttpServer, tmp_path: Path
) -> None:
    source = Source(repository=f"http://somebody:{QUOTED}@{server.authority}/outer.git", submodules=True)
    told: list[str] = []
    mirror = Mirror(tmp_path / "mirror")
    await check_out(
        launcher,
        source,
        Terms(Rules(), lambda: 0.0, told.append),
        workspace=workspace,
        agent_environ=traced(tmp_path / "bin"),
        mirror=mirror,
    )
    assert (workspace.checkout / "sub" / "file").read_text() == "one"
    assert git(workspace.checkout, "config", "remote.origin.url") == f"http://{server.authority}/outer.git"
    trace = (tmp_path / "bin" / "trace").read_text()
    assert "remote-http" in trace
    written = [
        file.read_bytes() for place in (workspace.root, mirror.folder) for file in place.rglob("*") if file.is_file()
    ]
    for text in (trace, "".join(told), *(each.decode(errors="replace") for each in written)):
        assert PASSWORD not in text
        assert QUOTED not in text


async def test_another_host_is_not_told(
    launcher: Launcher, workspace: Workspace, server: HttpServer, tmp_path: Path
) -> None:
    """A submodule on another host than the one that the password is for."""
    outer = tmp_path / "served" / "outer"
    other = server.authority.replace("127.0.0.1", "localhost")
    git(outer, "config", "--file", ".gitmodules", "submodule.sub.url", f"http://{other}/p.git")
    git(outer, "commit", "--all", "--quiet", "--message", "three")
    git(tmp_path / "served" / "outer.git", "fetch", "--quiet", "../outer", "+main:main")
    git(tmp_path / "served" / "outer.git", "update-server-info")
    with pytest.raises(CheckoutFailed, match="could not read Username"):
        await check_out(
            launcher,
            Source(repository=f"http://somebody:{QUOTED}@{server.authority}/outer.git", submodules=True),
            Terms(Rules(), lambda: 0.0, lambda _: None),
            workspace=workspace,
            agent_environ={"PATH": os.environ["PATH"]},
        )
    assert server.offered[-1] == ""


@pytest.mark.parametrize(
    ("repository", "address", "user", "password"),
    [
        ("https://a:b@host/x", "https://host/x", "a", "b"),
        ("https://token@host:8443/x", "https://host:8443/x", "token", ""),
        ("http://a:b@c'd\"@host/p@v1", "http://host/p@v1", "a", "b@c'd\""),
    ],
)
def test_credentials_leave_the_address(repository: str, address: str, user: str, password: str) -> None:
    access = access_to(repository)
    assert access.address == address
    assert access.environment["AIRUNNER_GIT_USER"] == user
    assert access.environment["AIRUNNER_GIT_PASSWORD"] == password


@pytest.mark.parametrize(
    "repository", ["https://host/@x", "https://a:b/c@host/x", "ssh://git@host/x", "git@host:x", "/srv/http://a@b/c"]
)
def test_what_holds_none_is_as_it_was(repository: str) -> None:
    assert access_to(repository).address == repository
    assert access_to(repository).environment == {}
