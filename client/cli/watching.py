"""Watching of a job from the command line, to its last event and its exit code."""

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
"""Offload of a call that may block, such as a write to a pipe without a reader, while other tasks go on."""


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
    """Watch a job: show every event, or those of some kinds, and return the command's exit code (`exit_status`).

    While no event comes `status` shows a status line. `offload`, if given, calls the printer.

    Raises as `Client.follow` and the printer do.
    """
    async with client.follow(job_id, from_sequence, from_timestamp_ms, kinds) as events:
        async for event in events if status is None else WithStatus(events, status):
            if offload is None:
                printer.show(event)
            else:
                await offload(partial(printer.show, event))
            if isinstance(event.body, JobFinished):
                return exit_status(event.body)
    # Where the last event is not among those shown, its exit code is still needed.
    job = await client.get(job_id)
    return job.result.exit_status if job.result is not None else int(job.state is not JobState.COMPLETED)


def exit_status(finished: JobFinished) -> int:
    """Compute the exit code: the job's; 128 + n for signal n; 124 for a timeout; never 0 unless it COMPLETED."""
    if finished.state is JobState.COMPLETED:
        return 0
    return Result(exit_code=finished.exit_code, signal=finished.signal, reason=finished.reason).exit_status or 1
