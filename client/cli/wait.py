"""Command `airunner wait`: waits for jobs to end, by following their events, and exits with their exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.clientcommand import JobsArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.job import TIMEOUT_EXIT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airunner.client.client import Client
    from airunner.protocol.events import JobFinished

NAMED_MAX: Final = 10  # jobs that a message names
REQUESTS_MAX: Final = 64  # requests at once for where the logs of the jobs end


@client_command("quiet")
def wait_command(
    console: Console,
    jobs: JobsArgument,
    first: Annotated[bool, typer.Option("--any", help="Wait only for the first job that ends.")] = False,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Give up after this time, such as 90s or 10m, and exit with 124; the jobs continue.",
            show_default="no limit",
        ),
    ] = None,
    json: JsonOption = False,
) -> Work:
    """Wait until all jobs have ended, and print for each its id, state and exit code, a line as it ends.

    Exits with 0 if all of them are COMPLETED, otherwise with the exit code of the first that ended otherwise;
    with 124 after --timeout, and with 66 if there is no such job.
    """
    limit_s = None if timeout is None else of_flag("--timeout", duration_ms, timeout) / 1_000

    async def run(client: Client) -> int:
        import anyio

        from airunner.client.cli.jobname import job_id_of
        from airunner.client.cli.watching import exit_status, first_failure

        waiting = dict.fromkeys([await job_id_of(client, job) for job in jobs])
        ends: list[tuple[int, int]] = []  # when each job ended, and its exit code

        def ended(job_id: str, finished: JobFinished) -> bool:
            """Print that a job has ended; return whether the command is done."""
            del waiting[job_id]
            exit_code = exit_status(finished)
            ends.append((finished.timestamp_ms, exit_code))
            if json:
                console.out_json({"job_id": job_id, "state": finished.state, "exit_code": exit_code})
            else:
                console.out_line(f"{job_id} {finished.state} {exit_code}")
            console.farewell = farewell(waiting)
            return first or not waiting

        console.farewell = farewell(waiting)
        with anyio.move_on_after(limit_s) as limit:
            await follow_ends(client, tuple(waiting), ended)
        if not limit.cancelled_caught:
            return first_failure(ends)
        console.must_say(f"gave up after {timeout}; {await states_text(client, waiting)}")
        return TIMEOUT_EXIT

    return run


def farewell(waiting: Collection[str]) -> str:
    """Return the message of a command that is interrupted while it waits for these jobs."""
    rest = f"; to wait for the rest: airunner wait {' '.join(waiting)}" if len(waiting) <= NAMED_MAX else ""
    return f"the jobs continue{rest}" if waiting else ""


async def follow_ends(client: Client, job_ids: Collection[str], ended: Callable[[str, JobFinished], bool]) -> None:
    """Follow jobs until `ended`, which is called with the last event of each, returns true.

    Raises `NoJob`, and the errors of `Client.follow`.
    """
    import anyio

    from airunner.client.cli.jobname import NoJob
    from airunner.client.cli.taskgroups import first_error
    from airunner.protocol.errors import NotFound
    from airunner.protocol.events import JobFinished

    requests = anyio.Semaphore(REQUESTS_MAX)

    async def follow(job_id: str) -> None:
        try:
            async with requests:
                job = await client.get(job_id)
            async with client.follow(job_id, max(1, job.last_sequence), kinds=("JOB_FINISHED",)) as events:
                async for event in events:
                    if isinstance(event.body, JobFinished) and ended(job_id, event.body):
                        group.cancel_scope.cancel()
        except NotFound as error:
            raise NoJob(job_id) from error

    with first_error():
        async with anyio.create_task_group() as group:
            for job_id in job_ids:
                group.start_soon(follow, job_id)


async def states_text(client: Client, waiting: Collection[str]) -> str:
    """List jobs that have not ended, with their states."""
    from itertools import islice

    states = [f"{job_id} is {(await client.get(job_id)).state}" for job_id in islice(waiting, NAMED_MAX)]
    more = len(waiting) - len(states)
    return ", ".join(states) + (f", and {more} more" if more else "")
