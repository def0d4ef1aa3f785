"""A channel's patience, on virtual time; what real sockets do to it is in tests/broker/test_gatekeeper.py."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgpack
import pytest

from airunner.protocol.errors import BadRequest, OperatorError, PeerError
from airunner.protocol.frames import REVISION, magic, unserved
from airunner.protocol.reconnect import PING_ID
from airunner.protocol.requests import CancelJob, Ping
from airunner.transport.channel import Channel
from airunner.transport.patience import NOTICE_S, Patience
from airunner.transport.ports import SYSTEM, Ending, Frames, Subscriber
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture

ENDPOINT = "tcp://broker.test:7070"


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

    def progress(self) -> int:
        return 0

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
        with pytest.raises(OperatorError, match=f"no broker answers at {ENDPOINT}") as raised:
            await channel.ask(Ping())
        assert raised.value.exit_code == 69
        assert anyio.current_time() - began_s == pytest.approx(90, abs=0.01)
        group.cancel_scope.cancel()
    assert told == [(ENDPOINT, pytest.approx(90 - NOTICE_S, abs=0.01), pytest.approx(NOTICE_S, abs=0.01))]


class Foretelling(Nobody):
    """A broker that answers every request with these frames behind the first two."""

    def __init__(self, magic: bytes, body: bytes) -> None:
        self._magic = magic
        self._body = body
        self._answers: list[Frames] = []
        self._answered = anyio.Event()

    def send(self, frames: Sequence[bytes]) -> bool:
        if frames[1] != PING_ID:
            self._answers.append([self._magic, frames[1], self._body])
            self._answered.set()
        return True

    async def receive(self) -> list[Frames]:
        await self._answered.wait()
        self._answered = anyio.Event()
        answers, self._answers = self._answers, []
        return answers

    async def ended(self) -> Ending:
        await anyio.sleep_forever()
        raise AssertionError("for ever")


@pytest.mark.parametrize(
    "body", [b"\xc1", msgpack.packb({"type": "Prophecy"}), msgpack.packb({"type": "JobCancelled", "state": "DREAMING"})]
)
async def test_an_answer_that_cannot_be_read_is_an_error_and_not_a_silence(body: bytes) -> None:
    channel = Channel(Foretelling(magic(REVISION), body), [ENDPOINT], lambda: b"", SYSTEM)
    async with anyio.create_task_group() as group:
        await group.start(channel.run)
        with anyio.fail_after(1), pytest.raises(PeerError, match="the broker's reply cannot be decoded"):
            await channel.ask(CancelJob(job_id="j"))
        group.cancel_scope.cancel()


async def test_a_reply_of_another_class_than_the_requests_is_an_error() -> None:
    body = msgpack.packb({"type": "SecretSet"})
    channel = Channel(Foretelling(magic(REVISION), body), [ENDPOINT], lambda: b"", SYSTEM)
    async with anyio.create_task_group() as group:
        await group.start(channel.run)
        with anyio.fail_after(1), pytest.raises(BadRequest, match="the broker replied to CancelJob with SecretSet"):
            await channel.ask(CancelJob(job_id="j"))
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"type": "Refused", "code": "unsupported", "message": "it speaks 9"}, "it speaks 9"),
        ({"type": "Pong"}, unserved(REVISION, [1])),
    ],
    ids=["refusal", "Pong of the first revision"],
)
async def test_a_broker_of_another_revision_is_told_of_once_by_an_agent_which_goes_on_and_ends_a_client(
    body: dict[str, str], words: str
) -> None:
    said: list[str] = []
    network = Foretelling(magic(9), msgpack.packb(body))
    agent = Channel(network, [ENDPOINT], lambda: b"", SYSTEM, Patience(doubt=said.append))
    client = Channel(network, [ENDPOINT], lambda: b"", SYSTEM)
    async with anyio.create_task_group() as group:
        await group.start(agent.run)
        with anyio.move_on_after(600):
            await agent.ask(CancelJob(job_id="j"))
        assert said == [f"{words} ({ENDPOINT})"]
        assert agent.connections > 10, "with a pause in between, of up to five seconds"
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        await group.start(client.run)
        with pytest.raises(OperatorError) as raised:
            await client.ask(CancelJob(job_id="j"))
        assert (raised.value.message, raised.value.exit_code) == (f"{words} ({ENDPOINT})", 69)
        group.cancel_scope.cancel()
