"""Repositories that mean harm: each is refused, or does none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airunner.agent.checkout import submodules as module
from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.workspace.workspace import make_workspace
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.checkout.serving import over_http


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that is not there, and must not be afterwards."""
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


async def test_hooks_attributes_and_filters_of_a_repository_run_nothing(
    checkout: Checkout, repository: Path, canary: Path
) -> None:
    (repository / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (repository / ".gitconfig").write_text(f'[filter "evil"]\n\tsmudge = touch {canary}\n\tclean = touch {canary}\n')
    (repository / ".githooks").mkdir()
    (repository / ".githooks" / "post-checkout").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (repository / ".githooks" / "post-checkout").chmod(0o755)
    for hook in ("post-checkout", "post-upload-pack"):
        (repository / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    commit(repository, "two")
    await checkout(repository)
    assert checkout.file == "two"


@pytest.mark.parametrize("name", [b".git", b".GIT", b"git~1", ".g\u200cit".encode()])
async def test_a_dot_git_of_its_own_is_not_checked_out(checkout: Checkout, repository: Path, name: bytes) -> None:
    """A tree with a link called .git, or what some file system takes for it, which git itself would not make."""
    with_link(repository, name, "/dev/null")
    with pytest.raises(CheckoutFailed, match=r"contains '\.git'"):
        await checkout(repository.as_uri())


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
    checkout: Checkout, repository: Path, tmp_path: Path
) -> None:
    with_submodule(repository)
    for submodules in (False, True):
        checkout.workspace = make_workspace(tmp_path)
        await checkout(repository, submodules=submodules)
        assert (checkout.workspace.checkout / "sub" / "file").exists() is submodules


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
    checkout: Checkout, repository: Path, canary: Path, path: str, url: str, why: str
) -> None:
    with_submodule(repository, path=path, url=url.format(canary=canary))
    with pytest.raises(CheckoutFailed, match=why):
        await checkout(repository, submodules=True)


async def test_a_submodule_behind_a_link_is_refused(checkout: Checkout, repository: Path, tmp_path: Path) -> None:
    (repository / "link").symlink_to(tmp_path)
    commit(repository, "two")
    with_submodule(repository, path="link/sub")
    with pytest.raises(CheckoutFailed, match="through a symbolic link"):
        await checkout(repository, submodules=True)
    assert not (tmp_path / "sub" / ".git" / "index.lock").exists()


async def test_a_submodule_brings_no_command(checkout: Checkout, repository: Path, canary: Path) -> None:
    with_submodule(repository)
    git(repository, "config", "--file", ".gitmodules", "submodule.s.update", f"!touch {canary}")
    git(repository, "commit", "--all", "--quiet", "--message", "with a command")
    with pytest.raises(CheckoutFailed):
        await checkout(repository, submodules=True)


async def test_a_list_of_submodules_that_is_a_link_is_not_read(
    checkout: Checkout, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text('[submodule "s"]\n\tpath = sub\n\turl = ../sub\n')
    with_link(repository, b".gitmodules", str(tmp_path / "list"))
    with pytest.raises(CheckoutFailed, match=r"gitmodules"):
        await checkout(repository, submodules=True)


async def test_a_remote_repositorys_submodule_is_no_local_path(checkout: Checkout, tmp_path: Path) -> None:
    """Not even where the agent may check out local ones: whoever wrote it is not who asked for it."""
    outer = new_repository(tmp_path / "served" / "outer")
    with_submodule(outer, url=str(tmp_path / "served" / "sub"))
    git(outer, "update-server-info")
    with over_http(tmp_path / "served") as server, pytest.raises(CheckoutFailed, match="local repositories"):
        await checkout(f"http://{server.authority}/outer/.git", submodules=True)


async def test_submodules_that_contain_themselves_come_to_an_end(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each level names the next, deeper than is allowed."""
    monkeypatch.setattr(module, "LEVELS_MAX", 2)
    inner = new_repository(tmp_path / "level0")
    for level in range(1, 4):
        outer = new_repository(tmp_path / f"level{level}")
        git(outer, "submodule", "--quiet", "add", "--", f"../{inner.name}", "sub")
        git(outer, "commit", "--quiet", "--message", "nest")
        inner = outer
    with pytest.raises(CheckoutFailed, match="nested deeper"):
        await checkout(inner, submodules=True)


@pytest.mark.parametrize(("depth", "word"), [(1, ""), (2, ""), (1, "two")])
async def test_depth_is_how_many_commits_come_of_any_commit(
    checkout: Checkout, repository: Path, depth: int, word: str
) -> None:
    hashes = {each: commit(repository, each) for each in ("two", "three")}
    done = await checkout(repository.as_uri(), depth=depth, commit=hashes.get(word, ""))
    assert done == hashes[word or "three"]
    assert git(checkout.workspace.checkout, "rev-list", "--count", "HEAD") == str(depth)
    assert checkout.warned == []


@pytest.mark.parametrize("source", [{}, {"branch": "main"}, {"ref": "refs/heads/main"}])
async def test_a_bundle_has_all_its_history_whatever_the_depth_and_the_log_says_so(
    checkout: Checkout, repository: Path, tmp_path: Path, source: dict[str, str]
) -> None:
    commit(repository, "two")
    git(repository, "bundle", "create", "--quiet", str(tmp_path / "x.bundle"), "main", "HEAD")
    await checkout(tmp_path / "x.bundle", depth=1, **source)
    assert git(checkout.workspace.checkout, "rev-list", "--count", "HEAD") == "2"
    assert checkout.warned == ["the repository is a bundle, of which all history is checked out: depth does not apply"]
