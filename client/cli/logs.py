"""Command `airunner logs`: prints a job's output so far, or a part of it: last lines, a time, what a search finds."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JobsArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.client.loglines import CONTEXT_LINES_MAX, TAIL_LINES_MAX
from airunner.protocol.errors import OperatorError
from airunner.protocol.events import STREAMS, Stream
from airunner.protocol.names import MILLISECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airunner.client.cli.console import JobConsole
    from airunner.client.cli.logprinter import LogPrinter
    from airunner.client.client import Client


@client_command("quiet", "raw")
def logs_command(
    console: Console,
    jobs: JobsArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what the job writes from now on, until it ends.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            "-n",
            min=0,
            max=TAIL_LINES_MAX,
            help="Print only the last lines, as many as this.",
            show_default="all",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="Print output from this time on: 10m for ten minutes ago, 2027-01-31T03:00:00Z, ms since the epoch.",
            show_default="the beginning",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Print output up to this time.", show_default="now")
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Put the time before each line: 2027-01-31T03:00:00.000Z.")
    ] = False,
    stdout: Annotated[
        bool, typer.Option("--stdout", help="Print what the job wrote to stdout, and not stderr.")
    ] = False,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Print what the job wrote to stderr, and not stdout.")
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, max=MILLISECONDS_MAX, help="Print the output of this attempt.", show_default="all"),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option(
            metavar="RE",
            help="Print only lines in which this regular expression is found; colours are ignored.",
            show_default="all lines",
        ),
    ] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="Let --grep ignore case.")] = False,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "-C",
            min=0,
            max=CONTEXT_LINES_MAX,
            help="Print as many lines before and after each line that --grep finds.",
            show_default="0",
        ),
    ] = None,
    json: JsonOption = False,
) -> Work:
    """Print the output of a job so far, its stdout on stdout and its stderr on stderr; exit with 0.

    With --tail only the end of a long log is read, unless it is searched. With --json each line is an object. Lines of
    several jobs begin with the job's name, or its id.
    """
    from airunner.client.cli.instants import past_ms
    from airunner.client.cli.jobname import job_id_of
    from airunner.client.cli.logprinter import LogPrinter
    from airunner.client.cli.prefixes import prefixed
    from airunner.client.cli.watching import say_why_it_waits, together
    from airunner.client.logreader import Wanted
    from airunner.transport.ports import SYSTEM

    if timestamps and json:
        raise OperatorError("--timestamps is for the console: with --json each line has its timestamp_ms")
    if until is not None and follow:
        raise OperatorError("--until ends with the past, and --follow goes on: leave one of them out")
    for option, given in (("--ignore-case", ignore_case), ("--context", context is not None)):
        if given and grep is None:
            raise OperatorError(f"{option} is for --grep, which is not given")
    since_ms, until_ms = (past_ms(*each, SYSTEM.wall_ms()) for each in (("--since", since), ("--until", until)))
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise OperatorError(f"--since {since} is later than --until {until}")
    streams = tuple(stream for stream, given in ((Stream.STDOUT, stdout), (Stream.STDERR, stderr)) if given)
    wanted = Wanted(streams or STREAMS, attempt, since_ms, until_ms)
    pattern = None if grep is None else pattern_of(grep, ignore_case=ignore_case)

    def reader_of(client: Client, job_id: str, shown: JobConsole) -> LogPrinter:
        return LogPrinter(client, job_id, shown, wanted, pattern, context or 0, timestamps=timestamps, json=json)

    async def run(client: Client) -> None:
        consoles: Mapping[str, JobConsole] = {}
        if len(jobs) > 1:
            consoles = await prefixed(client, console, jobs)
        else:
            console.job_id = await job_id_of(client, jobs[0])
            consoles = {console.job_id: console}
        if attempt is not None:
            for job_id in consoles:
                await require_attempt(client, job_id, attempt)
        readers = [reader_of(client, *each) for each in consoles.items()]
        if follow:
            waits = partial(say_why_it_waits, client, status=len(jobs) == 1)
            says = [partial(waits, console, *each) for each in consoles.items() if console.person_reads]
            await together([*says, *[partial(reader.show, tail, follow=True) for reader in readers]])
        else:
            for reader in readers:
                await reader.show(tail, follow=False)
        console.job_over()
        if console.person_reads and len(jobs) == 1 and not follow:
            await say_how_to_go_on(client, console)

    return run


def pattern_of(text: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile the pattern of `--grep`. Raises `OperatorError`: it is no regular expression."""
    try:
        return re.compile(text, re.IGNORECASE if ignore_case else re.NOFLAG)
    except (re.error, OverflowError, RecursionError) as error:
        raise OperatorError(
            f"--grep {text!r}: expected a regular expression, as Python's `re` has them; {error}"
        ) from error


async def say_how_to_go_on(client: Client, console: Console) -> None:
    """Tell a person that the console's job has not ended, so that more output may come."""
    state = (await client.get(console.job_id)).state
    if not state.terminal:
        console.say(f"the job is {state}; to follow its output: airunner logs -f {console.job_id}")


async def require_attempt(client: Client, job_id: str, attempt: int) -> None:
    """Require that a job has had this attempt. Raises `OperatorError`."""
    last = (await client.get(job_id)).attempt
    if attempt > last:
        had = "has had no attempt yet" if not last else "has had 1 attempt" if last == 1 else f"has had {last} attempts"
        raise OperatorError(f"--attempt {attempt}: the job {had}")
