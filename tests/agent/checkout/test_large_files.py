"""Files of Git LFS, with a stand-in for git-lfs that writes down how it is called."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from airunner.agent.checkout.git import CheckoutFailed
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.checkout.serving import over_http

POINTER = "version https://git-lfs.github.com/spec/v1\n"
STAND_IN = """#!/bin/sh
echo "$* $GIT_LFS_FORCE_PROGRESS" >> CALLS
test "$1" != pull || { echo "Downloading LFS objects: 100% (1/1), 5 B" >&2; echo large > file; }
"""


class StandIn:
    """Stands in for git-lfs in `folder`, which has git too; the machine's own is not found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "git").symlink_to(shutil.which("git") or "git")
        self.write(STAND_IN.replace("CALLS", str(folder / "calls")))

    def write(self, script: str) -> None:
        (self.folder / "git-lfs").write_text(script)
        (self.folder / "git-lfs").chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """What it was called with."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def lfs(checkout: Checkout, tmp_path: Path) -> StandIn:
    checkout.environ = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    return StandIn(tmp_path / "bin")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return with_pointer(new_repository(tmp_path / "served" / "repository"))


def with_pointer(repository: Path, folder: str = ".") -> Path:
    (repository / folder).mkdir(exist_ok=True)
    (repository / folder / ".gitattributes").write_text("* filter=lfs diff=lfs merge=lfs -text\n")
    commit(repository, POINTER)
    return repository


@pytest.mark.parametrize("depth", [None, 1])
async def test_large_files_are_fetched_where_git_lfs_is_installed(
    checkout: Checkout, repository: Path, lfs: StandIn, depth: int | None
) -> None:
    await checkout(repository, depth=depth)
    assert checkout.file == "large\n"
    assert lfs.calls == ["install --local --skip-repo 1", "pull 1"]
    assert any(line.startswith("Downloading LFS objects: 100%") for line in checkout.told)


async def test_large_files_of_submodules_and_of_inner_folders_are_fetched(
    checkout: Checkout, lfs: StandIn, tmp_path: Path
) -> None:
    with_pointer(new_repository(tmp_path / "served" / "repository"))
    outer = with_pointer(new_repository(tmp_path / "served" / "outer"), "inner")
    git(outer, "submodule", "--quiet", "add", "../repository", "sub")
    git(outer, "commit", "--quiet", "--message", "x")
    await checkout(outer, submodules=True)
    assert lfs.calls.count("pull 1") == 2
    assert (checkout.workspace.checkout / "sub" / "file").read_text() == "large\n"


async def test_pointers_are_said_to_be_left_where_git_lfs_is_missing_or_the_operator_wants_it(
    checkout: Checkout, repository: Path, lfs: StandIn
) -> None:
    checkout.environ["GIT_LFS_SKIP_SMUDGE"] = "1"
    await checkout(repository)
    [warning] = checkout.warned
    assert warning == "files of Git LFS are left as pointers: the agent's environment has GIT_LFS_SKIP_SMUDGE"
    shutil.rmtree(checkout.workspace.checkout)
    checkout.workspace.checkout.mkdir()
    (lfs.folder / "git-lfs").unlink()
    checkout.environ = {"PATH": str(lfs.folder)}
    await checkout(repository)
    assert checkout.warned[-1] == "files of Git LFS are left as pointers: git-lfs is not installed on this agent"
    assert checkout.file == POINTER
    assert lfs.calls == []


async def test_a_repository_without_large_files_does_not_run_git_lfs(
    checkout: Checkout, lfs: StandIn, tmp_path: Path
) -> None:
    repository = new_repository(tmp_path / "plain")
    (repository / ".gitattributes").write_text("* text\n")
    commit(repository, POINTER)
    await checkout(repository)
    assert checkout.file == POINTER
    assert lfs.calls == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("[lfs]\n\turl = file:///srv/other\n", "lfs.url: file:///srv/other: local repositories are not allowed"),
        ("[lfs]\n\turl = ext::touch x\n", "transports of the form"),
        ('[remote "origin"]\n\tlfsurl = ssh://-oProxyCommand=x/y\n', "begins with a dash"),
        (None, "is a symbolic link"),
    ],
)
async def test_the_address_that_a_repository_names_for_its_large_files_is_judged(
    checkout: Checkout, repository: Path, lfs: StandIn, settings: str | None, why: str
) -> None:
    if settings is None:
        (repository / ".lfsconfig").symlink_to("/etc/passwd")
    else:
        (repository / ".lfsconfig").write_text(settings)
    commit(repository, POINTER)
    git(repository, "update-server-info")
    with over_http(repository.parent) as server, pytest.raises(CheckoutFailed, match=why):
        await checkout(f"http://{server.authority}/repository/.git")
    assert lfs.calls == []


async def test_large_files_that_cannot_be_fetched_fail_the_checkout(
    checkout: Checkout, repository: Path, lfs: StandIn
) -> None:
    lfs.write('#!/bin/sh\ntest "$1" != pull || { echo "no such object" >&2; exit 2; }\n')
    with pytest.raises(CheckoutFailed, match="no such object"):
        await checkout(repository)
