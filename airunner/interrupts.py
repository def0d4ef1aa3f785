"""What Ctrl-C and its kin mean to `airunner run`, at every moment of its life.

```
 starting ──► KeyboardInterrupt, once    following ──► `next` returns    clearing up ──► not heard
```

SIGTERM, and the SIGHUP of a terminal that is closed, are taken as Ctrl-C is. What is cleared up is cleared up
undisturbed, however often somebody presses.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Final, Self

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A block in which they mean that, and the last one of its process; those that were ignored still are."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._following = False
        self._over = False

    def __enter__(self) -> Self:
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # until the process has ended, which is all that is left to do
        os.close(self._reader)
        os.close(self._writer)

    def follow(self) -> None:
        """From now on `next` hears of them."""
        self._following = True

    def end(self) -> None:
        """From now on they are not heard."""
        self._over = True

    async def next(self) -> None:
        """Return when one has come; several that come at once may count as one."""
        import anyio

        await anyio.wait_readable(self._reader)
        os.read(self._reader, 1)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._over:
            return
        if self._following:
            with suppress(BlockingIOError):  # full: there are enough of them
                os.write(self._writer, b"!")
            return
        self._over = True
        raise KeyboardInterrupt
