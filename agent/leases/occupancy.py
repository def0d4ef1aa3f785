"""Occupancy: counts the slots that have a job, and waits until none has had one for a while."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio

from airunner.transport.bell import Bell


class Occupancy:
    """Occupancy of an agent's slots; idle at first."""

    def __init__(self) -> None:
        self._busy = 0
        self._changed = Bell()

    @contextmanager
    def busy(self) -> Generator[None]:
        """Open a block in which a slot has a job."""
        self._move(1)
        try:
            yield
        finally:
            self._move(-1)

    async def idle_for(self, seconds: float) -> None:
        """Wait until no slot has had a job for `seconds`, counted from now on."""
        while True:
            while self._busy:
                await self._changed.wait()
            with anyio.move_on_after(seconds) as patience:
                await self._changed.wait()
            if patience.cancelled_caught and not self._busy:
                return

    def _move(self, slots: int) -> None:
        self._busy += slots
        self._changed.ring()
