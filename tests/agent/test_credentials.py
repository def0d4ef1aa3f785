"""What opens a repository reaches its host, and no argv, no file and no other host."""

from __future__ import annotations

import os
import shutil
from base64 import b64encode
from collections.abc import AsyncGenerator, Generator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from airunner.agent.checkout import Terms, check_out
from airunner.agent.credentials import access_to
from airunner.agent.git import CheckoutFailed
from airunner.agent.launcher.contract import Launcher
from airunner.agent.launcher.local import start_launcher
from airunner.agent.mirrors import Mirror
from airunner.agent.repository import Rules, Source
from airunner.agent.workspace import Workspace, make_workspace
from tests.agent.repositories import git, new_repository

pytestmark = pytest.mark.anyio

PASSWORD = "hunter/2:x"
QUOTED = "hunter%2F2:x"


class Locked(SimpleHTTPRequestHandler):
    """Serves files to somebody with the password, and remembers what it was asked with."""

    offered: list[str]
    expected = f"Basic {b64encode(f'somebody:{PASSWORD}'.encode()).decode()}"

    def do_GET(self) -> None:
        self.offered.append(self.headers.get("Authorization", ""))
        if self.offered[-1] == self.expected:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="locked"')
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""

    def log_error(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def offered() -> list[str]:
    """What the server was shown."""
    return []


@pytest.fixture
def served(tmp_path: Path, offered: list[str]) -> Generator[str]:
    """Where `p.git` is served, and `outer.git`, which has it as a submodule."""
    folder = tmp_path / "served"
    new_repository(folder / "p")
    outer = new_repository(folder / "outer")
    git(outer, "submodule", "--quiet", "add", "--", "../p", "sub")
    git(outer, "config", "--file", ".gitmodules", "submodule.sub.url", "../p.git")
    git(outer, "commit", "--all", "--quiet", "--message", "two")
    for name in ("p", "outer"):
        git(folder, "clone", "--quiet", "--bare", name, f"{name}.git")
        git(folder / f"{name}.git", "update-server-info")

    class Here(Locked):
        def __init__(self, *arguments: object) -> None:
            self.offered = offered
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def launcher() -> AsyncGenerator[Launcher]:
    made = start_launcher()
    yield made
    await made.aclose()


@pytest.fixture
async def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "home", "job", 1)


def traced(folder: Path) -> dict[str, str]:
    """An environment whose git writes down every program that it starts, with its arguments."""
    real = shutil.which("git")
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\necho "$*" >> {folder}/trace\nGIT_TRACE={folder}/trace exec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


async def test_a_password_opens_the_repository_and_stands_nowhere(
    launcher: Launcher, workspace: Workspace, served: str, tmp_path: Path
) -> None:
    source = Source(repository=f"http://somebody:{QUOTED}@{served}/outer.git", submodules=True)
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
    assert git(workspace.checkout, "config", "remote.origin.url") == f"http://{served}/outer.git"
    trace = (tmp_path / "bin" / "trace").read_text()
    assert "remote-http" in trace
    written = [
        file.read_bytes() for place in (workspace.root, mirror.folder) for file in place.rglob("*") if file.is_file()
    ]
    for text in (trace, "".join(told), *(each.decode(errors="replace") for each in written)):
        assert PASSWORD not in text
        assert QUOTED not in text


async def test_another_host_is_not_told(
    launcher: Launcher, workspace: Workspace, served: str, offered: list[str], tmp_path: Path
) -> None:
    """A submodule on another host than the one that the password is for."""
    outer = tmp_path / "served" / "outer"
    other = served.replace("127.0.0.1", "localhost")
    git(outer, "config", "--file", ".gitmodules", "submodule.sub.url", f"http://{other}/p.git")
    git(outer, "commit", "--all", "--quiet", "--message", "three")
    git(tmp_path / "served" / "outer.git", "fetch", "--quiet", "../outer", "+main:main")
    git(tmp_path / "served" / "outer.git", "update-server-info")
    with pytest.raises(CheckoutFailed, match="could not read Username"):
        await check_out(
            launcher,
            Source(repository=f"http://somebody:{QUOTED}@{served}/outer.git", submodules=True),
            Terms(Rules(), lambda: 0.0, lambda _: None),
            workspace=workspace,
            agent_environ={"PATH": os.environ["PATH"]},
        )
    assert offered[-1] == ""


@pytest.mark.parametrize(
    ("repository", "address", "user", "password"),
    [
        ("https://a:b@host/x", "https://host/x", "a", "b"),
        ("https://token@host:8443/x?y", "https://host:8443/x?y", "token", ""),
        ("http://a:b@c@host/@scope", "http://host/@scope", "a", "b@c"),
    ],
)
def test_credentials_leave_the_address(repository: str, address: str, user: str, password: str) -> None:
    access = access_to(repository)
    assert access.address == address
    assert access.environment["AIRUNNER_GIT_USER"] == user
    assert access.environment["AIRUNNER_GIT_PASSWORD"] == password


@pytest.mark.parametrize("repository", ["https://host/@x", "ssh://git@host/x", "git@host:x", "/srv/http://a@b/c"])
def test_what_holds_none_is_as_it_was(repository: str) -> None:
    assert access_to(repository).address == repository
    assert access_to(repository).environment == {}
