"""Steps of the machine's clock, as something to react to: its time was set, or it woke up from a sleep.

Instants are compared with clocks that count on, but a wait of the event loop stands still while the machine does. So
what waits for an instant looks again at each step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import anyio

from airunner.transport.timers import StepTimer

LOOK_AGAIN_S: Final = 5.0  # where the kernel does not say it


async def no_steps(_react: Callable[[], None]) -> None:
    """Steps of a clock that nobody sets: there are none."""
    await anyio.sleep_forever()


async def watch_steps(react: Callable[[], None]) -> None:
    """Call `react` after each step of this machine's clock, for ever; several that come at once may count as one."""
    if sys.platform != "linux":
        while True:
            await anyio.sleep(LOOK_AGAIN_S)
            react()
    timer = StepTimer()
    try:
        while True:
            await anyio.wait_readable(timer.descriptor)
            timer.again()
            react()
    finally:
        anyio.notify_closing(timer.descriptor)
        timer.close()
