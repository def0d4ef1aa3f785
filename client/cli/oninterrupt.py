"""Option `--on-interrupt` of `submit` and `retry`: what the first Ctrl-C does with the jobs, or asks about them.

```
 Ctrl-C ──► detach ──► the command ends, says how to return, and exits with 130; the jobs continue
       ├──► cancel ──► the jobs are cancelled and followed to their ends; it exits with 130
       └──► ask ─────► which of these, or go on as if nothing had happened; without a terminal: detach
 a second one, also at the question: as detach
```
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from airunner.client.cli.console import Console


class OnInterrupt(StrEnum):
    """What the first Ctrl-C does."""

    ASK = "ask"
    DETACH = "detach"
    CANCEL = "cancel"


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
        answer = await answered(self._console, "interrupted: d to detach, c to cancel, Enter to go on?")
        if answer is None:
            return OnInterrupt.DETACH
        return {"d": OnInterrupt.DETACH, "c": OnInterrupt.CANCEL}.get(answer[:1])


async def answered(console: Console, question: str) -> str | None:
    """Ask the person at the terminal; return the answer in small letters, or None: there is nobody to answer."""
    import anyio

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    console.ask(question)
    await anyio.wait_readable(sys.stdin.fileno())  # an interrupt ends this
    answer = os.read(sys.stdin.fileno(), 1_024).decode(errors="replace")
    console.note_answer()
    return answer.strip().lower()
