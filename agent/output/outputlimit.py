"""Output limit: limits the output that one attempt logs. Of longer output it keeps the head and the tail. Pure.

```
 logged at once ── head ───────┐ dropped, counted  │ tail ┐
                               └ OUTPUT_TRUNCATED ─┘
```

Output after the head is held back: its newest bytes (the tail) stay in memory, older bytes are counted and dropped. At
the end of the output, an event with the count is logged, and then the tail. The same happens when the outbox is full
and nothing was acknowledged for `recorder.UNACKNOWLEDGED_S`, until there is room again. While output is held back, the
command is not blocked, because its output is read.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from airunner.agent.output.characters import continued_bytes, cut
from airunner.protocol.events import Stream

TAIL_BYTES: Final = 262_144  # size of the tail, in memory for each attempt whose output is held back


class Piece(NamedTuple):
    """Piece of output, and when it was read."""

    stream: Stream
    data: bytes
    timestamp_ms: int


class Gap(NamedTuple):
    """Gap in the output: the number of bytes that were dropped here."""

    omitted_bytes: int


class OutputLimit:
    """Output limit of one attempt."""

    def __init__(self, log_bytes_max: int, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes = max(0, log_bytes_max - tail_bytes)
        self._tail_bytes = min(tail_bytes, log_bytes_max)
        self._passed_bytes = 0
        self._head_is_cut = False  # the head is over, up to 3 bytes early, which the tail gets
        self._held: deque[Piece] = deque()
        self._held_bytes = 0
        self._omitted_bytes = 0

    @property
    def holding(self) -> bool:
        """Whether output is held back."""
        return bool(self._held)

    def add(self, piece: Piece, *, room: bool) -> list[Piece | Gap]:
        """Add a piece of output, and return the pieces and gaps to log now. `room`: the outbox is not full."""
        logged: list[Piece | Gap] = []
        left_bytes = self._left_bytes if room else 0
        if self._held and left_bytes > 0:
            logged = self.flush()
            left_bytes = self._left_bytes
        if not self._held and left_bytes > 0:
            now, later = cut(piece.data, left_bytes)
            self._passed_bytes += len(now)
            if not later:
                return [*logged, piece]
            self._head_is_cut = True
            if now:
                logged.append(piece._replace(data=now))
            piece = piece._replace(data=later)
        self._hold(piece)
        return logged

    def flush(self) -> list[Piece | Gap]:
        """Return the gap and the output that was held back: the output has ended, or there is room again."""
        logged: list[Piece | Gap] = [Gap(self._omitted_bytes)] if self._omitted_bytes else []
        logged += self._held
        self._passed_bytes += self._held_bytes
        self._held.clear()
        self._held_bytes = self._omitted_bytes = 0
        return logged

    @property
    def _left_bytes(self) -> int:
        return 0 if self._head_is_cut else self._head_bytes - self._passed_bytes

    def _hold(self, piece: Piece) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece.data)
        dropped = False
        tail_bytes = self._tail_bytes + (self._head_bytes - self._passed_bytes if self._head_is_cut else 0)
        while (excess := self._held_bytes - tail_bytes) > 0:
            self._drop(excess)
            dropped = True
        if dropped and self._held:
            self._drop(continued_bytes(self._held[0].data))  # so that the tail begins with a whole character

    def _drop(self, size: int) -> None:
        """Drop up to `size` bytes of the oldest piece."""
        first = self._held.popleft()
        rest = first.data[size:]
        self._held_bytes -= len(first.data) - len(rest)
        self._omitted_bytes += len(first.data) - len(rest)
        if rest:
            self._held.appendleft(first._replace(data=rest))
