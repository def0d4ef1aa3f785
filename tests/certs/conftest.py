"""What the tests of identities share: an empty home, and a umask that gives every user all rights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airunner.certs.home import Home
from airunner.certs.init import init


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def broker(home: Home) -> Home:
    """A home with the keys of a broker."""
    init(home)
    return home


@pytest.fixture
def elsewhere(tmp_path: Path) -> Home:
    """The home of another machine, without keys."""
    return Home(tmp_path / "elsewhere")


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The worst case: whatever is created without care is open to all."""
    before = os.umask(0)
    yield
    os.umask(before)
