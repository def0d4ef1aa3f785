"""What tests of checkouts start with: an empty workspace, and a repository with one commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.agent.workspace.workspace import Workspace, make_workspace
from tests.agent.checkout.repositories import new_repository


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "home", "job", 1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "repository")
