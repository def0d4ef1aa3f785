"""Readers of descriptors: call a function whenever a descriptor is readable, in asyncio's event loop.

`anyio.wait_readable` registers the descriptor for each wait, and wakes a task by another turn of the event loop; that
takes as long as the rest of a small request. A `DescriptorReader` is registered once, and calls its function at once;
`watch` does so without a task. A client may run on trio, and then reads its socket without this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import anyio.lowlevel


def on_asyncio() -> bool:
    """Return whether the caller runs in asyncio's event loop."""
    return isinstance(anyio.lowlevel.current_token().native_token, asyncio.AbstractEventLoop)


def watch(descriptor: int, read: Callable[[], None]) -> Callable[[], object]:
    """Watch a descriptor: call `read`, which must not raise, while it is readable. Return the function that ends this.

    End it before the descriptor is closed.
    """
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, read)
    return partial(loop.remove_reader, descriptor)


class DescriptorReader:
    """Reader of one descriptor: calls `read` when the descriptor is readable, and in the turn after `read_again`."""

    def __init__(self, descriptor: int, read: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._read = read
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: asyncio.Future[None] | None = None
        self._again: asyncio.Handle | None = None

    async def run(self) -> None:
        """Watch the descriptor until cancelled; raises what `read` raises."""
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._call)
        self.read_again()
        try:
            await self._failed
        finally:
            self._loop.remove_reader(self._descriptor)
            self._cancel()
            self._loop = None

    def read_again(self) -> None:
        """Call `read` in the next turn of the event loop, once; nothing happens while `run` does not run."""
        if self._loop is not None and self._again is None:
            self._again = self._loop.call_soon(self._call)

    def _call(self) -> None:
        assert self._failed is not None, "not running"
        self._cancel()
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - raised again in the task that runs
            if not self._failed.done():
                self._failed.set_exception(error)

    def _cancel(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
