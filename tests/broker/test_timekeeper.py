"""An expiry wakes the Ledger exactly when it is due, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.clock import Clock
from airunner.broker.inbox import Alarm, Asked
from airunner.broker.store.contract import Expire
from airunner.broker.timekeeper import Timekeeper
from tests.broker.stage import WALL_MS, acting

pytestmark = pytest.mark.anyio


class Stage:
    """A Timekeeper, its alarms and what it says."""

    def __init__(self) -> None:
        self.alarms, self.inbox = anyio.create_memory_object_stream[Alarm](16)
        self.to_ledger, self.ledger = anyio.create_memory_object_stream[Asked | Expire](16)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Clock]:
        clock = Clock(lambda: WALL_MS)
        async with acting(Timekeeper(self.inbox, self.to_ledger, clock).run):
            yield clock
        for stream in (self.alarms, self.inbox, self.to_ledger, self.ledger):
            stream.close()


async def test_expiry_wakes_exactly_when_due() -> None:
    stage = Stage()
    async with stage.running() as clock:
        stage.alarms.send_nowait(Alarm(WALL_MS + 300_000))
        assert await stage.ledger.receive() == Expire()
        assert 0 <= clock.now_ms() - (WALL_MS + 300_000) <= 2


async def test_what_is_due_already_wakes_at_once() -> None:
    stage = Stage()
    async with stage.running() as clock:
        stage.alarms.send_nowait(Alarm(WALL_MS - 1))
        await stage.ledger.receive()
        assert clock.now_ms() - WALL_MS <= 1


@pytest.mark.parametrize("later", [Alarm(None), Alarm(WALL_MS + 500_000)])
async def test_a_new_instant_takes_the_place_of_the_old(later: Alarm) -> None:
    stage = Stage()
    async with stage.running():
        stage.alarms.send_nowait(Alarm(WALL_MS + 1_000))
        await wait_all_tasks_blocked()
        stage.alarms.send_nowait(later)
        await anyio.sleep(400)  # virtual
        assert stage.ledger.statistics().current_buffer_used == 0


async def test_after_waking_it_waits_to_be_told_the_next() -> None:
    stage = Stage()
    async with stage.running():
        stage.alarms.send_nowait(Alarm(WALL_MS))
        await stage.ledger.receive()
        await anyio.sleep(1_000)  # virtual
        assert stage.ledger.statistics().current_buffer_used == 0
        stage.alarms.send_nowait(Alarm(WALL_MS))
        assert await stage.ledger.receive() == Expire()
