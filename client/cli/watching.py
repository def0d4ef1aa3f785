"""Watching of a job from the command line, to its last event and its exit code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio

from airunner.client.cli.causes import Cause, Why
from airunner.client.cli.console import Console, continues
from airunner.client.cli.status import WithStatus
from airunner.client.cli.waiting import why_it_waits
from airunner.client.client import Client
from airunner.protocol.errors import EXIT_JOB_FAILED, OperatorError, PeerError
from airunner.protocol.events import Event, JobFinished
from airunner.protocol.job import JobState, Result

HINT_S: Final = 5.0  # for the broker's answers why a job waits

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Offload of a call that may block, such as a write to a full pipe, so that other tasks continue."""


async def watch(
    client: Client,
    job_id: str,
    show: Callable[[Sequence[Event]], None],
    console: Console,
    *,
    from_sequence: int = 1,
    from_timestamp_ms: int | None = None,
    kinds: Sequence[str] = (),
    status: bool = True,
    offload: Offload | None = None,
) -> int:
    """Watch a job: show all events, or those of some kinds, and return the job's exit code (`exit_status`).

    With `status` the console has a status line while no event comes. `offload`, if given, calls `show`. Raises the
    errors of `Client.follow` and `show`.
    """
    console.follow()
    console.farewell = continues(job_id)
    events = client.follow(job_id, from_sequence, from_timestamp_ms, kinds)
    try:
        async with events:
            ask_why = WaitingReason(client, console).ask
            async for batch in WithStatus(events.next_batch, console, ask_why, status=status, fresh=console.owns):
                if offload is None:
                    show(batch)
                else:
                    await offload(partial(show, batch))
                if isinstance(last := batch[-1].body, JobFinished):
                    return exit_status(last)
        # JOB_FINISHED was before the first event or is not among `kinds`, so the exit code comes from the job.
        job = await client.get(job_id)
        if job.result is not None:
            return job.result.exit_status
        return 0 if job.state is JobState.COMPLETED else EXIT_JOB_FAILED
    finally:
        if events.job_ended:
            console.farewell = ""
        console.job_over()


class WaitingReason:
    """Reason why the console's job waits, asked of the broker."""

    def __init__(self, client: Client, console: Console) -> None:
        self._client = client
        self._console = console
        self._said: Cause | None = None

    async def ask(self) -> str:
        """Return the reason, or nothing if the broker does not say it in time; print each new cause that blocks."""
        why: Why | None = None
        with suppress(PeerError, OperatorError), anyio.move_on_after(HINT_S):
            why = await why_it_waits(self._client, await self._client.get(self._console.job_id))
        if why is None:
            return ""
        if why.blocked and why.cause is not self._said:
            self._said = why.cause
            self._console.must_say(f"waiting: {why.text}")
        return why.text


def exit_status(finished: JobFinished) -> int:
    """Compute the exit code: the job's; 128 + n for signal n; 124 for a timeout; 125 if it has none and failed."""
    if finished.state is JobState.COMPLETED:
        return 0
    result = Result(exit_code=finished.exit_code, signal=finished.signal, reason=finished.reason)
    return result.exit_status or EXIT_JOB_FAILED
