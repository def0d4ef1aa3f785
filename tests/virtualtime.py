"""The clock of a test: virtual, which jumps to the next deadline as soon as every task waits; or real, for sockets."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture(name="anyio_backend")
def virtual_clock() -> tuple[str, dict[str, object]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture(name="anyio_backend")
def real_time() -> str:
    return "asyncio"
