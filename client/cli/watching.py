"""Following a job from the command line, to its last event and its exit code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from airunner.client.cli.console import Console
from airunner.client.cli.printing import Printer
from airunner.client.cli.status import WithStatus
from airunner.client.client import Client
from airunner.protocol.events import JobFinished
from airunner.protocol.job import JobState, Result

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a call that may block, such as a write to a pipe that nobody reads, while other tasks go on."""


async def watch(
    client: Client,
    job_id: str,
    printer: Printer,
    *,
    from_sequence: int = 1,
    from_timestamp_ms: int | None = None,
    kinds: Sequence[str] = (),
    status: Console | None = None,
    offload: Offload | None = None,
) -> int:
    """Show every event, or those of some kinds, and return what the command is to exit with, as `exit_status` says.

    While none comes a status line is shown on the terminal of `status`. The printer is called by `offload`, if given.

    Raises what `Client.follow` raises, and what the printer does.
    """
    async with client.follow(job_id, from_sequence, from_timestamp_ms, kinds) as events:
        async for event in events if status is None else WithStatus(events, status):
            if offload is None:
                printer.show(event)
            else:
                await offload(partial(printer.show, event))
            if isinstance(event.body, JobFinished):
                return exit_status(event.body)
    # From beyond the last event, or without it, there is nothing to show, but an exit code there is.
    job = await client.get(job_id)
    return job.result.exit_status if job.result is not None else int(job.state is not JobState.COMPLETED)


def exit_status(finished: JobFinished) -> int:
    """The job's exit code; 128 + n for signal n; 124 for a timeout; never 0 unless it COMPLETED."""
    if finished.state is JobState.COMPLETED:
        return 0
    return Result(exit_code=finished.exit_code, signal=finished.signal, reason=finished.reason).exit_status or 1
