"""Thread for work that waits for the disk: one for the life of its owner, and one piece of work at a time.

It does what `anyio.to_thread.run_sync` does, for the Ledger, which uses it for each batch. A piece of
work takes some 35 µs of processor time less, since there is no limiter, no idle thread to choose and no context to
copy. It needs asyncio, on which the broker's process runs; a simulation hands in its own offload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import anyio

_Work = Callable[[], object]
_Done = asyncio.Future[None]


class WorkThread:
    """Thread that runs what it is called with; made inside asyncio's loop, in which its callers wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[tuple[_Work, _Done] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    async def __call__(self, work: _Work) -> None:
        """Run `work` in the thread, and wait for its end, also when cancelled. Raises what `work` raises."""
        done: _Done = self._loop.create_future()
        self._waiting.put((work, done))
        with anyio.CancelScope(shield=True):
            await done

    def close(self) -> None:
        """End the thread after the work that it was given."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            work, done = entry
            failed: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the work was given
                failed = error
            with suppress(RuntimeError):  # the loop has ended, so nothing waits any more
                self._loop.call_soon_threadsafe(_settle, done, failed)
            del entry, work, done, failed  # nothing of the work is kept while the thread waits for more


def _settle(done: _Done, failed: BaseException | None) -> None:
    if done.done():
        return  # the waiting task was ended by the loop itself
    if failed is None:
        done.set_result(None)
    else:
        done.set_exception(failed)
