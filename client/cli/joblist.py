"""Command `airunner list`: lists the newest jobs, or all, newest first, once or as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from airunner.client.cli.clientcommand import JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.filteroptions import LabelOption, NameOption, QueueOption, labels_of, state_option
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import JobState
from airunner.protocol.requests import PAGE_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from airunner.client.client import Client
    from airunner.protocol.job import JobSummary
    from airunner.protocol.replies import JobsListed

JOBS: Final = 20  # of a list without --limit


@client_command()
def list_command(
    console: Console,
    state: Annotated[list[JobState] | None, state_option("all")] = None,
    queue: QueueOption = None,
    name: NameOption = None,
    metadata: LabelOption = None,
    owner: Annotated[str | None, typer.Option(help="Only jobs of this owner.", show_default="all")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="Only jobs submitted since: 10m for ten minutes ago, or 2027-01-31T03:00:00Z.",
            show_default="any time",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="Only jobs submitted until then.", show_default="now"),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="JOB",
            help="List jobs older than this one: with the last job of a list, its continuation.",
            show_default="the newest job",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="Number of jobs to list, the newest first.")
    ] = JOBS,
    every: Annotated[bool, typer.Option("--all", "-a", help="List all jobs, however many.")] = False,
    ids: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the jobs' ids, one a line.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Columns to show: id, state, title (name or command), name, queue, owner, age, submitted, took, "
            "repository, command; and from the job's usage: waited, checkout, events, stdout, stderr, cpu, memory, "
            "read, written.",
            show_default="those that fit",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing changes, until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> Work:
    """List jobs, newest first."""
    import sys

    from airunner.client.cli.columns import PIPE, TERMINAL, Table, columns_of, table_text
    from airunner.client.cli.instants import past_ms
    from airunner.client.cli.watchlist import JsonLines, Lines, Screen, watch_list
    from airunner.transport.ports import SYSTEM

    chosen = ("id",) if ids else columns_of(columns) if columns is not None else None
    wanted: dict[str, Any] = {"state": state or None, "metadata": labels_of(metadata or ())}
    wanted |= {"queue": queue, "name": name, "owner": owner}
    since_ms, until_ms = (past_ms(*option, SYSTEM.wall_ms()) for option in (("--since", since), ("--until", until)))
    for option, given in (("--all", every), ("--since", since), ("--until", until), ("--after", before)):
        if watch and given:
            raise OperatorError(f"--watch shows the newest jobs as they change: leave out {option}")
    terminal = sys.stdout.isatty() and not ids
    table = Table()

    def show(jobs: Sequence[JobSummary]) -> None:
        if json:
            for job in jobs:
                console.out_json(job)
        elif ids:
            for job in jobs:
                console.out_line(job.id)
        elif terminal:
            console.out(table_text(jobs, SYSTEM.wall_ms(), chosen or TERMINAL).encode(errors="replace"))
        else:
            for line in table.lines(jobs, SYSTEM.wall_ms(), chosen or PIPE):
                console.out_line(line)

    async def run(client: Client) -> None:
        from airunner.client.cli.jobname import job_id_of

        if watch:

            async def ask() -> JobsListed:
                return await client.list_page(**wanted, page_size=min(limit, PAGE_SIZE_MAX))

            view = Screen(console, chosen or TERMINAL) if terminal else Lines(console, chosen or PIPE)
            await watch_list(ask, (JsonLines(console) if json else view).show, SYSTEM.wall_ms)
            return
        after = None if before is None else await job_id_of(client, before)
        size = PAGE_SIZE_MAX if every or since or until else min(limit + 1, PAGE_SIZE_MAX)  # one more: are there more?
        found = within(client.list(**wanted, before=after, page_size=size), since_ms, until_ms)
        last = await show_some(found, show, None if every else limit)
        if last is not None and not json and not ids:
            of_all = since is until is before is None
            counted = await client.list_page(**wanted, page_size=1, count=True) if of_all else None
            console.say(more_text(counted, limit, last))

    return run


async def within(
    jobs: AsyncIterator[JobSummary], since_ms: int | None, until_ms: int | None
) -> AsyncIterator[JobSummary]:
    """Limit a list, newest first, to the jobs that were submitted in a time; it ends with the first older job."""
    async for job in jobs:
        if since_ms is not None and job.submitted_ms < since_ms:
            return
        if until_ms is None or job.submitted_ms <= until_ms:
            yield job


async def show_some(
    jobs: AsyncIterator[JobSummary], show: Callable[[Sequence[JobSummary]], None], limit: int | None
) -> JobSummary | None:
    """Show jobs in pieces, so that a list of any length takes little memory; None for the limit: all.

    Returns the last job that was shown if there are more than the limit.
    """
    piece: list[JobSummary] = []
    last: JobSummary | None = None
    shown = 0
    more = False
    async for job in jobs:
        if limit is not None and shown + len(piece) == limit:
            more = True
            break
        piece.append(job)
        last = job
        if len(piece) == PAGE_SIZE_MAX:
            show(piece)
            piece, shown = [], shown + PAGE_SIZE_MAX
    if piece or not shown:
        show(piece)
    return last if more else None


def more_text(counted: JobsListed | None, shown: int, last: JobSummary) -> str:
    """Say how many jobs a list leaves out, and how to get them."""
    if counted is None or counted.total is None:
        there = "1 job" if shown == 1 else f"{shown:,} jobs"
    else:
        there = f"the newest {shown:,} of {'over ' if counted.beyond else ''}{counted.total:,} jobs"
    return f"{there}; go on with --after {last.id}, or list --all"
