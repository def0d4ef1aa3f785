"""Whatever is asked of the SQLite store, in whatever order, it does what the model does."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.conformance.machine import StoreAndModel

pytestmark = pytest.mark.timeout(120)  # thousands of steps

TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(max_examples=80, stateful_step_count=50)
