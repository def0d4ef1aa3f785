"""A channel's patience, on virtual time; what real sockets do to it is in tests/broker/test_gatekeeper.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import msgpack
import pytest

from airunner.protocol.errors import BadRequest, OperatorError, PeerError
from airunner.protocol.frames import REVISION, magic, unserved
from airunner.protocol.reconnect import PING_ID
from airunner.protocol.requests import CancelJob, Ping
from airunner.protocol.requestsize import REQUEST_BYTES_FIRST, REQUEST_BYTES_MIN
from airunner.transport.channel import Channel
from airunner.transport.memory import REQUESTS_ENDPOINT as ENDPOINT
from airunner.transport.memory import MemoryNetwork
from airunner.transport.patience import NOTICE_S, UNBOUNDED, Patience
from airunner.transport.ports import SYSTEM
from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture


@asynccontextmanager
async def connected(
    answer: bytes | None, revision: int = REVISION, patience: Patience = UNBOUNDED, times: int = 1_000
) -> AsyncGenerator[Channel]:
    """A channel to a broker that gives this answer to so many requests; without one, to none."""
    network = MemoryNetwork()
    left = iter(range(times))

    async def serve() -> None:
        while answer is not None:
            for peer, _, (_, request_id, *_) in await network.router.receive():
                if request_id != PING_ID and next(left, None) is not None:
                    network.router.send(peer, [magic(revision), request_id, answer])
        network.router.close()

    channel = Channel(network, [ENDPOINT], lambda: b"", SYSTEM, patience)
    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        await group.start(channel.run)
        yield channel
        group.cancel_scope.cancel()


async def test_where_no_broker_is_the_wait_is_told_once_and_ends_when_it_was_said_to() -> None:
    told: list[tuple[str, float | None, float]] = []

    def notice(endpoint: str, left_s: float | None) -> None:
        told.append((endpoint, left_s, anyio.current_time() - began_s))

    async with connected(None, patience=Patience(first_s=90, notice=notice)) as channel:
        began_s = anyio.current_time()
        with pytest.raises(OperatorError, match=f"no broker answers at {ENDPOINT}") as raised:
            await channel.ask(Ping())
        assert raised.value.exit_code == 69
        assert anyio.current_time() - began_s == pytest.approx(90, abs=0.01)
    assert told == [(ENDPOINT, pytest.approx(90 - NOTICE_S, abs=0.01), pytest.approx(NOTICE_S, abs=0.01))]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"\xc1", PeerError, "reply cannot be decoded"),
        (msgpack.packb({"type": "Prophecy"}), PeerError, "reply cannot be decoded"),
        (msgpack.packb({"type": "JobCancelled", "state": "DREAMING"}), PeerError, "reply cannot be decoded"),
        (msgpack.packb({"type": "SecretSet"}), PeerError, "reply cannot be decoded: .*Invalid value 'SecretSet'"),
        (msgpack.packb({"type": "Nudge"}), BadRequest, "the broker replied to CancelJob with Nudge"),
    ],
)
async def test_an_answer_that_cannot_be_read_or_is_anothers_is_an_error_and_not_a_silence(
    answer: bytes, kind: type[PeerError], words: str
) -> None:
    async with connected(answer) as channel:
        with anyio.fail_after(1), pytest.raises(kind, match=words):
            await channel.ask(CancelJob(job_id="j"))


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
    answer = msgpack.packb(body)
    async with connected(answer, 9, Patience(doubt=said.append)) as agent:
        with anyio.move_on_after(600):
            await agent.ask(CancelJob(job_id="j"))
        assert said == [f"{words} ({ENDPOINT})"]
        assert agent.connections > 10, "with a pause in between, of up to five seconds"
    async with connected(answer, 9) as client:
        with pytest.raises(OperatorError) as raised:
            await client.ask(CancelJob(job_id="j"))
        assert (raised.value.message, raised.value.exit_code) == (f"{words} ({ENDPOINT})", 69)


async def test_one_ping_waits_for_a_connection_that_takes_long() -> None:
    network = MemoryNetwork()
    channel = Channel(network, [ENDPOINT], lambda: b"", SYSTEM)
    pings: Counter[bytes] = Counter()
    async with anyio.create_task_group() as group:
        await group.start(channel.run)
        group.start_soon(channel.ask, CancelJob(job_id="j"))
        while channel.connections < 3:
            for peer, _, (_, request_id, *_) in await network.router.receive():
                pings[peer] += request_id == PING_ID
        group.cancel_scope.cancel()
    assert set(pings.values()) == {1}, "a broker that admits thousands of agents would have to answer each"


async def test_a_broker_that_falls_silent_without_an_end_of_its_connection_is_gone() -> None:
    async with connected(msgpack.packb({"type": "JobCancelled", "state": "RUNNING"}), times=1) as channel:
        await channel.ask(CancelJob(job_id="j"))
        async with anyio.create_task_group() as asking:
            asking.start_soon(channel.ask, CancelJob(job_id="j"))
            with anyio.fail_after(600):
                await channel.gone(5)
            asking.cancel_scope.cancel()


@pytest.mark.parametrize(("waits_s", "bytes_max"), [(1.9, REQUEST_BYTES_FIRST), (2.1, REQUEST_BYTES_MIN)])
async def test_a_request_that_is_cut_off_after_seconds_makes_the_next_ones_smaller(waits_s: float, bytes_max: int):
    """As the end of a lease does: its heartbeat waited behind the reply."""
    request = CancelJob(job_id="j")
    async with connected(msgpack.packb({"type": "JobCancelled", "state": "RUNNING"}), times=1) as channel:
        await channel.ask(request)
        await anyio.sleep(1)  # virtual: 0 ms would be no instant of a sending
        with anyio.move_on_after(waits_s):
            await channel.ask(request, smaller=lambda: request)
        assert channel.request_size.bytes_max == bytes_max
