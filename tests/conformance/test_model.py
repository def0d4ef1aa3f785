"""Whatever is asked of the SQLite store, in whatever order, it does what the model does."""

from __future__ import annotations

from hypothesis import settings

from tests.conformance.machine import StoreAndModel

TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
