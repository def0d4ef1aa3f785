"""Command `airunner wait`: waits for jobs to end, and exits with their exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JobsArgument, JsonOption, Work, client_command
from airunner.client.cli.console import NAMED_MAX, Console
from airunner.protocol.durations import duration_ms, of_flag
from airunner.protocol.job import TIMEOUT_EXIT

if TYPE_CHECKING:
    from collections.abc import Collection

    from airunner.client.client import Client
    from airunner.protocol.job import Job


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
        from airunner.client.cli.setstatus import set_status
        from airunner.client.cli.watching import first_failed

        waiting = dict.fromkeys([await job_id_of(client, job) for job in jobs])
        ended: list[Job] = []

        def end(job: Job) -> bool:
            """Print that a job has ended; return whether that was all that is waited for."""
            ended.append(job)
            del waiting[job.id]
            if json:
                console.out_json({"job_id": job.id, "state": job.state, "exit_code": job.exit_status})
            else:
                console.out_line(f"{job.id} {job.state} {job.exit_status}")
            return first or not waiting

        if limit_s == 0:  # only a look
            for job in [await client.get(job_id) for job_id in waiting]:
                if job.state.terminal and end(job):
                    return first_failed(ended)
        with anyio.move_on_after(limit_s) as limit:
            async with set_status(client, console, waiting, ended) as show, client.as_completed(tuple(waiting)) as ends:
                async for job in ends:
                    if end(job):
                        break
                    show()
        console.job_over()
        if not limit.cancelled_caught:
            return first_failed(ended)
        console.must_say(f"gave up after {timeout}; {await states_text(client, waiting)}")
        return TIMEOUT_EXIT

    return run


async def states_text(client: Client, waiting: Collection[str]) -> str:
    """List jobs that have not ended, with their states."""
    from itertools import islice

    states = [f"{job_id} is {(await client.get(job_id)).state}" for job_id in islice(waiting, NAMED_MAX)]
    more = len(waiting) - len(states)
    return ", ".join(states) + (f", and {more} more" if more else "")
