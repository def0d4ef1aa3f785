"""Descriptor source: reads a pipe or a terminal with anyio."""

from __future__ import annotations

import errno
import os

import anyio
import anyio.lowlevel

from airunner.agent.launcher.contract import RECEIVE_BYTES


class DescriptorSource:
    """Source of bytes. It owns `descriptor`, which is None after `close` and after the end of the stream."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)  # affects our end only: the writer's end has its own flags
        self.descriptor: int | None = descriptor
        self._drained = False  # whether the last call has read all that there was

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for at least one byte, and return what has arrived; b"" at the end, and in every later call.

        Raises `anyio.ClosedResourceError` if another task closes the source meanwhile.
        """
        if not self._drained or self.descriptor is None:
            await anyio.lowlevel.checkpoint()  # a writer that never pauses must not starve the other tasks
        while self.descriptor is not None:
            if self._drained:
                await anyio.wait_readable(self.descriptor)
            if data := self._read(self.descriptor, max_bytes):
                return data
        return b""

    def _read(self, descriptor: int, max_bytes: int) -> bytes:
        """Read what has arrived, by several calls because one returns at most 4 KB of a terminal's output; maybe b"".

        Close the source at the end of the stream.
        """
        chunks: list[bytes] = []
        self._drained = False
        try:
            while max_bytes and (chunk := _read_once(descriptor, max_bytes)):
                chunks.append(chunk)
                max_bytes -= len(chunk)
        except BlockingIOError:
            self._drained = True
        else:
            if not chunks:  # otherwise the next call finds the end again
                self.close()
        return b"".join(chunks)

    def close(self) -> None:
        """Close the descriptor. May be called again."""
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            anyio.notify_closing(descriptor)
            os.close(descriptor)


def _read_once(descriptor: int, max_bytes: int) -> bytes:
    try:
        return os.read(descriptor, max_bytes)
    except OSError as error:
        if error.errno != errno.EIO:  # on Linux EIO is the end of a terminal's output
            raise
        return b""
