"""Repositories that are not as git makes them by default: shallow, of another hash, or with old faults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from airunner.agent.checkout.fsck import Fsck
from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.repository import Rules
from airunner.agent.launcher.contract import Launcher
from tests.agent.checkout.repositories import commit, git, new_repository, write_object
from tests.agent.checkout.test_mirrors import Agent, own_objects


@pytest.fixture
def agent(launcher: Launcher, tmp_path: Path) -> Agent:
    return Agent(launcher, tmp_path / "home")


def plain(path: Path) -> Path:
    return new_repository(path)


def of_sha256(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    commit(path, "one")
    return path


def with_submodule_of_sha256(path: Path) -> Path:
    of_sha256(path.with_name("inner"))
    of_sha256(path)
    git(path, "submodule", "--quiet", "add", "../inner", "sub")
    git(path, "commit", "--quiet", "--message", "with a submodule")
    return path


def that_borrows(path: Path) -> Path:
    new_repository(path.with_name("lender"))
    git(path.parent, "clone", "--quiet", "--shared", "lender", path.name)
    return path


def with_many_references(path: Path) -> Path:
    tip = git(new_repository(path), "rev-parse", "HEAD")
    lines = [f"{tip} refs/{kind}/r{number}" for kind in ("heads", "tags") for number in range(5_000)]
    (path / ".git" / "packed-refs").write_text("\n".join(sorted(lines, key=lambda line: line.split()[1])) + "\n")
    return path


def with_names_that_differ_in_case(path: Path) -> Path:
    new_repository(path)
    for name in ("MAIN", "Main"):
        git(path, "branch", name)
    return path


def shallow(path: Path) -> Path:
    commit(new_repository(path.with_name("deep")), "one more")
    git(path.parent, "clone", "--quiet", "--depth=1", path.with_name("deep").as_uri(), path.name)
    return path


def as_a_bundle(path: Path) -> Path:
    git(new_repository(path.with_name("bundled")), "bundle", "create", "--quiet", str(path), "main", "HEAD")
    return path


BORROWED = [
    *(plain, of_sha256, with_submodule_of_sha256, that_borrows),
    *(with_many_references, with_names_that_differ_in_case),
]


@pytest.mark.parametrize("make", [*BORROWED, shallow, as_a_bundle], ids=lambda make: make.__name__)
async def test_every_job_of_an_odd_repository_runs(agent: Agent, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    repository = make(tmp_path / "repository")
    for _ in range(3):
        workspace = await agent.job(repository, submodules=True)
        assert (workspace.checkout / "file").exists()
        assert git(workspace.checkout, "fsck") == ""
    assert (own_objects(workspace) == []) is (make in BORROWED), "objects come from the mirror, where there can be one"


async def test_a_repository_that_becomes_shallow_and_whole_again_is_checked_out(agent: Agent, tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    for make in (plain, shallow, of_sha256, plain):
        shutil.rmtree(repository, ignore_errors=True)
        shutil.rmtree(repository.with_name("deep"), ignore_errors=True)
        make(repository)
        for _ in range(2):
            assert ((await agent.job(repository)).checkout / "file").exists()


async def test_a_partial_clone_fails_at_once_and_says_what_it_is(agent: Agent, tmp_path: Path) -> None:
    origin = new_repository(tmp_path / "origin")
    commit(origin, "two")
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", origin.as_uri(), "repository")
    with pytest.raises(CheckoutFailed, match="is a partial clone, which lacks objects"):
        await agent.job(tmp_path / "repository")
    assert [line for line in agent.told if "trying again" in line] == []


GOOD = b"A <a@example.org> 1 +0000"
HARMLESS = {
    "missingNameBeforeEmail": b"<a@example.org> 1 +0000",
    "missingSpaceBeforeEmail": b"A<a@example.org> 1 +0000",
    "missingEmail": b"A 1 +0000",
    "badEmail": b"A <a<b@example.org> 1 +0000",
    "badName": b"A>B <a@example.org> 1 +0000",
    "missingSpaceBeforeDate": b"A <a@example.org>1 +0000",
    "badDate": b"A <a@example.org> <a@example.org> 1 +0000",
    "badDateOverflow": b"A <a@example.org> 18446744073709551617 +0000",
    "zeroPaddedDate": b"A <a@example.org> 0001 +0000",
    "badTimezone": b"A <a@example.org> 1 +051800",
    "multipleAuthors": GOOD + b"\nauthor " + GOOD,
}


def with_old_faults(repository: Path) -> None:
    """Each harmless fault in a commit and a tag of its own, and a tree with a mode of long ago, below a good tip."""
    blob, tree, tip = (git(repository, "rev-parse", name) for name in ("HEAD:file", "HEAD^{tree}", "HEAD"))
    inner = write_object(repository, "tree", b"100644 file\0" + bytes.fromhex(blob))
    content = b"040000 folder\0" + bytes.fromhex(inner) + b"160000 sub\0" + bytes(20)
    write = write_object(repository, "tree", content)
    tip = git(repository, "commit-tree", "-m", "old modes", "-p", tip, write)
    for fault, author in {**HARMLESS, "missingAuthor": b"", "nulInCommit": GOOD}.items():
        begin = f"tree {tree}\nparent {tip}\n".encode() + (b"author " + author + b"\n" if author else b"")
        message = b"\nm\0m\n" if fault == "nulInCommit" else b"\nm\n"
        tip = write_object(repository, "commit", begin + b"committer " + GOOD + b"\n" + message)
        tagger = b"tagger " + author + b"\n" if author and b"author" not in author else b""
        tag = write_object(repository, "tag", f"object {tip}\ntype commit\ntag {fault}\n".encode() + tagger + b"\nm\n")
        git(repository, "update-ref", f"refs/tags/{fault}", tag)
    git(repository, "update-ref", "refs/heads/main", git(repository, "commit-tree", "-m", "new", "-p", tip, tree))


async def test_faults_of_old_history_are_ignored_unless_the_operator_is_strict(agent: Agent, repository: Path) -> None:
    with_old_faults(repository)
    for depth in (None, None, 1):
        workspace = await agent.job(repository, depth=depth)
        assert (workspace.checkout / "file").read_text() == "one"
    agent.rules = Rules(allow_local=True, fsck=Fsck.STRICT)
    with pytest.raises(CheckoutFailed, match="`airunner agent --fsck` sets what is refused"):
        await agent.job(repository.as_uri())


@pytest.mark.parametrize("name", [b"..", b".", b".git"])
async def test_a_dangerous_name_deep_in_the_history_is_refused_unless_nothing_is_checked(
    agent: Agent, repository: Path, name: bytes
) -> None:
    blob, tip = git(repository, "rev-parse", "HEAD:file"), git(repository, "rev-parse", "HEAD")
    tree = write_object(repository, "tree", b"100644 " + name + b"\0" + bytes.fromhex(blob))
    old = git(repository, "commit-tree", "-m", "old", "-p", tip, tree)
    new = git(repository, "commit-tree", "-m", "new", "-p", old, f"{tip}^{{tree}}")
    git(repository, "update-ref", "refs/heads/main", new)
    with pytest.raises(CheckoutFailed, match="fsck error"):
        await agent.job(repository)
    agent.rules = Rules(allow_local=True, fsck=Fsck.OFF)
    await agent.job(repository)
    with pytest.raises(CheckoutFailed, match="invalid path"):  # git makes no such file, whatever it has received
        await agent.job(repository, commit=old)


def give_away(folder: Path) -> None:
    for place in (folder, *folder.rglob("*")):
        os.chown(place, 12_345, 12_345)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to another user")
@pytest.mark.parametrize("allowed", ["{repository}", "{repository}/", "*"])
async def test_another_users_repository_needs_the_operators_word(agent: Agent, repository: Path, allowed: str) -> None:
    give_away(repository)
    with pytest.raises(CheckoutFailed) as caught:
        await agent.job(repository)
    assert "belongs to another user than the agent: the agent's operator can allow it" in caught.value.message
    assert "git config" not in caught.value.message, "it would change nothing here"
    agent.rules = Rules(allow_local=True, safe_directories=('/srv/a "b\\', allowed.format(repository=repository)))
    for address in (str(repository), repository.as_uri()):
        assert ((await agent.job(address)).checkout / "file").read_text() == "one"
