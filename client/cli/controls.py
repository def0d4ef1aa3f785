"""Commands `airunner cancel`, `retry`, `queues`, `agents`, `pause`, `resume` and `drain`: control jobs and queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.commands import (
    BrokerOption,
    JobArgument,
    JsonOption,
    QuietOption,
    RawOption,
    TokenOption,
    follow_job,
    run_client,
)
from airunner.protocol.job import JobState
from airunner.protocol.queues import QueueMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from msgspec import Struct

    from airunner.client.client import Client

QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]


def cancel_command(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="The jobs' ids.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
    broker: BrokerOption = None,
    token: TokenOption = None,
) -> None:
    """Cancel jobs: a waiting job never runs, a running job is ended by its agent.

    Exits with 0 when all of them are cancelled or about to be, with 1 when a job had ended otherwise before.
    """
    from airunner.client.cli.console import Console
    from airunner.protocol.errors import NotFound

    console = Console(quiet=quiet)

    async def run(client: Client) -> int:
        missed = 0
        for job in jobs:
            try:
                state = await client.cancel(job)
            except NotFound:
                console.must_say(f"there is no job {job}; `airunner list` shows which there are")
                missed = 1
                continue
            if json:
                console.out_json({"job_id": job, "state": state})
            if state is JobState.CANCELLED:
                console.say(f"job {job} is cancelled")
            elif not state.terminal:
                console.say(f"job {job} is being cancelled; its agent ends it now")
            else:
                console.must_say(f"job {job} had already ended: {state}")
                missed = 1
        return missed

    run_client(run, console, broker, token)


def retry_command(
    job: JobArgument,
    monitor: Annotated[
        bool, typer.Option("--monitor/--no-monitor", help="Follow the new job to its end, or print its id and leave.")
    ] = True,
    json: JsonOption = False,
    quiet: QuietOption = False,
    raw: RawOption = False,
    broker: BrokerOption = None,
    token: TokenOption = None,
) -> None:
    """Submit an ended job again, follow it, and exit as `submit` does. It is a new job with an id of its own."""
    from airunner.client.cli.console import Console

    console = Console(quiet=quiet, raw=raw)
    watched = [job]

    async def run(client: Client) -> int:
        again = await client.retry(job)
        watched[0] = again.id
        return await follow_job(client, again.id, console, json=json, monitor=monitor)

    run_client(run, console, broker, token, watched)


def queues_command(json: JsonOption = False, broker: BrokerOption = None, token: TokenOption = None) -> None:
    """List the queues: their waiting and running jobs, and the age of the oldest job that waits."""
    from airunner.client.cli.listing import QUEUE_HEADINGS, queue_row
    from airunner.transport.ports import SYSTEM

    async def rows(client: Client) -> AsyncIterator[tuple[Struct, Sequence[str]]]:
        async for queue in client.queues():
            yield queue, queue_row(queue, SYSTEM.wall_ms())

    show_rows(rows, QUEUE_HEADINGS, broker, token, json=json)


def agents_command(json: JsonOption = False, broker: BrokerOption = None, token: TokenOption = None) -> None:
    """List the agents that were active in the last minutes, and how busy they are."""
    from airunner.client.cli.listing import AGENT_HEADINGS, agent_row
    from airunner.transport.ports import SYSTEM

    async def rows(client: Client) -> AsyncIterator[tuple[Struct, Sequence[str]]]:
        async for agent in client.agents():
            yield agent, agent_row(agent, SYSTEM.wall_ms())

    show_rows(rows, AGENT_HEADINGS, broker, token, json=json)


def pause_command(
    queue: QueueArgument, quiet: QuietOption = False, broker: BrokerOption = None, token: TokenOption = None
) -> None:
    """Pause a queue: it accepts jobs and starts none, until `airunner resume`. Running jobs go on."""
    _set_mode(queue, QueueMode.PAUSED, "is paused: it accepts jobs and starts none", broker, token, quiet=quiet)


def resume_command(
    queue: QueueArgument, quiet: QuietOption = False, broker: BrokerOption = None, token: TokenOption = None
) -> None:
    """Resume a queue that was paused or drained."""
    _set_mode(queue, QueueMode.OPEN, "is open", broker, token, quiet=quiet)


def drain_command(
    queue: QueueArgument, quiet: QuietOption = False, broker: BrokerOption = None, token: TokenOption = None
) -> None:
    """Drain a queue: it rejects new jobs and runs those it has, until `airunner resume`."""
    _set_mode(queue, QueueMode.DRAINING, "is draining: it rejects new jobs", broker, token, quiet=quiet)


def _set_mode(
    queue: str, mode: QueueMode, effect: str, broker: list[str] | None, token: str | None, *, quiet: bool
) -> None:
    from airunner.client.cli.console import Console

    console = Console(quiet=quiet)

    async def run(client: Client) -> int:
        await client.update_queue(queue, mode)
        console.say(f"queue {queue} {effect}")
        return 0

    run_client(run, console, broker, token)


def show_rows(
    rows: Callable[[Client], AsyncIterator[tuple[Struct, Sequence[str]]]],
    headings: Sequence[str],
    broker: list[str] | None,
    token: str | None,
    *,
    json: bool,
) -> None:
    """Print a list: a JSON object a line, or aligned columns."""
    from airunner.client.cli.columns import aligned
    from airunner.client.cli.console import Console

    console = Console()

    async def run(client: Client) -> int:
        shown: list[Sequence[str]] = [headings]
        async for listed, row in rows(client):
            if json:
                console.out_json(listed)
            shown.append(row)
        if not json:
            for line in aligned(shown):
                console.out_line(line)
        return 0

    run_client(run, console, broker, token)
