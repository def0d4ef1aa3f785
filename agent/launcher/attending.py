"""Attended processes: a context manager that ends a process and its descendants if its block is cancelled."""

from __future__ import annotations

from contextlib import suppress

import anyio

from airunner.agent.launcher.contract import LauncherDied, LeaseEnded, Process


class attended:  # noqa: N801 - a context manager, and not a generator, which takes several times as long
    """Close the process at the end of the block; if the block is cancelled, first kill it and its descendants."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def __aenter__(self) -> None:
        """Begin the block."""

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None and issubclass(kind, anyio.get_cancelled_exc_class()):
                # The process must be dead before another agent may lease the job.
                with anyio.CancelScope(shield=True), suppress(LauncherDied, LeaseEnded, anyio.ClosedResourceError):
                    await self._process.end(0)
        finally:
            self._process.close()
