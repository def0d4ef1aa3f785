"""Refusals that are told late: asking harder than one may gains nothing, and costs little to refuse. Pure.

Only where to and what is kept, and that for so many; what comes beyond is told at once.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final, NamedTuple

from airunner.protocol.names import RequestId
from airunner.protocol.replies import Refused

HELD_MAX: Final = 16_384


class Held(NamedTuple):
    """A refusal, and when it is due (ms)."""

    due_ms: int
    turn: int
    peer: bytes
    request_id: RequestId
    refused: Refused
    revision: int


class Tarpit:
    """What is held, the next that is due first."""

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._turns = count()

    def hold(self, due_ms: int, peer: bytes, request_id: RequestId, refused: Refused, revision: int) -> bool:
        """Keep it until then; False where there is no room."""
        if len(self._held) >= HELD_MAX:
            return False
        heapq.heappush(self._held, Held(due_ms, next(self._turns), peer, request_id, refused, revision))
        return True

    def due(self, now_ms: int) -> list[Held]:
        """Let go of what is due."""
        due: list[Held] = []
        while self._held and self._held[0].due_ms <= now_ms:
            due.append(heapq.heappop(self._held))
        return due

    def next_ms(self) -> int | None:
        """When the next is due."""
        return self._held[0].due_ms if self._held else None
