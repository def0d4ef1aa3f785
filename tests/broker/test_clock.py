"""The broker's clock rises steadily, whatever is done to the machine's."""

from __future__ import annotations

import anyio
import pytest

from airunner.broker.clock import Clock

pytestmark = pytest.mark.anyio


async def test_a_step_of_the_wall_clock_is_not_felt() -> None:
    wall = [1_000_000]
    clock = Clock(lambda: wall[0])
    assert clock.now_ms() == pytest.approx(1_000_000, abs=1)
    wall[0] = 5
    await anyio.sleep(10)  # virtual
    assert clock.now_ms() == pytest.approx(1_010_000, abs=1)


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
    wall[0] += 3_600_000
    assert clock.stepped()
    before_ms = clock.now_ms()
    offset_ms = clock.follow()
    assert clock.now_ms() == pytest.approx(before_ms + 3_600_000, abs=1)
    assert not clock.stepped()
    clock.back(offset_ms)
    assert clock.now_ms() == pytest.approx(before_ms, abs=1)
    assert clock.stepped()
