"""Command `airunner list`: lists a page of jobs, or all, newest first, once or as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import JobState
from airunner.protocol.requests import PAGE_MAX, PAGE_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from airunner.client.client import Client
    from airunner.protocol.job import JobSummary
    from airunner.protocol.replies import JobsListed


@client_command()
def list_command(
    console: Console,
    queue: Annotated[str | None, typer.Option(help="List only jobs of this queue.", show_default="all")] = None,
    state: Annotated[
        JobState | None, typer.Option(case_sensitive=False, help="List only jobs in this state.", show_default="all")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="List only jobs of this owner.", show_default="all")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="List only jobs with this metadata; may be repeated.", show_default="all"
        ),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="JOB",
            help="List jobs older than this one: with the last job of a page, the next page, whatever is submitted "
            "meanwhile.",
            show_default="the newest job",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List all jobs, and not one page.")] = False,
    page: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Number of the page, counted from 1.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=PAGE_SIZE_MAX, help="Jobs on one page.")] = 20,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Columns to show: id, state, queue, owner, age, submitted, took, repository, command; and from the "
            "job's usage: waited, checkout, events, stdout, stderr, cpu, memory, read, written.",
            show_default="those that fit",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing changes, until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> Work:
    """List jobs, newest first."""
    import sys

    from airunner.client.cli.columns import PIPE, TERMINAL, Table, columns_of, table_text
    from airunner.client.cli.request import pairs_of
    from airunner.client.cli.watchlist import JsonLines, Lines, Screen, watch_list
    from airunner.transport.ports import SYSTEM

    chosen = columns_of(columns) if columns is not None else None
    notes = pairs_of("--metadata", metadata or ())
    if len(notes) < len(set(metadata or ())):
        raise OperatorError("--metadata: a job has one value for each name, so no job matches two values of a name")
    if every and (watch or page > 1):
        raise OperatorError(f"--all lists every page: leave out {'--watch' if watch else '--page'}")
    terminal = sys.stdout.isatty()

    table = Table()

    def show(jobs: Sequence[JobSummary]) -> None:
        if json:
            for job in jobs:
                console.out_json(job)
        elif terminal:
            console.out(table_text(jobs, SYSTEM.wall_ms(), chosen or TERMINAL).encode(errors="replace"))
        else:
            for line in table.lines(jobs, SYSTEM.wall_ms(), chosen or PIPE):
                console.out_line(line)

    async def run(client: Client) -> None:
        console.job_id = before or ""

        async def ask() -> JobsListed:
            return await client.list_jobs(
                queue=queue,
                state=state,
                owner=owner,
                metadata=notes,
                before=before,
                page=page,
                page_size=page_size,
                count=not watch and not json and before is None,
            )

        if watch:
            view = Screen(console, chosen or TERMINAL) if terminal else Lines(console, chosen or PIPE)
            await watch_list(ask, (JsonLines(console) if json else view).show, SYSTEM.wall_ms)
            return
        if every:
            jobs = client.jobs(queue=queue, state=state, owner=owner, metadata=notes, before=before)
            await show_all(jobs, show)
            return
        found = await ask()
        show(found.jobs)
        if not json and (summary := page_text(found, page, page_size, before)):
            console.say(summary)

    return run


async def show_all(jobs: AsyncIterator[JobSummary], show: Callable[[Sequence[JobSummary]], None]) -> None:
    """Show jobs in pieces, so that a list of any length takes little memory."""
    piece: list[JobSummary] = []
    shown = False
    async for job in jobs:
        piece.append(job)
        if len(piece) == PAGE_SIZE_MAX:
            show(piece)
            piece, shown = [], True
    if piece or not shown:
        show(piece)


def page_text(found: JobsListed, page: int, page_size: int, after: str | None = None) -> str:
    """Format the page's number, and the numbers of pages and jobs; empty if one page has all jobs."""
    going_on = f"; there are more: --after {found.jobs[-1].id}, or --all" if found.more and found.jobs else ""
    if found.total is None or after is not None:  # an older broker does not count; and the pages before are not known
        return going_on.removeprefix("; ")
    if page == 1 and not found.more:
        return ""
    if found.beyond:
        return f"page {page}, more than {found.total} jobs{going_on}"
    return f"page {page} of {-(-found.total // page_size)}, {found.total} jobs{going_on}"
