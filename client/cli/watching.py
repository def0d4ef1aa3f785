"""Watching of a job from the command line, to its last event and its exit code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final, TypedDict, Unpack

import anyio

from airunner.client.cli.causes import Cause, Why
from airunner.client.cli.console import Console, JobConsole, continues
from airunner.client.cli.playback import Schedule, play
from airunner.client.cli.status import WithStatus
from airunner.client.cli.terminalsize import size_followed
from airunner.client.cli.waiting import why_it_waits
from airunner.client.client import Client
from airunner.client.taskgroups import first_error
from airunner.protocol.errors import EXIT_JOB_FAILED, EXIT_WRONG_STATE, OperatorError, PeerError
from airunner.protocol.events import Event, JobFinished, JobScheduled, JobUnblocked
from airunner.protocol.job import Job, JobState, Result

HINT_S: Final = 5.0  # for the broker's answers why a job waits

Offload = Callable[[Callable[[], None]], Awaitable[None]]
"""Offload of a call that may block, such as a write to a full pipe, so that other tasks continue."""


class LogPart(TypedDict, total=False):
    """Part of a job's log: the arguments of `Client.follow`."""

    from_sequence: int
    from_timestamp_ms: int | None
    kinds: Sequence[str]


async def watch(
    client: Client,
    job_id: str,
    show: Callable[[Sequence[Event]], None],
    console: Console,
    *,
    status: bool = True,
    offload: Offload | None = None,
    **part: Unpack[LogPart],
) -> int:
    """Watch a job: show all events, or a part of them, and return the job's exit code (`exit_status`).

    With `status` the console has a status line. If it `sizes` the job's terminal, that has the size of this one.
    `offload`, if given, calls `show`. Raises the errors of `Client.follow` and `show`.
    """
    console.follow()
    console.farewell = continues(job_id)
    events = client.follow(job_id, **part)
    try:
        async with events, size_followed(client, job_id) if console.sizes else nullcontext() as note_size:
            ask_why = WaitingReason(client, job_id, console).ask
            async for batch in WithStatus(events.next_batch, console, ask_why, status=status, fresh=console.owns):
                if note_size is not None:
                    note_size(batch)
                if offload is None:
                    show(batch)
                else:
                    await offload(partial(show, batch))
                if isinstance(last := batch[-1].body, JobFinished):
                    return exit_status(last)
        return (await client.get(job_id)).exit_status or 0
    finally:
        if events.job_ended:
            console.farewell = ""
        console.job_over()


class WaitingReason:
    """Reason why a job waits, asked of the broker."""

    def __init__(self, client: Client, job_id: str, console: JobConsole) -> None:
        self.job_id = job_id  # another one may follow
        self._client = client
        self._console = console
        self._said: Cause | None = None

    async def ask(self) -> str:
        """Return the reason, or nothing if the broker does not say it in time; print each new cause that blocks."""
        why: Why | None = None
        with suppress(PeerError, OperatorError), anyio.move_on_after(HINT_S):
            why = await why_it_waits(self._client, await self._client.get(self.job_id))
        if why is None:
            return ""
        if why.blocked and why.cause is not self._said:
            self._said = why.cause
            self._console.must_say(f"waiting: {why.text}")
        return why.text


async def say_why_it_waits(client: Client, console: Console, job_id: str, own: JobConsole, *, status: bool) -> None:
    """Say why a job waits, with `status` in a line that is kept up to date, until an agent has leased it."""
    async with client.follow(job_id, kinds=("JOB_SCHEDULED", "JOB_UNBLOCKED", "JOB_LEASED", "JOB_FINISHED")) as events:
        ask_why = WaitingReason(client, job_id, own).ask
        async for batch in WithStatus(events.next_batch, console, ask_why, status=status, fresh=False):
            if not all(isinstance(event.body, JobScheduled | JobUnblocked) for event in batch):
                break
    console.show_status("")


async def watch_all(
    client: Client,
    jobs: Mapping[str, tuple[Callable[[Sequence[Event]], None], JobConsole]],
    console: Console,
    **part: Unpack[LogPart],
) -> int:
    """Watch several jobs at once, each by the function that shows its events.

    Returns 0 if all are COMPLETED, and otherwise the exit code of the first that ended differently.
    """
    ended: dict[str, tuple[int, int]] = {}  # when each job ended, and its exit code
    console.follow()
    console.farewell = continues(*jobs)

    async def watch_one(job_id: str, show: Callable[[Sequence[Event]], None], own: JobConsole) -> None:
        last: Event | None = None
        async with client.follow(job_id, **part) as events:
            asked = WaitingReason(client, job_id, own).ask
            async for batch in WithStatus(events.next_batch, console, asked, status=False, fresh=False):
                show(batch)
                last = batch[-1]
        if last is not None and isinstance(last.body, JobFinished):
            ended[job_id] = last.timestamp_ms, exit_status(last.body)
        else:
            job = await client.get(job_id)
            ended[job_id] = job.finished_ms or 0, job.exit_status or 0
        console.farewell = continues(*(other for other in jobs if other not in ended))
        own.job_over()

    try:
        await together([partial(watch_one, job_id, *shown) for job_id, shown in jobs.items()])
    finally:
        console.job_over()
    return first_failure(ended.values())


async def play_back(
    client: Client,
    job_id: str,
    show: Callable[[Sequence[Event]], None],
    console: Console,
    schedule: Schedule,
    **part: Unpack[LogPart],
) -> int:
    """Show a finished job's events with the timing of the schedule; return the job's exit code.

    Raises `OperatorError`: the job has not finished.
    """
    job = await client.get(job_id)
    if not job.state.terminal:
        raise OperatorError(
            f"--playback plays finished jobs, and this one is {job.state}; to follow it: airunner monitor {job_id}",
            exit_code=EXIT_WRONG_STATE,
        )
    try:
        await play(client.replay(job_id, **part), show, schedule)
    finally:
        console.job_over()
    return job.exit_status or 0


async def together(calls: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Make calls at the same time; the first error ends the others and is raised as it is."""
    with first_error():
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(call)


def first_failure(ends: Iterable[tuple[int, int]]) -> int:
    """Return the exit code of the first job that was not COMPLETED, of pairs of when a job ended and its exit code."""
    return next((code for _, code in sorted(ends) if code), 0)


def first_failed(ended: Iterable[Job]) -> int:
    """Return the exit code of the first of these jobs that was not COMPLETED, by when they ended."""
    return first_failure((job.finished_ms or 0, job.exit_status or 0) for job in ended)


def exit_status(finished: JobFinished) -> int:
    """Compute the exit code: the job's; 128 + n for signal n; 124 for a timeout; 125 if it has none and failed."""
    if finished.state is JobState.COMPLETED:
        return 0
    return result_of(finished).exit_status or EXIT_JOB_FAILED


def result_of(finished: JobFinished) -> Result:
    """Return the result in a job's last event."""
    return Result(exit_code=finished.exit_code, signal=finished.signal, reason=finished.reason)
