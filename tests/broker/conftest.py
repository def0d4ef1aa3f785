"""The broker's actors run on virtual time, unless a test needs a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.certs.home import Home
from airunner.certs.init import init
from tests.conformance.driving import Driver
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One with keys."""
    home = Home(tmp_path / "home")
    init(home)
    return home


@pytest.fixture
def engine() -> Iterator[SqliteEngine]:
    """Of a store in memory."""
    opened = open_sqlite(None)
    yield opened
    opened.close()


@pytest.fixture
def driver(engine: SqliteEngine) -> Driver:
    return Driver(Store(engine))
