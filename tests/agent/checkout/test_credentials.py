"""What opens a repository reaches its host, and no argv, no file and no other host."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from shutil import which

import pytest

from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.repository import Rules
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import git, new_repository
from tests.agent.checkout.serving import HttpServer, over_http
from tests.agent.playing import inline

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


@pytest.fixture
def url(checkout: Checkout, server: HttpServer) -> str:
    """Where a remote agent finds the outer one."""
    checkout.rules = Rules()
    return f"http://somebody:{QUOTED}@{server.authority}/outer.git"


async def test_a_password_opens_the_repository_and_stands_nowhere(
    checkout: Checkout, server: HttpServer, url: str, tmp_path: Path
) -> None:
    trace = tmp_path / "bin" / "trace"  # of every program that git starts, with its arguments
    checkout.replace_git(trace.parent, f'echo "$*" >> {trace}\nGIT_TRACE={trace} exec {which("git")} "$@"')
    mirror = Mirror(tmp_path / "mirror", inline)
    await checkout(url, submodules=True, mirror=mirror)
    folder = checkout.workspace.checkout
    assert (folder / "sub" / "file").read_text() == "one"
    assert git(folder, "config", "remote.origin.url") == f"http://{server.authority}/outer.git"
    assert "remote-http" in trace.read_text()
    places = (trace.parent, checkout.workspace.root, mirror.folder)
    written = [file.read_bytes() for place in places for file in place.rglob("*") if file.is_file()]
    for text in ("".join(checkout.told), *(each.decode(errors="replace") for each in written)):
        assert PASSWORD not in text
        assert QUOTED not in text


async def test_another_host_is_not_told(checkout: Checkout, server: HttpServer, url: str, tmp_path: Path) -> None:
    """A submodule on another host than the one that the password is for."""
    outer = tmp_path / "served" / "outer"
    other = server.authority.replace("127.0.0.1", "localhost")
    git(outer, "config", "--file", ".gitmodules", "submodule.sub.url", f"http://{other}/p.git")
    git(outer, "commit", "--all", "--quiet", "--message", "three")
    git(tmp_path / "served" / "outer.git", "fetch", "--quiet", "../outer", "+main:main")
    git(tmp_path / "served" / "outer.git", "update-server-info")
    with pytest.raises(CheckoutFailed, match="could not read Username"):
        await checkout(url, submodules=True)
    assert server.offered[-1] == ""
