"""Bell: wakes the tasks that wait for something to change.

A task checks its condition in a loop, and waits for the next ring while the condition is false. A ring while no task
waits is lost, so there must be no `await` between the check and the wait.
"""

from __future__ import annotations

import anyio


class Bell:
    """A bell that any number of tasks wait for."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None  # made by the first task that waits

    def ring(self) -> None:
        """Wake every task that waits now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next ring."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
