"""A channel's patience, on virtual time; what real sockets do to it is in tests/broker/test_gatekeeper.py."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from trio.testing import MockClock

from airunner.certs.channel import NOTICE_S, Channel, Patience
from airunner.certs.edges import SYSTEM, Ending, Frames, Subscriber
from airunner.protocol.errors import OperatorError
from airunner.protocol.messages import Ping

pytestmark = pytest.mark.anyio
ENDPOINT = "tcp://broker.test:7070"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Trio, with a clock that jumps to the next deadline as soon as everybody waits."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Nobody:
    """A network where nothing answers; each connection is its own DEALER."""

    def dealer(self, endpoint: str) -> Nobody:
        assert endpoint == ENDPOINT
        return self

    def subscriber(self, endpoint: str) -> Subscriber:
        raise AssertionError(endpoint)

    def send(self, frames: Sequence[bytes]) -> bool:
        return bool(frames)

    async def receive(self) -> list[Frames]:
        await anyio.sleep_forever()
        raise AssertionError("for ever")

    async def ended(self) -> Ending:
        return Ending.DROPPED

    def close(self) -> None:
        """Nothing is held."""


async def test_where_no_broker_is_the_wait_is_told_once_and_ends_when_it_was_said_to() -> None:
    told: list[tuple[str, float | None, float]] = []

    def notice(endpoint: str, left_s: float | None) -> None:
        told.append((endpoint, left_s, anyio.current_time() - began_s))

    channel = Channel(Nobody(), [ENDPOINT], lambda: b"", SYSTEM, Patience(first_s=90, notice=notice))
    async with anyio.create_task_group() as group:
        await group.start(channel.run)
        began_s = anyio.current_time()
        with pytest.raises(OperatorError, match=f"no broker answers at {ENDPOINT}"):
            await channel.ask(Ping())
        assert anyio.current_time() - began_s == pytest.approx(90, abs=0.01)
        group.cancel_scope.cancel()
    assert told == [(ENDPOINT, pytest.approx(90 - NOTICE_S, abs=0.01), pytest.approx(NOTICE_S, abs=0.01))]
