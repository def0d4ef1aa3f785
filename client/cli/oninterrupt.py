"""Option `--on-interrupt` of `submit` and `retry`: what the first Ctrl-C does with the jobs, or asks about them.

```
 Ctrl-C ──► detach ──► the command ends, says how to return, and exits with 130; the jobs continue
       ├──► cancel ──► the jobs are cancelled and followed to their ends; it exits with 130
       └──► ask ─────► which of these, or go on as if nothing had happened; without a terminal: detach
 a second one, also at the question: as detach; if the jobs are being cancelled, it says so
```
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.protocol.printable import one_line

if TYPE_CHECKING:
    from airunner.client.cli.console import Console


class OnInterrupt(StrEnum):
    """What the first Ctrl-C does."""

    ASK = "ask"
    DETACH = "detach"
    CANCEL = "cancel"


_ANSWERS: Final[Mapping[str | None, OnInterrupt | None]] = MappingProxyType(
    {
        **dict.fromkeys(("d", "detach", None), OnInterrupt.DETACH),  # None: nobody answers
        **dict.fromkeys(("c", "cancel"), OnInterrupt.CANCEL),
        "": None,
    }
)
InterruptOption = Annotated[
    OnInterrupt,
    typer.Option(
        "--on-interrupt",
        case_sensitive=False,
        help="What Ctrl-C does: detach, and say how to return; cancel, and follow what is cancelled to its end; or "
        "ask. A second Ctrl-C detaches.",
    ),
]


class Interruption:
    """Interruption of a command that follows jobs: decides at each Ctrl-C. `cancel` cancels the jobs."""

    def __init__(self, choice: OnInterrupt, console: Console, cancel: Callable[[], Awaitable[None]]) -> None:
        self._choice = choice
        self._console = console
        self._cancel = cancel
        self._cancelled = False

    async def decide(self) -> bool | None:
        """Return whether the command ends now; None: it goes on, and forgets the interrupt."""
        choice: OnInterrupt | None = OnInterrupt.DETACH if self._cancelled else self._choice
        if choice is OnInterrupt.ASK:
            choice = await self._ask()
        if choice is OnInterrupt.CANCEL:
            self._cancelled = True
            self._console.must_say("cancelling; press Ctrl-C again to detach")
            await self._cancel()
        return None if choice is None else choice is OnInterrupt.DETACH

    async def _ask(self) -> OnInterrupt | None:
        question = "d to detach, c to cancel, Enter to go on?"
        answer = await answered(self._console, f"interrupted: {question}")
        while answer not in _ANSWERS:
            answer = await answered(self._console, f"{one_line(answer or '')!r} is no answer: {question}")
        return _ANSWERS[answer]


def person_answers() -> bool:
    """Return whether there is a person at the terminal who can answer questions."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def answered(console: Console, question: str) -> str | None:
    """Ask the person at the terminal; return the answer in small letters, or None: there is nobody to answer."""
    import anyio

    if not person_answers():
        return None
    with console.question(question):
        await anyio.wait_readable(sys.stdin.fileno())  # an interrupt ends this
        answer = os.read(sys.stdin.fileno(), 1_024).decode(errors="replace")
    return answer.strip().lower()
