"""A broker whose machine's time is set: what waits for a time of day begins at it, and no lease ends for that."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.holding import dequeue
from tests.acceptance.running import RunningBroker
from tests.acceptance.stepping import STEP_MS, STEPPED
from tests.acceptance.test_plain_msgpack import Plain

SOON_MS = 60_000


@pytest.fixture
def broker(home: Path) -> Iterator[RunningBroker]:
    """One whose machine's time can be set; no token of the test ends by that."""
    running = RunningBroker(home, "memory:", "--no-auth", module="tests.acceptance.stepping")
    yield running
    running.stop()


@pytest.fixture
def plain(broker: RunningBroker) -> Iterator[Plain]:
    with Plain(broker, "") as peer:
        yield peer


def test_what_was_to_wait_begins_when_its_time_has_come_and_what_runs_runs_on(
    broker: RunningBroker, plain: Plain
) -> None:
    plain.ask({"type": "EnqueueJob", "jobs": [{"command": "runs"}]})
    (running,) = plain.ask(dequeue("default", bytes(32)))["leases"]
    soon = {"command": "waits", "not_before_ms": time.time_ns() // 1_000_000 + SOON_MS}
    later = {"command": "waits on", "not_before_ms": soon["not_before_ms"] + 2 * STEP_MS}
    plain.ask({"type": "EnqueueJob", "jobs": [soon, later]})
    broker.process.signal(signal.SIGUSR1)
    broker.process.line(STEPPED)
    (begun,) = plain.ask({**dequeue("default", b"1" * 32), "slots": 2, "wait_ms": 5_000})["leases"]
    assert begun["spec"]["command"] == "waits"
    found = plain.ask({"type": "GetJob", "job_id": running["job_id"]})["job"]
    assert (found["state"], found["attempt"]) == ("RUNNING", 1)
