"""Health of the broker, as /health answers it: named conditions, each with words that say what is wrong and what to do.

Without a condition the broker is `ok`. With one it is `degraded`: it still answers, so whatever sends it traffic is to
go on. With one that keeps it from answering anything it is `unavailable`. The words are for everybody who can reach
/health: they hold no key, token, path of a job, or tenant's name. When a condition begins and when it is over is said
once, on stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Status(StrEnum):
    """What all conditions come to."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Health:
    """Conditions by name; `say` gets one line when a condition begins and one when it is over."""

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self._say = say
        self._conditions: dict[str, str] = {}
        self._failed: set[str] = set()
        self._watched: list[Callable[[], None]] = []

    def watch(self, look: Callable[[], None]) -> None:
        """Have `look` called before health is told: it sets or clears a condition that begins and ends by itself."""
        self._watched.append(look)

    @property
    def status(self) -> Status:
        """Whether anything is wrong."""
        self._look()
        if self._failed:
            return Status.UNAVAILABLE
        return Status.DEGRADED if self._conditions else Status.OK

    @property
    def conditions(self) -> dict[str, str]:
        """The words of each condition, by its name."""
        self._look()
        return dict(sorted(self._conditions.items()))

    def degrade(self, name: str, words: str) -> None:
        """Note that something is wrong; said again with other words, these hold."""
        self._failed.discard(name)
        self._note(Status.DEGRADED, name, words)

    def fail(self, name: str, words: str) -> None:
        """Note that something keeps the broker from answering any request."""
        self._failed.add(name)
        self._note(Status.UNAVAILABLE, name, words)

    def clear(self, name: str) -> None:
        """Note that the condition is over, or never was."""
        self._failed.discard(name)
        if self._conditions.pop(name, None) is not None:
            self._say(f"no longer degraded: {name}")

    def _note(self, status: Status, name: str, words: str) -> None:
        if name not in self._conditions:
            self._say(f"{status}: {name}: {words}")
        self._conditions[name] = words

    def _look(self) -> None:
        for look in self._watched:
            look()
