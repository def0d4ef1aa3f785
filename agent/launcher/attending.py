"""Attended processes: a context manager that ends a process and its descendants if its block is cancelled."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio

from airunner.agent.launcher.contract import LauncherDied, LeaseEnded, Process


@asynccontextmanager
async def attended(process: Process) -> AsyncGenerator[None]:
    """Close the process at the end of the block; if the block is cancelled, first kill it and its descendants."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        # The process must be dead before another agent may lease the job.
        with anyio.CancelScope(shield=True), suppress(LauncherDied, LeaseEnded, anyio.ClosedResourceError):
            await process.end(0)
        raise
    finally:
        process.close()
