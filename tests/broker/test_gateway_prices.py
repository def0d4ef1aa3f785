"""The Gateway has everything paid for, and holds back what is too much."""

from __future__ import annotations

import anyio
import pytest

from airunner.broker import tarpit
from airunner.broker.gateway import DELAY_MS_MAX
from airunner.broker.prices import REPLY_BYTES_A_UNIT, UNITS_A_REQUEST
from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.protocol import replies, requests
from airunner.protocol.coding import encode
from airunner.protocol.events import EventSegment
from airunner.protocol.frames import SERVED
from airunner.protocol.replies import Refused
from airunner.protocol.requests import ListJobs, Ping
from tests.broker.gatewaystage import Stage
from tests.broker.stage import (
    WALL_MS,
    request_id,
)
from tests.broker.test_admission import ASKS, is_empty

PONG = replies.Pong(revisions=SERVED)


@pytest.mark.parametrize(
    ("asks", "size_bytes", "rate", "paid_out"),
    [(1, 40 * REPLY_BYTES_A_UNIT, 10.0, True), (2, REPLY_BYTES_A_UNIT, 3.0 * UNITS_A_REQUEST, False)],
    ids=["large", "as short as who follows asks for"],
)
async def test_a_page_of_a_log_is_paid_for_by_its_size(
    asks: int, size_bytes: int, rate: float, *, paid_out: bool
) -> None:
    rates = Rates(rate)
    stage = Stage(rates=rates)
    run = EventSegment(first_sequence=1, count=1, attempt=1, events=bytes(size_bytes))
    page = replies.JobEventsReplayed(runs=(run,), next_sequence=2, last_sequence=1, finished=False)
    async with stage.running():
        for _ in range(asks):
            await stage.converse(requests.ReplayJobEvents(job_id="j"), page, token=b"read")
        assert is_empty(rates, ASKS) is paid_out


def exhausted(units: float) -> Rates:
    rates = Rates(1.0)
    rates.charge(ASKS, units, WALL_MS)
    return rates


@pytest.mark.parametrize(
    ("debt", "held_s", "retry_ms"), [(2.0, 1.0, 0), (10.0, DELAY_MS_MAX / 1_000, 9_001 - DELAY_MS_MAX)]
)
async def test_what_is_too_much_is_refused_undecoded_once_the_same_may_be_asked_again_and_not_held_for_ever(
    debt: float, held_s: float, retry_ms: int
) -> None:
    stage = Stage(rates=exhausted(debt))
    async with stage.running():
        began_s = anyio.current_time()
        stage.router.hear_frames([b"AR1", bytes(16), b"read", b"\x81\xa4type" + bytes(100)])
        stage.router.hear(Ping())
        assert await stage.reply() == PONG
        assert anyio.current_time() == began_s
        refused = await stage.reply()
        assert (refused.code, refused.retry_ms) == ("quota", retry_ms)
        assert anyio.current_time() - began_s == pytest.approx(held_s, abs=0.01)  # virtual


async def test_more_refusals_than_are_held_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(rates=exhausted(2.0))
    monkeypatch.setattr(tarpit, "DELAYED_MAX", 1)
    async with stage.running():
        began_s = anyio.current_time()
        for number in (1, 2):
            stage.router.hear(ListJobs(page_size=100), number, token=b"read")
        assert [(await stage.router.said.receive())[1] for _ in range(2)] == [request_id(2), request_id(1)]
        assert anyio.current_time() > began_s


async def test_what_turns_out_to_be_no_request_is_paid_for_as_the_largest_of_its_size() -> None:
    rates = Rates(100.0)
    stage = Stage(rates=rates)
    async with stage.running():
        stage.router.hear_frames([b"AR1", bytes(16), b"read", b"\x81\xa1x\xdd\x00\x00\x7f\xff" + bytes(32_766)])
        assert await stage.code() == "bad-request"
        assert is_empty(rates, ASKS)


@pytest.mark.parametrize(
    "frames", [[b"AR1", bytes(16)], [b"AR1", bytes(16), b"", encode(Ping())], [b"AR1", bytes(16), b"", b"\x80"]]
)
async def test_what_is_no_tenants_is_paid_for_by_its_machine(frames: list[bytes]) -> None:
    unattributed = Rates(1.0)
    unattributed.charge(Bucket("local", Purpose.MACHINE), 0.5, WALL_MS)
    stage = Stage(unattributed=unattributed)
    async with stage.running():
        stage.router.hear_frames(frames)
        first = await stage.reply()
        assert not isinstance(first, Refused) or first.code == "bad-request"
        stage.router.hear_frames(frames)
        assert await stage.code() == "quota"
