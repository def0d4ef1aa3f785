"""Interrupt signals of client commands: how Ctrl-C, SIGTERM and the SIGHUP of a closed terminal act in each phase.

```
 starting ──► KeyboardInterrupt, then ignored       following ──► `next` returns, as often as expected
                                                                └──► once more: KeyboardInterrupt, then ignored
 cleaning up ──► ignored
```

A command that an interrupt ends exits with 128 + N of the first signal, as in shells.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self, TypeVar

from airunner.client.taskgroups import first_error

T = TypeVar("T")
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_EXIT_BASE: Final = 128


class Interrupts:
    """Signal handlers of a command; signals that were ignored before stay ignored.

    `blocked` says whether the main thread is in a call that may never return, such as a write to a reader that pauses:
    then the handler raises KeyboardInterrupt out of this call.
    """

    def __init__(self, blocked: Callable[[], bool] = lambda: False) -> None:
        self.number: int | None = None  # the first signal
        self._blocked = blocked
        self._expected = 0  # signals that `next` returns
        self._over = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            # After an interrupt the process ends next, and a further signal must not change its exit code.
            signal.signal(number, before if self.number is None else signal.SIG_IGN)
        os.close(self._reader)
        os.close(self._writer)

    @property
    def exit_code(self) -> int:
        """Exit code of a command that was interrupted."""
        return SIGNAL_EXIT_BASE + (self.number or signal.SIGINT)

    def follow(self, expected: int) -> None:
        """Begin the phase in which `next` returns the signals, as many as `expected`."""
        self._expected = expected

    def end(self) -> None:
        """Begin the cleanup, which ignores the signals."""
        self._over = True

    async def next(self) -> None:
        """Wait for an interrupt."""
        import anyio

        await anyio.wait_readable(self._reader)
        os.read(self._reader, 1)

    async def interruptible(
        self, call: Callable[[], Awaitable[T]], decide: Callable[[], Awaitable[bool | None]]
    ) -> T | None:
        """Call `call`, and cancel it at the first interrupt: then this returns None. A second one ends it at once.

        At Ctrl-C `decide` says whether it ends, or goes on; None: it goes on as if there had been no interrupt. Another
        interrupt meanwhile ends it.
        """
        import anyio

        result: T | None = None
        with first_error():
            async with anyio.create_task_group() as group:

                async def obey() -> None:
                    goes_on = True
                    while goes_on:
                        self.follow(2)
                        await self.next()
                        goes_on = self.number == signal.SIGINT and await self._goes_on(decide)
                    self._expected = 0
                    group.cancel_scope.cancel()

                self.follow(2)
                group.start_soon(obey)
                result = await call()
                group.cancel_scope.cancel()
        return result

    async def _goes_on(self, decide: Callable[[], Awaitable[bool | None]]) -> bool:
        import anyio

        ends: bool | None = True
        with first_error():
            async with anyio.create_task_group() as group:

                async def hear() -> None:
                    await self.next()
                    group.cancel_scope.cancel()

                group.start_soon(hear)
                ends = await decide()
                if ends is None:  # at once: what waited for the answer may end the command next
                    self.number = None
                group.cancel_scope.cancel()
        return not ends

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._over:
            return
        if self.number is None:
            self.number = number
        if self._expected and not self._blocked():
            self._expected -= 1
            with suppress(BlockingIOError):  # the pipe is full of earlier interrupts
                os.write(self._writer, b"!")
            return
        self._over = True
        raise KeyboardInterrupt
