"""Pytest plugin: the fixture `airunner_cluster`, a real cluster for tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airunner.testing import Cluster


@pytest.fixture(scope="session")
def airunner_session_cluster() -> Generator[Cluster]:
    """Start a cluster once for all tests of a session."""
    from airunner.testing import cluster

    with cluster() as running:
        yield running


@pytest.fixture
def airunner_cluster(airunner_session_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Cluster for tests, which `Client()` and `airunner` commands use during the test, because the environment says so.

    It is started once in a session: a test that lists jobs gives its own a queue, a name or metadata.
    """
    from airunner.testing import OURS

    environ = airunner_session_cluster.environ
    for name in tuple(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    for name in ("AIRUNNER_HOME", "AIRUNNER_BROKER"):
        monkeypatch.setenv(name, environ[name])
    return airunner_session_cluster
