"""Tarpit: delays rate-limit replies, so that a client with too many requests gains nothing by repeating them. Pure.

Only address and reply are retained. While `DELAYED_MAX` replies are delayed, the Gateway sends further ones at once.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final, NamedTuple

from airunner.protocol.names import RequestId
from airunner.protocol.replies import Refused

DELAYED_MAX: Final = 16_384  # delayed replies of all peers together


class DelayedReply(NamedTuple):
    """Delayed reply to a `peer`, sent at `due_ms`; of two that are due at once, the lower `turn` goes first."""

    due_ms: int
    turn: int
    peer: bytes
    request_id: RequestId
    refused: Refused
    revision: int


class Tarpit:
    """Tarpit: the delayed replies, ordered by when they are due."""

    def __init__(self) -> None:
        self._delayed: list[DelayedReply] = []
        self._turns = count()

    def delay(self, due_ms: int, peer: bytes, request_id: RequestId, refused: Refused, revision: int) -> bool:
        """Delay a reply until `due_ms`; False: there is no room, so the caller sends it."""
        if len(self._delayed) >= DELAYED_MAX:
            return False
        heapq.heappush(self._delayed, DelayedReply(due_ms, next(self._turns), peer, request_id, refused, revision))
        return True

    def due(self, now_ms: int) -> list[DelayedReply]:
        """Remove and return the replies that are due."""
        due: list[DelayedReply] = []
        while self._delayed and self._delayed[0].due_ms <= now_ms:
            due.append(heapq.heappop(self._delayed))
        return due

    def next_ms(self) -> int | None:
        """Return when the next reply is due (ms); None: no reply is delayed."""
        return self._delayed[0].due_ms if self._delayed else None
