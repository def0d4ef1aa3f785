"""Reports of an agent: its lines for the operator, gathered while many come, so that they cost few writes.

A line that comes `GATHER_S` or more after the last write is written in the event loop's next turn: the job that it
reports begins before the line's reader wakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import anyio

from airunner.transport.bell import Bell

GATHER_S: Final = 0.05  # longest time that a line waits for others
LINES_MAX: Final = 100  # gathered lines that are written without waiting for more


class Reports:
    """Reports, whose lines `write` writes."""

    def __init__(self, write: Callable[[Sequence[str]], None]) -> None:
        self._write = write
        self._lines: list[str] = []
        self._due_s = 0.0  # when the next lines may be written
        self._gathered = Bell()

    def add(self, line: str) -> None:
        """Write a line soon."""
        self._lines.append(line)
        if len(self._lines) == 1:
            self._gathered.ring()
        elif len(self._lines) == LINES_MAX:
            self._flush()

    async def run(self) -> None:
        """Write gathered lines when they are due, until cancelled; then write the rest."""
        try:
            while True:
                if not self._lines:
                    await self._gathered.wait()
                if anyio.current_time() < self._due_s:
                    await anyio.sleep_until(self._due_s)
                self._flush()
        finally:
            self._flush()

    def _flush(self) -> None:
        self._due_s = anyio.current_time() + GATHER_S
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(lines)
