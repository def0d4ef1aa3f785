"""The broker's actors run on virtual time, unless a test needs a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from airunner.certs.home import Home
from airunner.certs.init import init
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One with keys."""
    home = Home(tmp_path / "home")
    init(home)
    return home
