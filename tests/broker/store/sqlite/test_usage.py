"""What a tenant takes is counted as things come and go, and never goes astray."""

from __future__ import annotations

from contextlib import closing

import pytest

from airunner.broker.store.sqlite.store import open_store
from tests.broker.store.sqlite.taking import kept, taken
from tests.conformance.driving import Driver
from tests.conformance.exercise import LAWS


@pytest.mark.parametrize("law", LAWS)
def test_after_whatever_happened_the_count_is_right(law: str):
    with closing(open_store("memory:")) as store:
        LAWS[law](Driver(store))
        assert taken(store) == kept(store)
