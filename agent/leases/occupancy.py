"""Occupancy: counts the busy slots, and waits until all slots have been idle for a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio

from airunner.transport.bell import Bell


class Occupancy:
    """Occupancy of an agent's slots; at first all are idle."""

    def __init__(self) -> None:
        self._busy = 0
        self._changed = Bell()

    @contextmanager
    def busy(self) -> Generator[None]:
        """Open a block during which one more slot counts as busy."""
        self._move(1)
        try:
            yield
        finally:
            self._move(-1)

    async def idle_for(self, seconds: float) -> None:
        """Wait until all slots have been idle for `seconds`; time before this call does not count."""
        while True:
            while self._busy:
                await self._changed.wait()
            with anyio.move_on_after(seconds) as pause:
                await self._changed.wait()
            if pause.cancelled_caught and not self._busy:
                return

    def _move(self, slots: int) -> None:
        self._busy += slots
        self._changed.ring()
