"""A scratch installation for each test, and real processes of it that never outlive the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import Cluster, RunningBroker, airunner, running_broker, running_cluster


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with every key, as `airunner certs init` makes it."""
    root = tmp_path / "home"
    airunner(root, "certs", "init")
    return root


@pytest.fixture
def broker(home: Path) -> Iterator[RunningBroker]:
    """A broker whose store ends with it."""
    with running_broker(home, "memory:") as running:
        yield running


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    """A broker whose store is on disk, so that `kill` and `start` lose nothing; agents are added by the test."""
    with running_cluster(home) as running:
        yield running
