"""A disk that does not answer is told by /health, while every request waits for it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from airunner.broker.health import Health, Status
from airunner.broker.stalls import STALLED_S, Stalls

pytestmark = pytest.mark.anyio


async def test_a_disk_that_does_not_answer_makes_the_broker_unavailable_until_it_does() -> None:
    said: list[str] = []
    health = Health(said.append)
    answers = anyio.Event()
    done: list[str] = []

    async def thread(work: Callable[[], None]) -> None:
        await answers.wait()
        work()

    stalls = Stalls(thread, health)
    async with anyio.create_task_group() as group:
        group.start_soon(stalls, lambda: done.append("committed"))
        await anyio.sleep(STALLED_S - 1)  # virtual
        assert health.status is Status.OK
        await anyio.sleep(2)  # virtual
        assert health.status is Status.UNAVAILABLE
        assert "has not finished a read or write for 11 s" in health.conditions["stall"]
        answers.set()
    assert (done, health.status, health.conditions) == (["committed"], Status.OK, {})
    assert said[-1] == "no longer degraded: stall"
