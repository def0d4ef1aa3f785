"""Steps that offload their work go on in its callback, and end with their task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import anyio
import anyio.lowlevel
import pytest
from trio.testing import wait_all_tasks_blocked

from airunner.broker.offload import Stepper, Steps
from tests.broker.stage import Disk, acting


class Stage:
    """Steps that note what they do: two pieces of work, and a pause, in which they are when the stage opens."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.done: list[str] = []
        self.stepper = Stepper(self.steps(), self.disk)

    def steps(self) -> Steps[None]:
        while True:
            yield lambda: self.done.append("work")
            yield lambda: self.done.append("more work")
            self.done.append("spoken")
            yield None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        async with acting(self.stepper.run):
            self.done.clear()
            yield self

    def begin(self) -> None:
        """Go on, with work that does not end."""
        self.disk.hold()
        self.stepper.go_on()


async def test_what_follows_work_takes_no_turn_and_nothing_goes_on_meanwhile() -> None:
    async with Stage().opened() as stage:
        stage.begin()
        stage.stepper.go_on()
        assert len(stage.disk.waiting) == 1
        stage.disk.let_go()
        assert stage.done == ["work", "more work", "spoken"]


async def test_a_step_that_is_due_comes_at_its_instant_and_what_is_due_now_after_others_had_a_turn() -> None:
    async with Stage().opened() as stage:
        stage.stepper.due(anyio.current_time() + 20)
        stage.stepper.due(anyio.current_time() + 10)
        await anyio.sleep(9)  # virtual
        assert stage.done == []
        await anyio.sleep(2)  # virtual
        assert stage.done.count("spoken") == 1
        stage.stepper.due(0)
        assert stage.done.count("spoken") == 1
        await wait_all_tasks_blocked()
        assert stage.done.count("spoken") == 2
        await anyio.sleep(30)  # virtual
        assert stage.done.count("spoken") == 2


async def test_what_a_step_raises_ends_the_task_and_work_that_ends_later_than_the_task_has_no_effect() -> None:
    def fail() -> None:
        raise OSError("no disk")

    def steps() -> Steps[None]:
        yield fail

    with pytest.raises(OSError, match="no disk"):
        await Stepper(steps(), Disk()).run()
    async with Stage().opened() as stage:
        stage.begin()
    stage.disk.let_go()
    assert stage.done == ["work"]
