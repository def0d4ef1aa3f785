"""Thread for work that waits for the disk: one for the life of its owner, and one piece of work at a time.

It does what `anyio.to_thread.run_sync` does, for the Ledger, which uses it for each batch. A piece of
work takes some 35 µs of processor time less, since there is no limiter, no idle thread to choose and no context to
copy; and its end is a callback, not a task that waits for it, which saves a turn of the event loop. It needs asyncio,
on which the broker's process runs; a simulation hands in its own offload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread

_Work = Callable[[], object]
_Then = Callable[[BaseException | None], object]


class WorkThread:
    """Thread that runs what it is called with; made inside asyncio's loop, in which it calls back."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # by which anyio knows the loop, also where no task runs
        self._waiting: SimpleQueue[tuple[_Work, _Then] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def __call__(self, work: _Work, then: _Then) -> None:
        """Run `work` in the thread, and then `then` in the loop, with what `work` has raised."""
        self._waiting.put((work, then))

    def close(self) -> None:
        """End the thread after the work that it was given, and wait for it."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            work, then = entry
            failed: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - `then` gets it
                failed = error
            with suppress(RuntimeError):  # the loop has ended, so nothing waits any more
                self._loop.call_soon_threadsafe(then, failed, context=self._context)
            del entry, work, then, failed  # nothing of the work is kept while the thread waits for more
