"""What tests of checkouts start with: an empty workspace, a repository with one commit, and how it is checked out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airunner.agent.checkout.checkout import Terms, check_out
from airunner.agent.checkout.mirrors import Mirror
from airunner.agent.checkout.repository import Rules
from airunner.agent.checkout.revision import Source
from airunner.agent.launcher.contract import Starter
from airunner.agent.workspace.workspace import Workspace, make_workspace
from tests.agent.checkout.repositories import new_repository


class Checkout:
    """Checks out as an agent does, one that may use local repositories unless `rules` say otherwise."""

    def __init__(self, launcher: Starter, workspace: Workspace) -> None:
        self.launcher = launcher
        self.workspace = workspace
        self.rules = Rules(allow_local=True)
        self.environ = {"PATH": os.environ["PATH"]}
        self.told: list[str] = []
        self.warned: list[str] = []

    async def __call__(self, repository: Path | str, *, mirror: Mirror | None = None, **source: object) -> str:
        """The commit that is in the workspace now."""
        return await check_out(
            self.launcher,
            Source(repository=str(repository), **source),  # type: ignore[arg-type]
            Terms(self.rules, lambda: 0.0, self.told.append, self.warned.append),
            workspace=self.workspace,
            agent_environ=self.environ,
            mirror=mirror,
        )

    @property
    def file(self) -> str:
        """What it says now."""
        return (self.workspace.checkout / "file").read_text()

    def replace_git(self, folder: Path, script: str) -> None:
        """Have another program in its place."""
        folder.mkdir(exist_ok=True)
        (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "git").chmod(0o755)
        self.environ = {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "home")


@pytest.fixture
def checkout(launcher: Starter, workspace: Workspace) -> Checkout:
    return Checkout(launcher, workspace)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")
