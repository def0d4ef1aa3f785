"""Commands `airunner cancel`, `retry`, `queues`, `agents`, `pause`, `resume` and `drain`: control jobs and queues."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from airunner.client.cli.bulk import (
    Choice,
    SomeJobsArgument,
    YesOption,
    change_each,
    confirmed,
    summary,
)
from airunner.client.cli.clientcommand import JsonOption, Work, client_command
from airunner.client.cli.commands import CancelOption, follow_new, require_monitor
from airunner.client.cli.console import Console
from airunner.client.cli.filteroptions import LabelOption, NameOption, QueueOption, state_option
from airunner.client.cli.jobname import NoJob, job_id_of, say_no_job
from airunner.client.cli.oninterrupt import InterruptOption, OnInterrupt
from airunner.client.knownqueue import is_known
from airunner.protocol.errors import EXIT_NO_SUCH, EXIT_WRONG_STATE, NotFound, OperatorError
from airunner.protocol.job import JobState
from airunner.protocol.printable import json_line
from airunner.protocol.replies import QueueMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from airunner.client.client import Client

T = TypeVar("T")
EXIT_DECLINED: Final = 130  # the person at the terminal said no: as after Ctrl-C
LIVING: Final = (JobState.BLOCKED, JobState.SCHEDULED, JobState.RUNNING)
ENDED: Final = tuple(state for state in JobState if state.terminal)
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]


@client_command("quiet")
def cancel_command(
    console: Console,
    jobs: SomeJobsArgument = None,
    queue: QueueOption = None,
    label: LabelOption = None,
    name: NameOption = None,
    state: Annotated[list[JobState] | None, state_option("blocked, scheduled and running")] = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> Work:
    """Cancel jobs: a waiting job ends at once, a running job is ended by its agent.

    Jobs that are chosen by options are cancelled 16 at a time, and their ids printed. Exits with 0 if all jobs are
    cancelled or being cancelled, with 66 if there is no such job, and with 65 if a named job had ended otherwise.
    """
    choice = Choice("cancel", queue, label, name, state, may=LIVING, states=LIVING)
    choice.require_one(jobs)

    async def run(client: Client) -> int:
        if jobs:
            return await _cancel_named(client, console, jobs, json=json)
        job_ids = await choice.ids(client)
        if not await confirmed(console, "cancel", len(job_ids), yes=yes):
            return EXIT_DECLINED
        states: Counter[JobState] = Counter()

        async def cancel(job: str) -> str:
            state = await client.cancel(job)
            states[state] += 1
            if json:
                return json_line({"job_id": job, "state": state})
            return job if state is JobState.CANCELLED or not state.terminal else ""

        code = await change_each(console, "cancel", job_ids, cancel)
        running = states[JobState.RUNNING]
        still = f"; {running:,} of them run, and their agents end them now" if running else ""
        console.say(summary("cancelled", states[JobState.CANCELLED] + running, len(job_ids)) + still)
        return code

    return run


async def _cancel_named(client: Client, console: Console, jobs: Sequence[str], *, json: bool) -> int:
    """Cancel jobs one after the other; return the exit code."""
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
def retry_command(
    console: Console,
    jobs: SomeJobsArgument = None,
    queue: QueueOption = None,
    label: LabelOption = None,
    name: NameOption = None,
    state: Annotated[list[JobState] | None, state_option("failed")] = None,
    yes: YesOption = False,
    monitor: Annotated[
        bool | None,
        typer.Option(
            "--monitor/--no-monitor",
            help="Follow the new job to its end, or only print its id.",
            show_default="monitor, if one job is named",
        ),
    ] = None,
    on_interrupt: InterruptOption = OnInterrupt.DETACH,
    cancel_on_exit: CancelOption = False,
    json: JsonOption = False,
) -> Work:
    """Submit a finished job again as a new job, follow the new job, and exit with its exit code, as `submit` does.

    Several jobs, or jobs that are chosen by options, are submitted again 16 at a time: the ids of the new jobs are
    printed, and `airunner wait` waits for them. A job that was chosen and retried within a day is not retried again.
    """
    choice = Choice("retry", queue, label, name, state, may=ENDED, states=(JobState.FAILED,))
    choice.require_one(jobs)
    several = choice.given or len(jobs or ()) > 1
    if several and (monitor or cancel_on_exit):
        raise OperatorError("--monitor and --cancel-on-exit are for one job: use `airunner wait` for several")
    follow = not several if monitor is None else monitor
    require_monitor(monitor=follow, cancel_on_exit=cancel_on_exit)

    async def run(client: Client) -> int:
        if not several:
            submit = partial(client.retry, await job_id_of(client, (jobs or [""])[0]))
            console.sizes = True
            start = partial(follow_new, client, submit, console, on_interrupt)
            return await start(json=json, monitor=follow, cancel_on_exit=cancel_on_exit)
        job_ids = [await job_id_of(client, job) for job in jobs] if jobs else await choice.ids(client)
        if not await confirmed(console, "retry", len(job_ids), yes=yes):
            return EXIT_DECLINED

        retried = 0

        async def retry(job: str) -> str:
            nonlocal retried
            new = await client.retry(job, request_id=None if jobs else f"retry of {job}, chosen by options")
            retried += 1
            return json_line({"job_id": new.id, "origin": job}) if json else new.id

        code = await change_each(console, "retry", job_ids, retry)
        console.say(summary("retried", retried, len(job_ids)))
        return code

    return run


@client_command()
async def queues_command(client: Client, console: Console, json: JsonOption = False) -> None:
    """List the queues: their waiting and running jobs, and the age of the oldest job that waits."""
    from airunner.client.cli.listing import QUEUE_HEADINGS, QUEUES_LEAVE, queue_row

    await show_rows(console, client.queues(), queue_row, QUEUE_HEADINGS, QUEUES_LEAVE, json=json)


@client_command()
async def agents_command(client: Client, console: Console, json: JsonOption = False) -> None:
    """List the agents that run jobs or were active in the last minutes, and how busy they are.

    With several brokers, idle agents are listed by the broker that they use: ask each with --broker.
    """
    from airunner.client.cli.listing import AGENT_HEADINGS, AGENTS_LEAVE, agent_row

    await show_rows(console, client.agents(), agent_row, AGENT_HEADINGS, AGENTS_LEAVE, json=json)


@client_command()
async def brokers_command(client: Client, console: Console, json: JsonOption = False) -> None:
    """List the brokers that share the store: where they are, when they last wrote to it, and the leases they own."""
    from airunner.client.cli.listing import BROKER_HEADINGS, BROKERS_LEAVE, broker_row
    from airunner.client.cli.rowtable import table_lines, width_of

    brokers = await client.brokers()
    if json:
        for broker in brokers:
            console.out_json(broker)
    elif brokers:
        rows = [broker_row(broker) for broker in brokers]
        for line in table_lines(BROKER_HEADINGS, rows, BROKERS_LEAVE, width_of(console)):
            console.out_line(line)
    else:
        console.say("this broker has a store of its own, and is the only one")


@client_command("quiet")
async def pause_command(client: Client, console: Console, queue: QueueArgument) -> None:
    """Pause a queue: it accepts jobs and starts none, until `airunner resume`. Running jobs continue."""
    await _update(client, console, queue, QueueMode.PAUSED, "is paused: it accepts jobs and starts none")


@client_command("quiet")
async def resume_command(client: Client, console: Console, queue: QueueArgument) -> None:
    """Resume a queue that was paused or drained. Exits with 66 if there is no such queue."""
    if not await is_known(client, queue):
        words = f"there is no queue {queue} to resume: it has no jobs and no agent, and was neither paused nor drained"
        raise OperatorError(f"{words}; `airunner queues` lists the queues", exit_code=EXIT_NO_SUCH)
    await client.update_queue(queue, QueueMode.OPEN)
    console.say(f"queue {queue} is open")


@client_command("quiet")
async def drain_command(client: Client, console: Console, queue: QueueArgument) -> None:
    """Drain a queue: it rejects new jobs and runs those it has, until `airunner resume`."""
    await _update(client, console, queue, QueueMode.DRAINING, "is draining: it rejects new jobs")


async def _update(client: Client, console: Console, queue: str, mode: QueueMode, words: str) -> None:
    """Set the mode of a queue, and warn if its name may be mistyped: no job and no agent knows it."""
    known = await is_known(client, queue)
    await client.update_queue(queue, mode)
    console.say(f"queue {queue} {words}")
    if not known:
        undo = f"undo it with `airunner resume {queue}` if the name is mistyped"
        console.must_say(f"queue {queue} is new: it has no jobs, and no agent serves it; {undo}")


async def show_rows(
    console: Console,
    listed: AsyncIterator[T],
    row: Callable[[T, int], Sequence[str]],
    headings: Sequence[str],
    leave: Sequence[str],
    *,
    json: bool,
) -> None:
    """Print a list: a JSON object a line, or a table (`table_lines`); `row` receives the present instant in ms too."""
    from airunner.client.cli.rowtable import table_lines, width_of
    from airunner.transport.ports import SYSTEM

    rows: list[Sequence[str]] = []
    async for each in listed:
        if json:
            console.out_json(each)
        else:
            rows.append(row(each, SYSTEM.wall_ms()))
    if not json:
        for line in table_lines(headings, rows, leave, width_of(console)):
            console.out_line(line)
