"""Backoff: repeats a refused request after random pauses, whose bound doubles with each consecutive refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from airunner.protocol.errors import PeerError
from airunner.protocol.reconnect import full_jitter_ms

_Granted = TypeVar("_Granted")


class Backoff:
    """Pauses between tries: full jitter (`random` is in [0, 1)) below a bound from `first_ms` to `last_ms`."""

    def __init__(self, random: Callable[[], float], first_ms: int, last_ms: int) -> None:
        self._random = random
        self._first_ms = first_ms
        self._last_ms = last_ms
        self.failures = 0  # consecutive

    def next_s(self) -> float:
        """Count a failure, and return the pause in seconds that follows it."""
        pause_ms = full_jitter_ms(self._random, self.failures, self._first_ms, self._last_ms)
        self.failures += 1
        return pause_ms / 1_000

    async def pause(self) -> None:
        """Count a failure and sleep."""
        await anyio.sleep(self.next_s())

    def reset(self) -> None:
        """Begin with the shortest pause again, after a success."""
        self.failures = 0


async def retry(
    ask: Callable[[], Awaitable[_Granted]],
    backoff: Backoff,
    refused: Callable[[PeerError], None],
    *,
    final: tuple[type[PeerError], ...] = (),
) -> _Granted:
    """Repeat `ask` until the broker grants it; call `refused` with the first refusal. Raises a refusal in `final`."""
    while True:
        try:
            granted = await ask()
        except final:
            raise
        except PeerError as error:
            if not backoff.failures:
                refused(error)
            await backoff.pause()
        else:
            backoff.reset()
            return granted
