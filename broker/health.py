"""Health of the broker, as /health shows it: named conditions, each with words that say what is wrong.

Without a condition the broker is `ok`. With a condition it is `degraded`: it still serves requests, so a load balancer
should keep sending it traffic. While the store answers no request it is `unavailable`. Everybody who can reach /health
can read the words: they contain no key or token, nothing of a job, and no tenant's name. The broker writes one line to
stderr when a condition begins, and one when it is over; it looks for itself, also where nobody asks for /health.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import anyio

LOOK_S: Final = 5.0  # between two looks of the broker: what comes and goes is not said more often


class Status(StrEnum):
    """Status of the broker, from all conditions together."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Health:
    """Health conditions by name; `say` gets one line when a condition begins and one when it is over."""

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self._say = say
        self._conditions: dict[str, str] = {}
        self._failed: set[str] = set()
        self._watched: list[Callable[[], None]] = []

    def watch(self, look: Callable[[], None]) -> None:
        """Register `look`, a check that sets or clears a condition; it is called each time that health is shown."""
        self._watched.append(look)

    async def run(self) -> None:
        """Call the registered checks every `LOOK_S`, until cancelled."""
        while True:
            self._look()
            await anyio.sleep(LOOK_S)

    @property
    def is_ready(self) -> bool:
        """Whether the store answered requests at the last look, or at the last change of a condition."""
        return not self._failed

    @property
    def status(self) -> Status:
        """Status now: all registered checks are called first."""
        self._look()
        if self._failed:
            return Status.UNAVAILABLE
        return Status.DEGRADED if self._conditions else Status.OK

    @property
    def conditions(self) -> dict[str, str]:
        """Words of each condition, by its name: all registered checks are called first."""
        self._look()
        return dict(sorted(self._conditions.items()))

    def degrade(self, name: str, words: str) -> None:
        """Set a condition with which the broker still serves requests; it replaces one of the same name."""
        self._failed.discard(name)
        self._note(Status.DEGRADED, name, words)

    def fail(self, name: str, words: str) -> None:
        """Set a condition with which the store answers no request; it replaces one of the same name."""
        self._failed.add(name)
        self._note(Status.UNAVAILABLE, name, words)

    def clear(self, name: str) -> None:
        """Clear a condition, if it is set."""
        self._failed.discard(name)
        if self._conditions.pop(name, None) is not None:
            self._say(f"condition over: {name}")

    def _note(self, status: Status, name: str, words: str) -> None:
        if name not in self._conditions:
            self._say(f"{status}: {name}: {words}")
        self._conditions[name] = words

    def _look(self) -> None:
        for look in self._watched:
            look()
