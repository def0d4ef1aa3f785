"""Engines of dicts keep every law: one beside another broker, one that answers what is announced, one that is bounded.

These, and what the model does, run without coverage: they cover the lines of the laws on SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Engine
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from tests.conformance import counters
from tests.conformance.announced import Announced
from tests.conformance.bounded import Bounded
from tests.conformance.conflicts import Conflicting
from tests.conformance.driving import Driver
from tests.conformance.exercise import LARGE, LAWS
from tests.conformance.machine import StoreAndModel

pytestmark = pytest.mark.unmeasured

DICTS = {"dicts-beside-another-broker": Conflicting, "announced": Announced, "bounded": Bounded}
SEEDS = 6


@pytest.fixture(params=["sqlite", *DICTS])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with closing(DICTS[request.param]() if request.param in DICTS else open_sqlite(None)) as engine:
        yield engine
        if isinstance(engine, Conflicting):
            assert engine.conflicts
        elif isinstance(engine, SqliteEngine):
            counters.require_right(engine)


@pytest.mark.parametrize("engine", DICTS, indirect=True)
@pytest.mark.parametrize("law", sorted({*LAWS} - LARGE))
def test_dicts_keep_the_law(law: str, engine: Engine):
    LAWS[law](Driver(Store(engine)))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_engine_does_what_the_model_does_and_counts_right(seed: int, engine: Engine):
    StoreAndModel(Store(engine), seed).run()
