"""Attended processes: a block around a process that is left only when nothing of it runs any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio

from airunner.agent.launcher.contract import LauncherDied, LeaseEnded, Process


@asynccontextmanager
async def attended(process: Process) -> AsyncGenerator[None]:
    """Open a block that ends the process when cancelled, and is over only when nothing of it is left."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        # The process has to be dead before another agent may lease the job. An `end` that is cut short kills too.
        with anyio.CancelScope(shield=True), suppress(LauncherDied, LeaseEnded, anyio.ClosedResourceError):
            await process.end(0)
        raise
    finally:
        process.close()
