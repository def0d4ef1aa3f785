"""What an agent has of a repository is not brought again, and what spoils it spoils no job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from airunner.agent.checkout.git import CheckoutFailed
from airunner.agent.checkout.mirrors import FOLDER, Mirrors, remove_unfinished
from airunner.agent.checkout.repository import Rules
from airunner.agent.launcher.contract import Launcher
from airunner.agent.workspace.workspace import Workspace, make_workspace
from tests.agent.checkout.conftest import Checkout
from tests.agent.checkout.repositories import commit, git, new_repository
from tests.agent.playing import inline

PLENTY = 1 << 30


class Agent:
    """Checks out, one job after another or several at once."""

    def __init__(self, launcher: Launcher, home: Path, bytes_max: int = PLENTY, *, copied: bool = False) -> None:
        self.launcher = launcher
        self.home = home
        self.mirrors = Mirrors(home, inline, bytes_max, copied=copied)
        self.told: list[str] = []
        self.rules = Rules(allow_local=True)

    async def job(
        self, repository: Path | str, run: Callable[[Workspace], Awaitable[None]] | None = None, **which: object
    ) -> Workspace:
        """One checkout, and what the job does in it."""
        workspace = make_workspace(self.home)
        checkout = Checkout(self.launcher, workspace)
        checkout.told = self.told
        checkout.rules = self.rules
        async with self.mirrors.borrowed(str(repository)) as mirror:
            await checkout(repository, mirror=mirror, **which)
            if run is not None:
                await run(workspace)
        return workspace

    @property
    def kept(self) -> list[Path]:
        return list((self.home / FOLDER).iterdir())


@pytest.fixture
def agent(launcher: Launcher, tmp_path: Path) -> Agent:
    return Agent(launcher, tmp_path / "home")


def own_objects(workspace: Workspace) -> list[Path]:
    """What a clone does not borrow."""
    objects = workspace.checkout / ".git" / "objects"
    return [file for file in objects.rglob("*") if file.is_file() and file.parent.name != "info"]


async def test_a_second_checkout_brings_nothing_that_the_first_had(
    agent: Agent, launcher: Launcher, repository: Path
) -> None:
    kept = set[int]()
    for one in (agent, agent, Agent(launcher, agent.home)):
        workspace = await one.job(repository)
        kept |= {file.stat().st_ino for file in agent.kept[0].rglob("objects/pack/*.pack")}
        assert own_objects(workspace) == []
        assert (workspace.checkout / "file").read_text() == "one"
        assert git(workspace.checkout, "fsck") == ""
        assert git(workspace.checkout, "branch", "--all").split() == [
            *("*", "main", "remotes/origin/HEAD", "->", "origin/main", "remotes/origin/main")
        ]
    assert len(kept) == 1, "it is the mirror of the first"


@pytest.mark.parametrize("lost", [False, True], ids=["of a branch", "that no branch reaches"])
async def test_a_new_commit_is_brought_once(agent: Agent, repository: Path, *, lost: bool) -> None:
    await agent.job(repository)
    which = {"commit": commit(repository, "two")}
    if lost:
        git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    brought = await agent.job(repository, **which)
    assert own_objects(brought) != []
    borrowed = await agent.job(repository, **which)
    assert own_objects(borrowed) == []
    assert (borrowed.checkout / "file").read_text() == "two"


@pytest.mark.parametrize(
    ("copied", "which"),
    [
        (True, {}),
        (False, {"dissociate": True}),
        (False, {"dissociate": True, "branch": "two"}),
        (False, {"command": "/usr/bin/docker"}),
    ],
    ids=["the operator", "the job", "the job, with new objects", "a container"],
)
async def test_a_checkout_may_have_the_objects_itself_for_where_the_mirror_is_not_seen(
    launcher: Launcher, repository: Path, tmp_path: Path, *, copied: bool, which: dict[str, object]
) -> None:
    agent = Agent(launcher, tmp_path / "home", copied=copied)
    await agent.job(repository)
    git(repository, "branch", "two")
    commit(repository, "two")
    inodes = {file.stat().st_ino for file in agent.kept[0].rglob("*.pack")}
    workspace = await agent.job(repository, **which)
    assert inodes.isdisjoint(file.stat().st_ino for file in own_objects(workspace)), "a job could write through a link"
    assert own_objects(await agent.job(repository, commit=git(repository, "rev-parse", "HEAD"))) == [] or copied
    shutil.rmtree(agent.home / FOLDER)
    assert git(workspace.checkout, "fsck") == ""
    assert "one" in git(workspace.checkout, "log", "--format=%s", "--all").split()
    assert not (workspace.checkout / ".git" / "objects" / "info" / "alternates").exists()


async def test_what_the_remote_has_dropped_is_not_checked_out_from_here(agent: Agent, repository: Path) -> None:
    git(repository, "branch", "gone")
    await agent.job(repository, branch="gone")
    git(repository, "branch", "-D", "gone")
    git(repository, "branch", "gone/by")  # a folder where a file was
    with pytest.raises(CheckoutFailed, match="gone not found"):
        await agent.job(repository, branch="gone")
    await agent.job(repository, branch="gone/by")


async def test_a_remote_that_is_away_is_not_the_mirrors_fault(agent: Agent, repository: Path) -> None:
    """It is asked a few times, and not again without the mirror."""
    url = "http://user:hunter2@127.0.0.1:1/x.git"
    async with agent.mirrors.borrowed(url) as mirror:
        git(repository, "clone", "--quiet", "--bare", ".", str(mirror.folder))
    with pytest.raises(CheckoutFailed, match="Failed to connect"):
        await agent.job(url)
    assert agent.told[0] == "borrowing from the mirror"
    assert [line.rpartition("; ")[2] for line in agent.told[1:]] == [f"trying again ({n} of 4)" for n in (2, 3, 4)]
    assert "hunter2" not in "".join(agent.told)
    assert len(agent.kept) == 1


async def test_jobs_that_begin_at_once_bring_it_once(agent: Agent, repository: Path) -> None:
    workspaces: list[Workspace] = []

    async def one() -> None:
        workspaces.append(await agent.job(repository))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
    assert [own_objects(workspace) for workspace in workspaces] == [[]] * 4
    assert agent.told.count("waiting for the mirror that another job makes") == 3
    assert len(agent.kept) == 1


def with_garbled_packs(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*.pack"):
        pack.chmod(0o600)
        content = pack.read_bytes()
        pack.write_bytes(content[:20] + bytes(len(content) - 40) + content[-20:])


SPOILERS: dict[str, Callable[[Path], object]] = {
    "without packs": lambda mirror: [pack.unlink() for pack in mirror.glob("objects/pack/*")],
    "with garbled packs": with_garbled_packs,
    "with a lost head": lambda mirror: (mirror / "HEAD").write_text("ref: nowhere\n"),
    "with a folder for its configuration": lambda mirror: ((mirror / "config").unlink(), (mirror / "config").mkdir()),
    "with a pipe for its configuration": lambda mirror: ((mirror / "config").unlink(), os.mkfifo(mirror / "config")),
    "as a file": lambda mirror: (shutil.rmtree(mirror), mirror.touch()),
    "gone": shutil.rmtree,
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
async def test_a_spoilt_mirror_fails_no_job_and_is_mended(
    agent: Agent, repository: Path, spoil: Callable[[Path], None]
) -> None:
    await agent.job(repository)
    spoil(agent.kept[0])
    workspace = await agent.job(repository)
    assert (workspace.checkout / "file").read_text() == "one"
    workspace = await agent.job(repository)
    assert git(workspace.checkout, "fsck") == ""
    assert own_objects(workspace) == []


async def test_what_a_job_writes_into_the_mirrors_configuration_is_not_run(agent: Agent, repository: Path) -> None:
    await agent.job(repository)
    (mirror,) = agent.kept
    canary = repository.parent / "canary"
    git(mirror, "config", "core.alternateRefsCommand", f"touch {canary}; true")
    git(mirror, "config", "uploadpack.packObjectsHook", f"touch {canary}; true")
    git(mirror, "config", "core.fsmonitor", f"touch {canary}")
    (mirror / "hooks").mkdir(exist_ok=True)
    for hook in ("reference-transaction", "post-checkout"):
        (mirror / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (mirror / "hooks" / hook).chmod(0o755)
    commit(repository, "two")
    await agent.job(repository)
    assert not canary.exists()


async def test_nobody_else_can_write_a_mirrors_configuration_whatever_the_umask(agent: Agent, repository: Path) -> None:
    before = os.umask(0)
    try:
        await agent.job(repository)
    finally:
        os.umask(before)
    (mirror,) = agent.kept
    assert (mirror / "config").stat().st_mode & 0o777 == 0o600


async def test_too_much_is_given_up_but_never_what_a_job_borrows(
    launcher: Launcher, repository: Path, tmp_path: Path
) -> None:
    agent = Agent(launcher, tmp_path / "home", bytes_max=0)

    async def while_another_comes_and_goes(workspace: Workspace) -> None:
        await agent.job(new_repository(tmp_path / "other"))
        assert git(workspace.checkout, "fsck") == ""
        assert len(agent.kept) == 1

    await agent.job(repository, while_another_comes_and_goes)
    assert agent.kept == []


async def test_what_a_killed_agent_had_begun_is_removed(agent: Agent, repository: Path) -> None:
    await agent.job(repository)
    (agent.home / FOLDER / ".new-0123" / "objects").mkdir(parents=True)
    assert remove_unfinished(agent.home) == []
    assert len(agent.kept) == 1


async def test_stages_are_told(agent: Agent, repository: Path) -> None:
    await agent.job(repository)
    stages = [line.partition(":")[0] for line in agent.told]
    assert "Receiving objects" in stages
    assert len(stages) == len(set(stages)) or stages.count("Receiving objects") <= 2
