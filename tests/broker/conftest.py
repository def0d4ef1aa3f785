"""The broker's actors run on virtual time, unless a test needs a real socket."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Trio, with a clock that jumps to the next deadline as soon as everybody waits."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}
