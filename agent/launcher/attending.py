"""How whoever started a process leaves it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio

from airunner.agent.launcher.contract import LauncherDied, LeaseEnded, Process


@asynccontextmanager
async def attended(process: Process) -> AsyncGenerator[None]:
    """A block in which `process` is seen to its end. Cancelled, it is over only when nothing of it is left."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        # It is to be dead before anybody else may lease the job. An `end` that was cut short kills too.
        with anyio.CancelScope(shield=True), suppress(LauncherDied, LeaseEnded, anyio.ClosedResourceError):
            await process.end(0)
        raise
    finally:
        process.close()
