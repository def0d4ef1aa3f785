"""Occupancy: counts the busy slots, and waits until all slots have been idle for a time."""

from __future__ import annotations

import anyio

from airunner.transport.bell import Bell


class Occupancy:
    """Occupancy of an agent's slots; at first all are idle. During a `with` block one more slot counts as busy."""

    def __init__(self) -> None:
        self.busy = 0  # slots
        self._changed = Bell()

    def __enter__(self) -> None:
        self._move(1)

    def __exit__(self, *_: object) -> None:
        self._move(-1)

    async def idle_for(self, seconds: float) -> None:
        """Wait until all slots have been idle for `seconds`; time before this call does not count."""
        while True:
            while self.busy:
                await self._changed.wait()
            with anyio.move_on_after(seconds) as pause:
                await self._changed.wait()
            if pause.cancelled_caught and not self.busy:
                return

    def _move(self, slots: int) -> None:
        self.busy += slots
        self._changed.ring()
