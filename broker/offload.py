"""Offload of work that waits for the disk: the port, and the steps of an actor that offloads.

The statements before a commit run in the event loop: beside a busy loop, a thread waits for the GIL between any two
statements, and many short ones take ten times as long. Only the commit, and reads that may take long, are offloaded.

`Stepper` runs a generator that yields each piece of such work, and goes on with it in the callback that reports its
end. So what follows a commit takes no further turn of the event loop, as a task that waits for it would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TypeVar

import anyio

from airunner.transport.bell import Bell

Work = Callable[[], object]
Then = Callable[[BaseException | None], object]
Offload = Callable[[Work, Then], None]
"""Offload: runs the work elsewhere, and then calls `then` in the event loop, with what the work has raised."""

T = TypeVar("T")
Steps = Generator[Work | None, None, T]
"""Steps: yields work to offload, whose failure is raised there, or None to pause until `Stepper.go_on`."""


def _nothing() -> None:
    """Do nothing."""


class Stepper:
    """Stepper of `steps`: runs them in whatever calls `go_on`, in callbacks of `offload`, and at an instant.

    `meanwhile` is called at that instant instead if the steps wait for offloaded work.
    """

    def __init__(self, steps: Steps[None], offload: Offload, meanwhile: Callable[[], None] = _nothing) -> None:
        self._steps = steps
        self._meanwhile = meanwhile
        self._offload = offload
        self._paused = True  # not begun, or paused by the steps; otherwise they run, wait for work, or have ended
        self._failed: BaseException | None = None  # what the steps have raised
        self._ended = False  # `run` has ended
        self.offloads = 0  # pieces of work that were offloaded
        self._due_s = -math.inf  # when to go on: `run` begins at once
        self._changed = Bell()

    async def run(self) -> None:
        """Begin, and go on when it is due, until cancelled. Raises what the steps raise."""
        try:
            while self._failed is None:
                with anyio.CancelScope(deadline=self._due_s):
                    await self._changed.wait()
                if anyio.current_time() >= self._due_s:
                    self._due_s = math.inf
                    if self._paused:
                        self.go_on()
                    else:
                        self._meanwhile()
            raise self._failed
        finally:
            self._ended = True  # work that is still offloaded ends without a further step

    def go_on(self) -> None:
        """Go on with the steps, unless they wait for the end of offloaded work, or have ended."""
        if self._paused:
            self._paused = False
            self._step(None)

    def due(self, instant_s: float) -> None:
        """Go on at this instant of anyio's clock at the latest; an instant that has passed: after other tasks' turn."""
        if instant_s < self._due_s:
            self._due_s = instant_s
            self._changed.ring()

    def _step(self, failed: BaseException | None) -> None:
        if self._ended:
            return
        try:
            work = next(self._steps) if failed is None else self._steps.throw(failed)
        except BaseException as error:  # noqa: BLE001 - raised again in the task that runs
            self._failed = error
            self._changed.ring()
            return
        if work is None:
            self._paused = True
        else:
            self.offloads += 1
            self._offload(work, self._step)
