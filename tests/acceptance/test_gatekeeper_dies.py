"""A broker does not go on without its Gatekeeper."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.acceptance.mortal import DIED
from tests.acceptance.running import RunningBroker


def test_a_broker_whose_gatekeeper_fails_ends(home: Path) -> None:
    process = RunningBroker(home, "memory:", module="tests.acceptance.mortal").process
    process.signal(signal.SIGUSR1)
    assert process.wait() != 0
    assert any(DIED in line for line in process.lines)
