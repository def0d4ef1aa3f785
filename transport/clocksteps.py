"""Clock steps: reports when the machine's time was set, or when the machine woke up from sleep.

Code compares instants by clocks that count on during sleep, but a wait of the event loop stands still while the machine
sleeps. So code that waits for an instant checks the time again after each step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import anyio

from airunner.transport.timers import StepTimer

LOOK_AGAIN_S: Final = 5.0  # where the kernel does not report steps


async def no_steps(_react: Callable[[], None]) -> None:
    """Watch a clock that is never set: never calls `_react`."""
    await anyio.sleep_forever()


async def watch_steps(react: Callable[[], None]) -> None:
    """Watch the machine's clock: call `react` after each step, for ever. Steps that come at once may count as one."""
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
