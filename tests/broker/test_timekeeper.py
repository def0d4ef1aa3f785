"""The broker's clock rises steadily, and an expiry wakes the Ledger exactly when it is due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.clock import Clock
from airunner.broker.inbox import Alarm, Pending
from airunner.broker.lifecycle.commands import Expire, RenewAll
from airunner.broker.timekeeper import Timekeeper
from tests.broker.stage import WALL_MS, ToLedger, acting, edges


class Stage:
    """A Timekeeper, its alarms and what it says."""

    def __init__(self) -> None:
        self.alarms, self.inbox = anyio.create_memory_object_stream[Alarm](16)
        self.to_ledger = ToLedger[Pending | Expire | RenewAll]()
        self.ledger = self.to_ledger.received
        self.stepped_ms = 0
        self.step = lambda: None
        self._began_s = anyio.current_time()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Clock]:
        here = msgspec.structs.replace(edges(), wall_ms=self._wall_ms, watch_steps=self._watch)
        clock = Clock(here.wall_ms)
        async with acting(Timekeeper(self.inbox, self.to_ledger, clock, here).run):
            yield clock
        for stream in (self.alarms, self.inbox, self.to_ledger):
            stream.close()

    def _wall_ms(self) -> int:
        return WALL_MS + self.stepped_ms + int((anyio.current_time() - self._began_s) * 1_000)

    async def _watch(self, react: Callable[[], None]) -> None:
        self.step = react
        await anyio.sleep_forever()


@pytest.mark.parametrize("after_ms", [300_000, -1])
async def test_expiry_wakes_exactly_when_due_or_at_once(after_ms: int) -> None:
    stage = Stage()
    async with stage.running() as clock:
        for _ in range(2):
            due_ms = clock.now_ms() + after_ms
            stage.alarms.send_nowait(Alarm(due_ms))
            assert await stage.ledger.receive() == Expire()
            assert 0 <= clock.now_ms() - max(due_ms, due_ms - after_ms) <= 2
            await anyio.sleep(1_000)  # virtual
            assert stage.ledger.statistics().current_buffer_used == 0, "it waits to be told the next"


@pytest.mark.parametrize("later", [Alarm(None), Alarm(WALL_MS + 500_000)])
async def test_a_new_instant_takes_the_place_of_the_old(later: Alarm) -> None:
    stage = Stage()
    async with stage.running():
        stage.alarms.send_nowait(Alarm(WALL_MS + 1_000))
        await wait_all_tasks_blocked()
        stage.alarms.send_nowait(later)
        await anyio.sleep(400)  # virtual
        assert stage.ledger.statistics().current_buffer_used == 0


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
async def test_a_step_of_the_time_has_the_ledger_resume_at_once(step_ms: int) -> None:
    stage = Stage()
    async with stage.running():
        stage.alarms.send_nowait(Alarm(WALL_MS + 300_000))
        await wait_all_tasks_blocked()
        stage.step()
        assert stage.ledger.statistics().current_buffer_used == 0, "nothing has changed"
        stage.stepped_ms = step_ms
        stage.step()
        assert stage.ledger.receive_nowait() == RenewAll()
        stage.stepped_ms += 2_000
        assert await stage.ledger.receive() == RenewAll(), "and nothing is found due by one that nobody has seen"


async def test_when_a_deadline_wakes_its_instant_has_passed() -> None:
    clock = Clock(lambda: 1_000_000)
    for instant_ms in range(1_000_000, 1_000_050):
        await anyio.sleep_until(clock.deadline_s(instant_ms))
        assert clock.now_ms() >= instant_ms


async def test_a_machine_whose_time_was_set_or_that_slept_has_stepped_and_is_followed_when_asked() -> None:
    wall = [1_000_000]
    clock = Clock(lambda: wall[0] + int(anyio.current_time() * 1_000))
    await anyio.sleep(10)  # virtual
    assert not clock.stepped()
    before_ms = clock.now_ms()
    assert before_ms == pytest.approx(wall[0] + int(anyio.current_time() * 1_000), abs=1)
    wall[0] += 3_600_000
    assert clock.stepped()
    assert clock.now_ms() == pytest.approx(before_ms, abs=1), "the step itself is not felt"
    offset_ms = clock.follow()
    assert clock.now_ms() == pytest.approx(before_ms + 3_600_000, abs=1)
    assert not clock.stepped()
    clock.back(offset_ms)
    assert clock.now_ms() == pytest.approx(before_ms, abs=1)
    assert clock.stepped()
