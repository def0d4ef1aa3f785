"""Commands `airunner cancel`, `retry`, `queues`, `agents`, `pause`, `resume` and `drain`: control jobs and queues."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from airunner.client.cli.clientcommand import JobArgument, JobsArgument, JsonOption, client_command
from airunner.client.cli.commands import CancelOption, MonitorOption, follow_new, require_monitor
from airunner.client.cli.console import Console
from airunner.client.cli.jobname import NoJob, job_id_of, say_no_job
from airunner.protocol.errors import EXIT_WRONG_STATE, NotFound
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from airunner.client.client import Client

T = TypeVar("T")
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]


@client_command("quiet")
async def cancel_command(
    client: Client,
    console: Console,
    jobs: JobsArgument,
    json: JsonOption = False,
) -> int:
    """Cancel jobs: a waiting job ends at once, a running job is ended by its agent.

    Exits with 0 if all jobs are cancelled or being cancelled, with 66 if there is no such job, and with 65 if a job had
    ended otherwise.
    """
    exit_code = 0
    for operand in jobs:
        try:
            job = await job_id_of(client, operand)
            state = await client.cancel(job)
        except (NoJob, NotFound) as error:
            exit_code = say_no_job(console, operand, error)
            continue
        if json:
            console.out_json({"job_id": job, "state": state})
        if state is JobState.CANCELLED:
            console.say(f"job {job} is cancelled")
        elif not state.terminal:
            console.say(f"job {job} is being cancelled; its agent ends it now")
        else:
            console.must_say(f"job {job} had already ended: {state}")
            exit_code = exit_code or EXIT_WRONG_STATE
    return exit_code


@client_command("quiet", "raw")
async def retry_command(
    client: Client,
    console: Console,
    job: JobArgument,
    monitor: MonitorOption = True,
    cancel_on_exit: CancelOption = False,
    json: JsonOption = False,
) -> int:
    """Submit a finished job again as a new job, follow the new job, and exit with its exit code, as `submit` does."""
    require_monitor(monitor=monitor, cancel_on_exit=cancel_on_exit)
    submit = partial(client.retry, await job_id_of(client, job))
    return await follow_new(client, submit, console, json=json, monitor=monitor, cancel_on_exit=cancel_on_exit)


@client_command()
async def queues_command(client: Client, console: Console, json: JsonOption = False) -> None:
    """List the queues: their waiting and running jobs, and the age of the oldest job that waits."""
    from airunner.client.cli.listing import QUEUE_HEADINGS, queue_row

    await show_rows(console, client.queues(), queue_row, QUEUE_HEADINGS, json=json)


@client_command()
async def agents_command(client: Client, console: Console, json: JsonOption = False) -> None:
    """List the agents that run jobs or were active in the last minutes, and how busy they are.

    With several brokers, idle agents are listed by the broker that they use: ask each with --broker.
    """
    from airunner.client.cli.listing import AGENT_HEADINGS, agent_row

    await show_rows(console, client.agents(), agent_row, AGENT_HEADINGS, json=json)


@client_command()
async def brokers_command(client: Client, console: Console, json: JsonOption = False) -> None:
    """List the brokers that share the store: where they are, when they last wrote to it, and the leases they own."""
    from airunner.client.cli.columns import aligned
    from airunner.client.cli.listing import BROKER_HEADINGS, broker_row

    brokers = await client.brokers()
    if json:
        for broker in brokers:
            console.out_json(broker)
    elif brokers:
        for line in aligned([BROKER_HEADINGS, *map(broker_row, brokers)]):
            console.out_line(line)
    else:
        console.say("this broker has a store of its own, and is the only one")


@client_command("quiet")
async def pause_command(client: Client, console: Console, queue: QueueArgument) -> None:
    """Pause a queue: it accepts jobs and starts none, until `airunner resume`. Running jobs continue."""
    await client.update_queue(queue, QueueMode.PAUSED)
    console.say(f"queue {queue} is paused: it accepts jobs and starts none")


@client_command("quiet")
async def resume_command(client: Client, console: Console, queue: QueueArgument) -> None:
    """Resume a queue that was paused or drained."""
    await client.update_queue(queue, QueueMode.OPEN)
    console.say(f"queue {queue} is open")


@client_command("quiet")
async def drain_command(client: Client, console: Console, queue: QueueArgument) -> None:
    """Drain a queue: it rejects new jobs and runs those it has, until `airunner resume`."""
    await client.update_queue(queue, QueueMode.DRAINING)
    console.say(f"queue {queue} is draining: it rejects new jobs")


async def show_rows(
    console: Console,
    listed: AsyncIterator[T],
    row: Callable[[T, int], Sequence[str]],
    headings: Sequence[str],
    *,
    json: bool,
) -> None:
    """Print a list: a JSON object a line, or aligned columns; `row` receives the present instant in ms too."""
    from airunner.client.cli.columns import aligned
    from airunner.transport.ports import SYSTEM

    rows = [headings]
    async for each in listed:
        if json:
            console.out_json(each)
        else:
            rows.append(row(each, SYSTEM.wall_ms()))
    if not json:
        for line in aligned(rows):
            console.out_line(line)
