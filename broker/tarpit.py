"""Tarpit: delays rate-limit replies, so that a client that asks too often gains nothing by repeating. Pure.

It keeps only the address and the reply, for up to `HELD_MAX` of them; the Gateway sends further ones at once.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final, NamedTuple

from airunner.protocol.names import RequestId
from airunner.protocol.replies import Refused

HELD_MAX: Final = 16_384


class DelayedReply(NamedTuple):
    """Delayed reply, and when it is due (ms)."""

    due_ms: int
    turn: int
    peer: bytes
    request_id: RequestId
    refused: Refused
    revision: int


class Tarpit:
    """Tarpit of delayed replies, the next due first."""

    def __init__(self) -> None:
        self._held: list[DelayedReply] = []
        self._turns = count()

    def hold(self, due_ms: int, peer: bytes, request_id: RequestId, refused: Refused, revision: int) -> bool:
        """Delay a reply until `due_ms`; False where there is no room."""
        if len(self._held) >= HELD_MAX:
            return False
        heapq.heappush(self._held, DelayedReply(due_ms, next(self._turns), peer, request_id, refused, revision))
        return True

    def due(self, now_ms: int) -> list[DelayedReply]:
        """Remove and return the replies that are due."""
        due: list[DelayedReply] = []
        while self._held and self._held[0].due_ms <= now_ms:
            due.append(heapq.heappop(self._held))
        return due

    def next_ms(self) -> int | None:
        """Find when the next reply is due."""
        return self._held[0].due_ms if self._held else None
