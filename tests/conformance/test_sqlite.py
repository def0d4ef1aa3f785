"""SQLite keeps the law, on disk and in memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from airunner.broker.store.batch import Store
from airunner.broker.store.sqlite.opening import open_sqlite
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS


@pytest.mark.parametrize("law", LAWS)
def test_in_memory(law: str):
    with closing(Store(open_sqlite(None))) as store:
        LAWS[law](Driver(store))


@pytest.mark.parametrize("law", LAWS)
def test_on_disk(law: str, tmp_path: Path):
    with closing(Store(open_sqlite(tmp_path / "store.db"))) as store:
        LAWS[law](Driver(store))
