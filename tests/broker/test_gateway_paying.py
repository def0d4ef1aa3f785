"""What comes is paid for, by whoever is to; and who cannot pay is told so, late."""

from __future__ import annotations

import anyio
import pytest

from airunner.broker import tarpit
from airunner.broker.admission import Admission
from airunner.broker.gateway import HOLD_MS_MAX
from airunner.broker.prices import REPLY_BYTES_A_UNIT, UNITS_A_REQUEST
from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.protocol.coding import encode
from airunner.protocol.errors import Quota
from airunner.protocol.events import EventSegment
from airunner.protocol.replies import JobEventsReplayed, Pong, Refused
from airunner.protocol.requests import ListJobs, Ping, ReplayJobEvents
from tests.broker.gatewaying import FakeAuthority, Stage
from tests.broker.stage import WALL_MS, request_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_large_reply_is_paid_for(stage: Stage) -> None:
    rates = Rates(10.0)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, rates, Rates())
    async with stage.running():
        stage.router.hear(ReplayJobEvents(job_id="j"), token=b"read")
        run = EventSegment(first_sequence=1, count=1, attempt=1, events=bytes(60 * REPLY_BYTES_A_UNIT))
        reply = JobEventsReplayed(runs=(run,), next_sequence=2, last_sequence=1, finished=False)
        await stage.tell(await stage.asked(), reply)
        with pytest.raises(Quota):
            rates.require(Bucket("acme", Purpose.CLIENT), WALL_MS)


async def test_a_short_page_of_a_log_costs_little(stage: Stage) -> None:
    """Who follows a job asks for one as often as it writes."""
    rates = Rates(3.0 * UNITS_A_REQUEST)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, rates, Rates())
    async with stage.running():
        for number in range(2):
            stage.router.hear(ReplayJobEvents(job_id="j"), number, token=b"read")
            run = EventSegment(first_sequence=1, count=1, attempt=1, events=bytes(REPLY_BYTES_A_UNIT))
            reply = JobEventsReplayed(runs=(run,), next_sequence=2, last_sequence=1, finished=False)
            await stage.tell(await stage.asked(), reply)
        rates.require(Bucket("acme", Purpose.CLIENT), WALL_MS)


async def test_what_is_too_much_is_refused_before_it_is_decoded(stage: Stage) -> None:
    rates = Rates(1.0)
    rates.charge(Bucket("acme", Purpose.CLIENT), 2.0, WALL_MS)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, rates, Rates())
    async with stage.running():
        began_s = anyio.current_time()
        stage.router.hear_frames([b"AR1", bytes(16), b"read", b"\x81\xa4type" + bytes(100)])
        stage.router.hear(Ping())
        assert isinstance(await stage.reply(), Pong)
        assert anyio.current_time() == began_s
        refused = await stage.reply()
        assert isinstance(refused, Refused)
        assert (refused.code, refused.retry_ms) == ("quota", 0), "it is told when the same may be asked again"
        assert anyio.current_time() - began_s == pytest.approx(1, abs=0.01)  # virtual


async def test_a_refusal_is_not_held_for_ever_and_says_how_long_to_wait_on(stage: Stage) -> None:
    rates = Rates(1.0)
    rates.charge(Bucket("acme", Purpose.CLIENT), 10.0, WALL_MS)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, rates, Rates())
    async with stage.running():
        began_s = anyio.current_time()
        stage.router.hear(ListJobs(), token=b"read")
        refused = await stage.reply()
        assert isinstance(refused, Refused)
        assert (refused.code, refused.retry_ms) == ("quota", 9_001 - HOLD_MS_MAX)
        assert anyio.current_time() - began_s == pytest.approx(HOLD_MS_MAX / 1_000, abs=0.01)  # virtual


async def test_what_turns_out_to_be_no_request_is_paid_for_as_the_largest_of_its_size(stage: Stage) -> None:
    rates = Rates(100.0)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, rates, Rates())
    async with stage.running():
        nonsense = b"\x81\xa1x\xdd\x00\x00\x7f\xff" + bytes(32_766)
        stage.router.hear_frames([b"AR1", bytes(16), b"read", nonsense])
        refused = await stage.reply()
        assert isinstance(refused, Refused)
        assert refused.code == "bad-request"
        with pytest.raises(Quota):
            rates.require(Bucket("acme", Purpose.CLIENT), WALL_MS)


@pytest.mark.parametrize(
    "frames", [[b"AR1", bytes(16)], [b"AR1", bytes(16), b"", encode(Ping())], [b"AR1", bytes(16), b"", b"\x80"]]
)
async def test_what_is_no_tenants_is_paid_for_by_its_machine(stage: Stage, frames: list[bytes]) -> None:
    unattributed = Rates(1.0)
    unattributed.charge(Bucket("local", Purpose.MACHINE), 0.5, WALL_MS)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, Rates(), unattributed)
    async with stage.running():
        stage.router.hear_frames(frames)
        first = await stage.reply()
        assert not isinstance(first, Refused) or first.code == "bad-request"
        stage.router.hear_frames(frames)
        second = await stage.reply()
        assert isinstance(second, Refused)
        assert second.code == "quota"


async def test_more_refusals_than_are_held_are_told_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarpit, "HELD_MAX", 1)
    rates = Rates(1.0)
    rates.charge(Bucket("acme", Purpose.CLIENT), 2.0, WALL_MS)
    stage.admission = Admission(FakeAuthority(), stage.listed.get, rates, Rates())
    async with stage.running():
        began_s = anyio.current_time()
        for number in (1, 2):
            stage.router.hear(ListJobs(page_size=100), number, token=b"read")
        assert [(await stage.router.said.receive())[1] for _ in range(2)] == [request_id(2), request_id(1)]
        assert anyio.current_time() > began_s
