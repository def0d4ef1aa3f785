"""Repositories that mean harm: each is refused, or does none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.agent.checkout.checkout import Terms, check_out
from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.repository import Rules
from airunner.agent.checkout.source import Source
from airunner.agent.checkout.submodules import LEVELS_MAX
from airunner.agent.launcher.contract import Launcher
from airunner.agent.workspace.workspace import Workspace, make_workspace
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.checkout.serving import over_http

pytestmark = pytest.mark.anyio

ENVIRON = {"PATH": os.environ["PATH"]}
REMOTE = Terms(Rules(), lambda: 0.0, lambda _: None)
LOCAL = Terms(Rules(allow_local=True), lambda: 0.0, lambda _: None)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is not there, and must not be afterwards."""
    return tmp_path / "canary"


def unhurt(canary: Path) -> None:
    assert not canary.exists()


@pytest.mark.parametrize("terms", [REMOTE, LOCAL])
@pytest.mark.parametrize(
    "text",
    [
        "--upload-pack=touch {canary}",
        "-u touch {canary}",
        "ext::sh -c touch% {canary}",
        "fd::17/x",
        "ssh://-oProxyCommand=touch {canary}/x",
        "ssh://git@-oProxyCommand=touch%20{canary}/x",
        "ssh://-oProxyCommand=touch%20{canary}@host/x",
        "ssh://host:-oProxyCommand=touch%20{canary}/x",
        "ssh://%2DoProxyCommand=touch%20{canary}/x",
        "-oProxyCommand=touch {canary}:x",
        "git@-oProxyCommand=touch {canary}:x",
        "ssh://host/x\n--upload-pack=touch {canary}",
    ],
)
async def test_a_repository_that_is_an_option_or_a_program_is_refused(
    launcher: Launcher, workspace: Workspace, canary: Path, terms: Terms, text: str
) -> None:
    source = Source(repository=text.format(canary=canary), submodules=True)
    with pytest.raises(CheckoutFailed):
        await check_out(launcher, source, terms, workspace=workspace, agent_environ=ENVIRON)
    unhurt(canary)


@pytest.mark.parametrize("field", ["branch", "commit"])
@pytest.mark.parametrize("text", ["--upload-pack=touch {canary}", "-q", "main\x00", "a\x1b[2J"])
async def test_a_branch_or_commit_that_is_an_option_is_refused(
    launcher: Launcher, workspace: Workspace, repository: Path, canary: Path, field: str, text: str
) -> None:
    fields = {field: text.format(canary=canary)}
    with pytest.raises(CheckoutFailed, match=r"dash|control"):
        await check_out(
            launcher,
            Source(repository=str(repository), **fields),  # type: ignore[arg-type]
            LOCAL,
            workspace=workspace,
            agent_environ=ENVIRON,
        )
    unhurt(canary)


async def test_a_local_repository_needs_leave(launcher: Launcher, workspace: Workspace, repository: Path) -> None:
    for path in (str(repository), repository.as_uri()):
        with pytest.raises(CheckoutFailed, match="start it with --allow-local"):
            await check_out(launcher, Source(repository=path), REMOTE, workspace=workspace, agent_environ=ENVIRON)


async def test_hooks_attributes_and_filters_of_a_repository_run_nothing(
    launcher: Launcher, workspace: Workspace, repository: Path, canary: Path
) -> None:
    (repository / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (repository / ".gitconfig").write_text(f'[filter "evil"]\n\tsmudge = touch {canary}\n\tclean = touch {canary}\n')
    (repository / ".githooks").mkdir()
    (repository / ".githooks" / "post-checkout").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (repository / ".githooks" / "post-checkout").chmod(0o755)
    for hook in ("post-checkout", "post-upload-pack", "reference-transaction"):
        (repository / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    (repository / ".git" / "hooks" / "reference-transaction").unlink()
    commit(repository, "two")
    await check_out(launcher, Source(repository=str(repository)), LOCAL, workspace=workspace, agent_environ=ENVIRON)
    assert (workspace.checkout / "file").read_text() == "two"
    unhurt(canary)


async def test_large_files_are_left_as_pointers_and_their_program_is_not_run(
    launcher: Launcher, workspace: Workspace, repository: Path, canary: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git-lfs").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (tmp_path / "bin" / "git-lfs").chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=lfs diff=lfs merge=lfs -text\n")
    (repository / ".lfsconfig").write_text(f'[lfs "customtransfer.x"]\n\tpath = touch\n\targs = {canary}\n')
    commit(repository, "version https://git-lfs.github.com/spec/v1\n")
    await check_out(
        launcher,
        Source(repository=str(repository)),
        LOCAL,
        workspace=workspace,
        agent_environ={"PATH": f"{tmp_path}/bin:{ENVIRON['PATH']}"},
    )
    assert (workspace.checkout / "file").read_text().startswith("version")
    unhurt(canary)


@pytest.mark.parametrize("name", [b".git", b".GIT", b"git~1", ".g\u200cit".encode()])
async def test_a_dot_git_of_its_own_is_not_checked_out(
    launcher: Launcher, workspace: Workspace, repository: Path, canary: Path, name: bytes
) -> None:
    """A tree with a link called .git, or what some file system takes for it, which git itself would not make."""
    with_link(repository, name, "/dev/null")
    with pytest.raises(CheckoutFailed, match=r"contains '\.git'"):
        await check_out(
            launcher, Source(repository=repository.as_uri()), LOCAL, workspace=workspace, agent_environ=ENVIRON
        )
    unhurt(canary)


def with_link(repository: Path, name: bytes, target: str) -> None:
    """Make the newest tree one that git would not: a link of this name, and nothing else."""
    place = repository.parent / "object"
    place.write_text(target)
    blob = git(repository, "hash-object", "-w", str(place))
    place.write_bytes(b"120000 " + name + b"\0" + bytes.fromhex(blob))
    tree = git(repository, "hash-object", "-w", "--literally", "-t", "tree", str(place))
    git(repository, "update-ref", "refs/heads/main", git(repository, "commit-tree", "-m", "evil", tree))


def with_submodule(repository: Path, *, path: str = "sub", url: str = "../sub") -> None:
    """Add one by hand, as no honest git would."""
    other = repository.parent / "sub"
    if not other.exists():
        new_repository(other)
    (repository / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = {path}\n\turl = {url}\n')
    tip = git(other, "rev-parse", "HEAD")
    git(repository, "add", ".gitmodules")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{tip},sub")
    git(repository, "commit", "--quiet", "--message", "with a submodule")


async def test_submodules_are_checked_out_where_they_are_asked_for(
    launcher: Launcher, workspace: Workspace, repository: Path
) -> None:
    with_submodule(repository)
    for submodules in (False, True):
        source = Source(repository=str(repository), submodules=submodules)
        await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)
        assert (workspace.checkout / "sub" / "file").exists() is submodules
        workspace = make_workspace(workspace.root.parent, "job", 2)


@pytest.mark.parametrize(
    ("path", "url", "why"),
    [
        ("../outside", "../sub", "not inside the checkout"),
        ("/tmp/outside", "../sub", "not inside the checkout"),
        ("sub/../../x", "../sub", "not inside the checkout"),
        (".git/modules", "../sub", "not inside the checkout"),
        ("sub", "ext::sh -c touch% {canary}", "transports"),
        ("sub", "--upload-pack=touch {canary}", "disallowed submodule url"),
        ("sub", "ssh://-oProxyCommand=touch {canary}/x", "no space"),
        ("sub", "gopher://example.org/x", "scheme"),
    ],
)
async def test_a_hostile_submodule_is_refused(
    launcher: Launcher, workspace: Workspace, repository: Path, canary: Path, path: str, url: str, why: str
) -> None:
    with_submodule(repository, path=path, url=url.format(canary=canary))
    source = Source(repository=str(repository), submodules=True)
    with pytest.raises(CheckoutFailed, match=why):
        await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)
    unhurt(canary)


async def test_a_submodule_behind_a_link_is_refused(
    launcher: Launcher, workspace: Workspace, repository: Path, tmp_path: Path
) -> None:
    (repository / "link").symlink_to(tmp_path)
    commit(repository, "two")
    with_submodule(repository, path="link/sub")
    source = Source(repository=str(repository), submodules=True)
    with pytest.raises(CheckoutFailed, match="through a link"):
        await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)
    assert not (tmp_path / "sub" / ".git" / "index.lock").exists()


async def test_a_submodule_brings_no_command(
    launcher: Launcher, workspace: Workspace, repository: Path, canary: Path
) -> None:
    with_submodule(repository)
    git(repository, "config", "--file", ".gitmodules", "submodule.s.update", f"!touch {canary}")
    git(repository, "commit", "--all", "--quiet", "--message", "with a command")
    source = Source(repository=str(repository), submodules=True)
    with pytest.raises(CheckoutFailed):
        await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)
    unhurt(canary)


async def test_a_list_of_submodules_that_is_a_link_is_not_read(
    launcher: Launcher, workspace: Workspace, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text('[submodule "s"]\n\tpath = sub\n\turl = ../sub\n')
    with_link(repository, b".gitmodules", str(tmp_path / "list"))
    source = Source(repository=str(repository), submodules=True)
    with pytest.raises(CheckoutFailed, match=r"gitmodules"):
        await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)


async def test_a_remote_repositorys_submodule_is_no_local_path(
    launcher: Launcher, workspace: Workspace, tmp_path: Path
) -> None:
    """Not even where the agent may check out local ones: whoever wrote it is not who asked for it."""
    outer = new_repository(tmp_path / "served" / "outer")
    with_submodule(outer, url=str(tmp_path / "served" / "sub"))
    git(outer, "update-server-info")
    with over_http(tmp_path / "served") as server:
        source = Source(repository=f"http://{server.authority}/outer/.git", submodules=True)
        with pytest.raises(CheckoutFailed, match="local repositories"):
            await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)


async def test_submodules_that_contain_themselves_come_to_an_end(
    launcher: Launcher, workspace: Workspace, tmp_path: Path
) -> None:
    """Each level names the next, deeper than anybody needs."""
    inner = new_repository(tmp_path / "level0")
    for level in range(1, LEVELS_MAX + 2):
        outer = new_repository(tmp_path / f"level{level}")
        git(outer, "submodule", "--quiet", "add", "--", f"../{inner.name}", "sub")
        git(outer, "commit", "--quiet", "--message", "nest")
        inner = outer
    source = Source(repository=str(inner), submodules=True)
    with pytest.raises(CheckoutFailed, match="nested deeper"):
        await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)


@pytest.mark.parametrize("commits", [1, 2])
async def test_depth_is_how_many_commits_come(
    launcher: Launcher, workspace: Workspace, repository: Path, commits: int
) -> None:
    for word in ("two", "three"):
        commit(repository, word)
    source = Source(repository=repository.as_uri(), depth=commits)
    await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)
    assert git(workspace.checkout, "rev-list", "--count", "HEAD") == str(commits)


async def test_depth_goes_with_a_commit_that_is_not_the_newest(
    launcher: Launcher, workspace: Workspace, repository: Path
) -> None:
    second = commit(repository, "two")
    commit(repository, "three")
    source = Source(repository=repository.as_uri(), depth=1, commit=second)
    done = await check_out(launcher, source, LOCAL, workspace=workspace, agent_environ=ENVIRON)
    assert done.commit == second
    assert git(workspace.checkout, "rev-list", "--count", "HEAD") == "1"
