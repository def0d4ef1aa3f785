"""Descriptor source: reads a pipe or a terminal under anyio."""

from __future__ import annotations

import errno
import os

import anyio
import anyio.lowlevel

from airunner.agent.launcher.contract import RECEIVE_BYTES


class DescriptorSource:
    """Source that owns its `descriptor`, None once it is closed: at the end, or by `close`."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)  # our end only: the writer's has flags of its own
        self.descriptor: int | None = descriptor

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Receive at least one byte, as soon as there is one; b"" at the end and ever after.

        Raises `anyio.ClosedResourceError` where another task closes it meanwhile.
        """
        await anyio.lowlevel.checkpoint()  # a writer that never pauses must not starve the other tasks
        while self.descriptor is not None:
            try:
                chunk = os.read(self.descriptor, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self.descriptor)
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # which is how Linux ends a terminal, after its last byte
                    raise
                chunk = b""
            if not chunk:
                self.close()
            return chunk
        return b""

    def close(self) -> None:
        """Read no more."""
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            anyio.notify_closing(descriptor)
            os.close(descriptor)
