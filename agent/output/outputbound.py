"""Output bound: keeps head and tail of a long log, and between them an event that says how much is missing. Pure.

```
 passed on ─────── head ───────┐ left out: counted │ tail ┐
                               └ OUTPUT_TRUNCATED ─┘
```

A job's log has a size limit: what comes after the head is held back, the oldest of it dropped, and at the end the event
and the tail are logged. While the broker is away and the spools' share of the disk is used up, the same happens until
there is room again. The command's output is read all the while, so the command is never held up.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from airunner.protocol.events import Stream

TAIL_BYTES: Final = 262_144  # in memory, for each attempt that has come so far


class Piece(NamedTuple):
    """Piece of output, and when it was read."""

    stream: Stream
    data: bytes
    timestamp_ms: int


class Gap(NamedTuple):
    """Gap in the output: how much is missing here."""

    omitted_bytes: int


class OutputBound:
    """Output bound of one attempt."""

    def __init__(self, log_bytes_max: int, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes = max(0, log_bytes_max - tail_bytes)
        self._tail_bytes = min(tail_bytes, log_bytes_max)
        self._passed_bytes = 0
        self._held: deque[Piece] = deque()
        self._held_bytes = 0
        self._omitted_bytes = 0

    @property
    def holding(self) -> bool:
        """Whether output is held back."""
        return bool(self._held)

    def add(self, piece: Piece, *, room: bool) -> list[Piece | Gap]:
        """Add a piece of output, with or without room for it, and return what is to be logged now."""
        going_on: list[Piece | Gap] = []
        left_bytes = self._head_bytes - self._passed_bytes if room else 0
        if self._held and left_bytes > 0:
            going_on = self.finish()
            left_bytes = self._head_bytes - self._passed_bytes
        if not self._held and left_bytes > 0:
            now, later = piece.data[:left_bytes], piece.data[left_bytes:]
            self._passed_bytes += len(now)
            going_on.append(piece._replace(data=now))
            piece = piece._replace(data=later)
        if piece.data:
            self._hold(piece)
        return going_on

    def finish(self) -> list[Piece | Gap]:
        """Return what was held back, at the end of the output."""
        going_on: list[Piece | Gap] = [Gap(self._omitted_bytes)] if self._omitted_bytes else []
        going_on += self._held
        self._passed_bytes += self._held_bytes
        self._held.clear()
        self._held_bytes = self._omitted_bytes = 0
        return going_on

    def _hold(self, piece: Piece) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece.data)
        while (excess := self._held_bytes - self._tail_bytes) > 0:
            first = self._held.popleft()
            dropped = min(excess, len(first.data))
            self._held_bytes -= dropped
            self._omitted_bytes += dropped
            if dropped < len(first.data):
                self._held.appendleft(first._replace(data=first.data[dropped:]))
