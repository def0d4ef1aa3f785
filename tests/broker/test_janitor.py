"""The Janitor asks for one small step after the other, and rests when there is nothing to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.clock import Clock
from airunner.broker.inbox import Pending, Swept
from airunner.broker.janitor import DAY_MS, REST_S, Janitor, RetentionPlan
from airunner.broker.lifecycle.commands import Expire, Retain
from tests.broker.stage import WALL_MS, acting


class Stage:
    """A Janitor, what it asks, and what it is told."""

    def __init__(self, plan: RetentionPlan) -> None:
        self.plan = plan
        self.on_duty = True
        self.swept, self.inbox = anyio.create_memory_object_stream[Swept](1)
        self.to_ledger, self.ledger = anyio.create_memory_object_stream[Pending | Expire | Retain](16)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clock = Clock(lambda: WALL_MS)
        async with acting(Janitor(self.inbox, self.to_ledger, clock, self.plan, lambda: self.on_duty).run):
            yield
        for stream in (self.swept, self.inbox, self.to_ledger, self.ledger):
            stream.close()

    def asked(self) -> Retain | None:
        """What it asks for now, if anything."""
        try:
            step = self.ledger.receive_nowait()
        except anyio.WouldBlock:
            return None
        return step

    async def tell(self, *, more: bool) -> None:
        await self.swept.send(Swept(more))
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("plan", "days", "bytes_max"),
    [(RetentionPlan(retain_days=2.5, store_bytes_max=7), 2.5, 7), (RetentionPlan(), 30, None)],
)
async def test_it_begins_at_once_with_what_the_plan_says(plan: RetentionPlan, days: float, bytes_max: int) -> None:
    stage = Stage(plan)
    async with stage.running():
        step = stage.asked()
        assert step.store_bytes_max == bytes_max
        assert 0 <= step.finished_before_ms - (WALL_MS - days * DAY_MS) <= 2


async def test_it_asks_for_one_step_at_a_time_while_there_is_more_and_then_rests_and_looks_again() -> None:
    stage = Stage(RetentionPlan())
    async with stage.running():
        first = stage.asked()
        assert first
        await anyio.sleep(10 * REST_S)  # virtual
        assert stage.asked() is None, "the first is not done yet"
        began_s = anyio.current_time()
        for _ in range(5):
            await stage.tell(more=True)
            assert stage.asked()
        assert anyio.current_time() - began_s < REST_S
        await stage.tell(more=False)
        assert stage.asked() is None
        await anyio.sleep(REST_S + 0.01)  # virtual
        moved_ms = stage.asked().finished_before_ms - first.finished_before_ms
        assert moved_ms == pytest.approx(11 * REST_S * 1_000, abs=15)


async def test_it_works_only_on_duty_and_looks_later_whether_it_is() -> None:
    stage = Stage(RetentionPlan())
    stage.on_duty = False
    async with stage.running():
        await anyio.sleep(10 * REST_S)  # virtual
        assert stage.asked() is None
        stage.on_duty = True
        await anyio.sleep(REST_S + 0.01)  # virtual
        assert stage.asked()
