"""Thread for work that waits for the disk: one for the life of its owner, and one piece of work at a time.

It does what `anyio.to_thread.run_sync` does, for the Ledger, which uses it for each batch, in half of the processor
time: there is no limiter, no idle thread to choose and no context to copy; and its end is a callback, not a task that
waits for it, which saves a turn of the event loop. It needs asyncio, on which the broker's process runs; a simulation
hands in its own offload.

Thread and loop wake each other by eventfds, because Python gives up the GIL to write one. A thread that a lock or a
queue wakes finds the GIL still taken, and sleeps and is woken a second time.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Final

EVENTFD_BYTES: Final = 8  # what a read of an eventfd returns
_Work = Callable[[], object]
_Then = Callable[[BaseException | None], object]


class WorkThread:
    """Thread that runs what it is called with; made inside asyncio's loop, in which it calls back."""

    def __init__(self) -> None:
        self._given, self._ended = os.eventfd(0, os.EFD_SEMAPHORE), os.eventfd(0)
        self._work: deque[_Work | None] = deque()  # given, and not begun; None: the thread ends
        self._then: _Then | None = None
        self._failed: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ended, self._call_back)
        self._thread = Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def __call__(self, work: _Work, then: _Then) -> None:
        """Run `work` in the thread, and then `then` in the loop, with what `work` has raised."""
        assert self._then is None, "other work has not ended"
        self._then = then
        self._give(work)

    def close(self, last: _Work | None = None, within_s: float | None = None) -> bool:
        """End the thread after the work that it was given and `last`; return whether it has ended within `within_s`.

        Raises what `last` has raised.
        """
        raised: list[BaseException] = []
        if last is not None:
            self._give(partial(_run_last, last, raised))
        self._give(None)
        self._thread.join(within_s)
        if ended := not self._thread.is_alive():
            self._loop.remove_reader(self._ended)
            os.close(self._given)
            os.close(self._ended)
        for error in raised:
            raise error
        return ended

    def _give(self, work: _Work | None) -> None:
        self._work.append(work)
        os.eventfd_write(self._given, 1)

    def _call_back(self) -> None:
        os.eventfd_read(self._ended)
        then, failed = self._then, self._failed
        self._then = self._failed = None
        assert then is not None, "no work has ended"
        then(failed)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - `then` gets it
                self._failed = error
            del work  # nothing of it is kept while the thread waits for more
            os.eventfd_write(self._ended, 1)

    def _next(self) -> _Work | None:
        os.read(self._given, EVENTFD_BYTES)  # `os.eventfd_read` would raise when a signal interrupts it
        return self._work.popleft()


def _run_last(last: _Work, raised: list[BaseException]) -> None:
    try:
        last()
    except BaseException as error:  # noqa: BLE001 - `close` raises it
        raised.append(error)
