"""A Lazy Pirate and what it has asked."""

from __future__ import annotations

from airunner.protocol.coding import refusal
from airunner.protocol.errors import Busy
from airunner.protocol.names import RequestId
from airunner.protocol.reconnect import Action, LazyPirate, Send

ONE = RequestId(b"1" * 16)
TWO = RequestId(b"2" * 16)
BUSY = refusal(Busy())
HIGHEST = 1 - 2**-53


def pirate(random: float = 0.5, endpoints: tuple[str, ...] = ("a", "b")) -> LazyPirate:
    return LazyPirate(endpoints, lambda: random)


def asking(*resend_after_ms: int, random: float = 0.5) -> LazyPirate:
    """One that has asked ONE, or ONE and TWO, at instant 0."""
    asker = pirate(random)
    for request_id, body, after_ms in zip((ONE, TWO), (b"one", b"two"), resend_after_ms, strict=False):
        asker.ask(request_id, body, 0, after_ms)
    return asker


def sent(actions: list[Action]) -> list[RequestId]:
    return [action.request_id for action in actions if isinstance(action, Send)]
