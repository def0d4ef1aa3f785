"""Without its Gatekeeper a broker lets nobody in, and does not go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.acceptance.holding import RIGHT, handshake
from tests.acceptance.mortal import DIED, SILENT
from tests.acceptance.running import RunningBroker, airunner
from tests.acceptance.test_plain_msgpack import Plain

pytestmark = pytest.mark.timeout(120)

HANDSHAKE_MS = 2_000


@pytest.fixture
def broker(home: Path) -> Iterator[RunningBroker]:
    """One whose Gatekeeper can be killed."""
    running = RunningBroker(home, module="tests.acceptance.mortal")
    yield running
    running.stop()


@pytest.fixture
def inside(broker: RunningBroker) -> Iterator[Plain]:
    """Whoever was let in before."""
    plain = Plain(broker, airunner(broker.home, "token", "--subject", "test").strip())
    assert plain.ask({"type": "Ping"})["type"] == "Pong"
    yield plain
    plain.context.destroy(linger=0)


def knock(broker: RunningBroker, inside: Plain) -> int:
    """What becomes of a new peer with the right keys."""
    assert broker.process.running
    options: dict[str, bytes] = {name: inside.key(file) for name, file in RIGHT.items()}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        return handshake(context, broker.requests, {**options, "handshake_ivl": HANDSHAKE_MS})
    finally:
        context.destroy(linger=0)


def test_a_broker_whose_gatekeeper_is_killed_stops_and_has_lost_nothing(broker: RunningBroker, inside: Plain) -> None:
    (job_id,) = inside.ask({"type": "EnqueueJob", "jobs": [{"command": "true"}]})["job_ids"]
    process = broker.process
    process.signal(signal.SIGUSR1)
    assert process.wait() != 0
    assert any(DIED in line for line in process.lines)
    assert knock_on_nobody(broker, inside)
    broker.start()
    with Plain(broker, inside.token.decode()) as again:
        assert again.ask({"type": "GetJob", "job_id": job_id})["job"]["state"] == "SCHEDULED"


def knock_on_nobody(broker: RunningBroker, inside: Plain) -> bool:
    """Whether a peer with the right keys finds no door."""
    options = {name: inside.key(file) for name, file in RIGHT.items()}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as socket, socket.get_monitor_socket(zmq.EVENT_CLOSED) as monitor:
            for name, value in options.items():
                setattr(socket, name, value)
            monitor.rcvtimeo = 5 * HANDSHAKE_MS
            socket.connect(broker.requests)
            monitor.recv_multipart()  # the connection was refused
            socket.disable_monitor()
            return True
    finally:
        context.destroy(linger=0)


def test_while_the_gatekeeper_does_not_answer_nobody_new_gets_in(broker: RunningBroker, inside: Plain) -> None:
    assert knock(broker, inside) == zmq.EVENT_HANDSHAKE_SUCCEEDED
    broker.process.signal(signal.SIGUSR2)
    broker.process.line(SILENT)
    assert knock(broker, inside) != zmq.EVENT_HANDSHAKE_SUCCEEDED
    assert inside.ask({"type": "Ping"})["type"] == "Pong"
