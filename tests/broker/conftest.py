"""The broker's actors run on virtual time, unless a test needs a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from airunner.certs.home import Home
from airunner.certs.init import init


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Trio, with a clock that jumps to the next deadline as soon as everybody waits."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One with keys."""
    home = Home(tmp_path / "home")
    init(home)
    return home
