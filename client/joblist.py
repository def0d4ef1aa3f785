"""`airunner list`: jobs, newest first; a page of them, or live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.commands import BrokerOption, JsonOption, TokenOption, run_client
from airunner.protocol.job import JobState
from airunner.protocol.messages import PAGE_MAX, PAGE_SIZE_MAX

if TYPE_CHECKING:
    from airunner.client.client import Client


def list_command(
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.", show_default="all")] = None,
    state: Annotated[
        JobState | None, typer.Option(case_sensitive=False, help="Only jobs in this state.", show_default="all")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only jobs of this owner.", show_default="all")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only jobs with this note; may be repeated.", show_default="all"),
    ] = None,
    page: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Which page, counted from 1.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=PAGE_SIZE_MAX, help="Jobs on one page.")] = 20,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="What to show: id, state, queue, owner, age, submitted, took, repository, command; of what a job has "
            "used waited, checkout, events, stdout, stderr, cpu, memory, read, written.",
            show_default="what fits",
        ),
    ] = None,
    json: JsonOption = False,
    broker: BrokerOption = None,
    token: TokenOption = None,
) -> None:
    """List jobs, newest first."""
    import sys

    from airunner.certs.edges import SYSTEM
    from airunner.client.columns import PIPE, TERMINAL, columns_of, lines, print_table
    from airunner.client.console import Console
    from airunner.client.request import pairs_of

    console = Console()
    chosen = columns_of(columns) if columns is not None else None
    notes = pairs_of("--metadata", metadata or ())

    async def run(client: Client) -> int:
        found = await client.list_jobs(
            queue=queue, state=state, owner=owner, metadata=notes, page=page, page_size=page_size
        )
        if json:
            for job in found.jobs:
                console.out_json(job)
        elif sys.stdout.isatty():
            print_table(found.jobs, SYSTEM.wall_ms(), chosen or TERMINAL)
        else:
            for line in lines(found.jobs, SYSTEM.wall_ms(), chosen or PIPE):
                console.out_line(line)
        if found.more and not json:
            console.say(f"there are more: --page {page + 1}")
        return 0

    run_client(run, console, broker, token)
