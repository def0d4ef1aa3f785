"""Flow of files to the broker: they are read, and their pieces stored, a window of pieces at a time.

Two windows at most are read and sent at a time, and files are recorded in the order of the windows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

import anyio

from airunner.agent.artifacts.packing import Packed, Piece, Window, next_window
from airunner.agent.artifacts.uploading import WINDOW_BYTES, WINDOWS_MAX, Uplink, Upload

K = TypeVar("K")


class Flow(Generic[K]):
    """Flow of windows from the disk to the broker. `record` gets each file, in order, once its pieces are stored."""

    def __init__(
        self,
        uplink: Uplink,
        packed: Iterator[Piece | Packed[K]],
        upload: Upload,
        record: Callable[[Packed[K]], Awaitable[None]],
    ) -> None:
        self._uplink = uplink
        self._packed = packed
        self._upload = upload
        self._record = record
        self._reading = anyio.Lock()
        self._last = anyio.Event()  # the last window that was read is stored, and its events are recorded
        self._last.set()

    async def run(self) -> None:
        """Store everything. Raises a group of errors: those of `Upload.store`, and of reading and recording."""
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._upload.watch)
            async with anyio.create_task_group() as group:
                for _ in range(WINDOWS_MAX):
                    group.start_soon(self._pass_on)
            watching.cancel_scope.cancel()

    async def _pass_on(self) -> None:
        """Pass windows on, one at a time, until nothing is left to read."""
        while True:
            async with self._uplink.turns:
                async with self._reading:
                    window = await self._uplink.offload(self._window)
                    before, self._last = self._last, anyio.Event()
                    done = self._last
                if not window.pieces and not window.files:
                    done.set()
                    return
                await self._upload.store(window.pieces)
                await before.wait()
                for packed in window.files:
                    await self._record(packed)
                done.set()

    def _window(self) -> Window[K]:
        return next_window(self._packed, WINDOW_BYTES)


def leaves(errors: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """Yield the exceptions in a group, and in those in it."""
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
