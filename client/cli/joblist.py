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
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from airunner.client.client import Client
    from airunner.protocol.job import JobSummary
    from airunner.protocol.replies import JobsListed

JOBS: Final = 20  # of a list without --limit
QUEUES_NAMED: Final = 8  # in the message that a queue has no jobs


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
            help="Columns to show: id, state, title (name or command), name, queue, reason (why it waits), owner, age, "
            "submitted, took, ran, repository, command; and from the job's usage: waited, checkout, events, stdout, "
            "stderr, cpu, memory, read, written.",
            show_default="those that fit",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Keep showing changes as they come, until Ctrl-C: on a terminal in place, in a pipe a line (with "
            "--json an object) for each job that is new or has changed.",
        ),
    ] = False,
    json: JsonOption = False,
) -> Work:
    """List jobs, newest first."""
    from airunner.client.cli.columns import columns_of
    from airunner.client.cli.instants import past_ms
    from airunner.client.cli.listview import ListView
    from airunner.transport.ports import SYSTEM

    wanted: dict[str, Any] = {"state": state or None, "metadata": labels_of(metadata or ())}
    wanted |= {"queue": queue, "name": name, "owner": owner}
    since_ms, until_ms = (past_ms(*option, SYSTEM.wall_ms()) for option in (("--since", since), ("--until", until)))
    for option, given in (("--all", every), ("--since", since), ("--until", until), ("--after", before)):
        if watch and given:
            raise OperatorError(f"--watch shows the newest jobs as they change: leave out {option}")
    chosen = ("id",) if ids else columns_of(columns) if columns is not None else None
    view = ListView(console, chosen, ids=ids, json=json)

    async def run(client: Client) -> None:
        from airunner.client.cli.jobname import job_id_of

        if watch:
            await view.watch(client, min(limit, PAGE_SIZE_MAX), wanted)
            return
        wanted["details"] = view.needs_details
        after = None if before is None else await job_id_of(client, before)
        size = PAGE_SIZE_MAX if every or since or until else min(limit + 1, PAGE_SIZE_MAX)  # one more: are there more?
        found = within(client.list(**wanted, before=after, page_size=size), since_ms, until_ms)

        async def show(jobs: Sequence[JobSummary]) -> None:
            if not jobs and queue is not None and await client.queue(queue) is None:
                console.must_say(await no_queue_text(client, queue))
            else:
                view.show(await view.with_reasons(client, jobs))

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
    jobs: AsyncIterator[JobSummary], show: Callable[[Sequence[JobSummary]], Awaitable[None]], limit: int | None
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
            await show(piece)
            piece, shown = [], shown + PAGE_SIZE_MAX
    if piece or not shown:
        await show(piece)
    return last if more else None


async def no_queue_text(client: Client, queue: str) -> str:
    """Say that a queue has no jobs, and which queues there are."""
    from airunner.client.cli.waiting import first_of

    names = [other.queue for other in await first_of(client.queues(), QUEUES_NAMED + 1)]
    dots = ", …" if len(names) > QUEUES_NAMED else ""
    there = f"queues: {', '.join(names[:QUEUES_NAMED])}{dots}" if names else "there are no queues yet"
    return f"no jobs in queue {queue!r}; {there}"


def more_text(counted: JobsListed | None, shown: int, last: JobSummary) -> str:
    """Say how many jobs a list leaves out, and how to get them."""
    if counted is None or counted.total is None:
        there = "1 job" if shown == 1 else f"{shown:,} jobs"
    else:
        there = f"the newest {shown:,} of {'over ' if counted.beyond else ''}{counted.total:,} jobs"
    return f"{there}; go on with --after {last.id}, or list --all"
