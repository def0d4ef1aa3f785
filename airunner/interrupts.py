"""Interrupt signals of `airunner run`: how Ctrl-C acts in each of its phases.

```
 starting ──► KeyboardInterrupt, once    following ──► `next` returns    cleaning up ──► ignored
```

SIGTERM, and the SIGHUP of a closed terminal, act like Ctrl-C. The cleanup always completes, however often Ctrl-C is
pressed.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Final, Self

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Signal handlers of `airunner run`, until the process ends; signals that were ignored before stay ignored."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._following = False
        self._over = False

    def __enter__(self) -> Self:
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # the process ends next
        os.close(self._reader)
        os.close(self._writer)

    def follow(self) -> None:
        """Begin the phase in which `next` returns the signals."""
        self._following = True

    def end(self) -> None:
        """Begin the cleanup, which ignores the signals."""
        self._over = True

    async def next(self) -> None:
        """Wait for an interrupt."""
        import anyio

        await anyio.wait_readable(self._reader)
        os.read(self._reader, 1)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._over:
            return
        if self._following:
            with suppress(BlockingIOError):  # the pipe is full of earlier interrupts
                os.write(self._writer, b"!")
            return
        self._over = True
        raise KeyboardInterrupt
