"""Links of the simulated network: its weather, and one way of one connection, whose messages go one after the other."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from tests.simulation.machine import true_s

ENVELOPE_BYTES: Final = 100  # around a message: frames, boxes, packets
LONG_S: Final = 4.0  # on its way: then it counts as rare


class Weather(Struct):
    """How the network is just now; probabilities for each message, delays in seconds."""

    loss: float = 0.0
    doubling: float = 0.0
    delay_s: float = 0.001  # at the least
    jitter_s: float = 0.002
    slow: float = 0.0  # of taking much longer
    slow_s: float = 2.0


class Waiting(Struct):
    """The most that has waited for a subscriber, and the largest message of it."""

    bytes: int = 0
    message_bytes: int = 0


class Way:
    """One direction; `bytes_a_s` None is as good as at once."""

    def __init__(self, bytes_a_s: float | None = None) -> None:
        self._bytes_a_s = bytes_a_s
        self._free_s = 0.0  # when all that is on its way is through
        self._on_way: deque[tuple[float, float, int]] = deque()  # from when to when, and how many bytes
        self._passed_bytes = 0

    def through_s(self, size_bytes: int) -> float:
        """Put a message behind the others; how long from now until it is through."""
        if self._bytes_a_s is None:
            return 0.0
        begin_s = max(true_s(), self._free_s)
        self._free_s = begin_s + (size_bytes + ENVELOPE_BYTES) / self._bytes_a_s
        self._on_way.append((begin_s, self._free_s, size_bytes))
        return self._free_s - true_s()

    @property
    def waiting(self) -> int:
        """How many messages are not through yet."""
        self._pass()
        return len(self._on_way)

    @property
    def waiting_bytes(self) -> int:
        """What is not through yet."""
        self._pass()
        return sum(size for _, _, size in self._on_way)

    @property
    def passed_bytes(self) -> int:
        """What is through, the part of a message included."""
        self._pass()
        if not self._on_way:
            return self._passed_bytes
        begin_s, end_s, size = self._on_way[0]
        return self._passed_bytes + int(size * max(0.0, true_s() - begin_s) / (end_s - begin_s))

    def _pass(self) -> None:
        while self._on_way and self._on_way[0][1] <= true_s():
            self._passed_bytes += self._on_way.popleft()[2]
