"""Commands `airunner submit` and `show`, and how a submitted job is made and followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JobArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.options import Given, with_job_options
from airunner.client.cli.outlets import OutputLost
from airunner.protocol.errors import OperatorError

if TYPE_CHECKING:
    from airunner.client.cli.watching import Offload
    from airunner.client.client import Client
    from airunner.protocol.events import Event
    from airunner.protocol.fields import JobSpec

OperandsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[REPOSITORY] [-- COMMAND ARG...]",
        help="Repository to check out, a URL or a folder (none: an empty workspace), and the command to run in it.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option("--config", "-f", help="Job file, YAML or JSON, or - for stdin; options override it.", metavar="FILE"),
]
MonitorOption = Annotated[
    bool, typer.Option("--monitor/--no-monitor", help="Follow the job to its end, or only print its id.")
]


@client_command("quiet", "raw")
@with_job_options
def submit_command(
    console: Console,
    ctx: typer.Context,
    operands: OperandsArgument = None,
    config: ConfigOption = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A UUID or any text; submitting again with the same request id within a day returns the same job.",
            show_default="a random one",
        ),
    ] = None,
    monitor: MonitorOption = True,
    json: JsonOption = False,
    **fields: Given,
) -> Work:
    """Submit a job, follow it to its end, and exit with its exit code (128+N for signal N, 124 for a timeout).

    The job's id is printed first: on stderr, or with --no-monitor on stdout. Ctrl-C stops following, not the job.
    """
    from airunner.client.client import request_id_of

    spec = requested_job(console, ctx, operands, config, fields)
    name = request_id_of(request_id)

    async def run(client: Client) -> int:
        job = await client.submit(spec, request_id=name)
        return await follow_job(client, job.id, console, json=json, monitor=monitor)

    return run


@client_command()
async def show_command(client: Client, console: Console, job: JobArgument, json: JsonOption = False) -> None:
    """Show a job: its fields, state and result."""
    from airunner.client.cli.listing import job_lines

    found = await client.get(job)
    if json:
        console.out_json(found)
        return
    for line in job_lines(found):
        console.out_line(line)


def words_after_dashes(argv: Sequence[str]) -> int | None:
    """Count the words after the first `--`; None: there is no `--`.

    The parser drops the `--` and puts all operands into one list, so the words are counted before it runs.
    """
    return len(argv) - list(argv).index("--") - 1 if "--" in argv else None


def split_operands(operands: Sequence[str], behind: int | None) -> tuple[Sequence[str], Sequence[str] | None]:
    """Split the operands before `--` from the last `behind`, which are after it; None: there was no `--`."""
    if behind is None:
        return operands, None
    at = max(0, len(operands) - behind)
    return operands[:at], operands[at:]


def requested_job(
    console: Console,
    ctx: typer.Context,
    operands: Sequence[str] | None,
    config: Sequence[str] | None,
    options: Mapping[str, Given],
) -> JobSpec:
    """Make the job spec of a command line, and print hints at likely mistakes; `ctx.obj` counts words after `--`."""
    from airunner.client.cli.request import fields_of, hints_of
    from airunner.client.cli.sources import Sources
    from airunner.client.cli.worktree import hints_on
    from airunner.client.client import spec_of
    from airunner.transport.ports import SYSTEM

    if config and len(config) > 1:
        raise OperatorError("--config is given twice: a job has one job file; options override its keys")
    sources = Sources(f"airunner {ctx.info_name}")
    before, words = split_operands(operands or [], ctx.obj)
    file = config[0] if config else None
    spec = spec_of(fields_of(options, before, words, file, SYSTEM.wall_ms(), sources), sources.label)
    for hint in (*sources.hints, *hints_of(options), *hints_on(spec, os.environ)):
        console.must_say(hint)
    return spec


async def follow_job(
    client: Client,
    job_id: str,
    console: Console,
    *,
    json: bool,
    monitor: bool = True,
    record: Callable[[Event], None] | None = None,
    offload: Offload | None = None,
) -> int:
    """Print the id of a submitted job and, if `monitor`, follow it; return the exit code. `record` gets each event."""
    from airunner.client.cli.printing import ConsolePrinter, JsonPrinter
    from airunner.client.cli.watching import watch

    console.job_id = job_id
    if monitor:
        console.follow()
    if json:
        console.out_json({"job_id": job_id})
    elif monitor:
        console.say(f"job {job_id}")
    else:
        _print_id(console, job_id)
    if not monitor:
        return 0
    printer = JsonPrinter(console) if json else ConsolePrinter(console)

    def show(event: Event) -> None:
        if record is not None:
            record(event)
        printer.show(event)

    return await watch(client, job_id, show, console, status=not json, offload=offload)


def _print_id(console: Console, job_id: str) -> None:
    """Print the id on stdout; if that is impossible, on stderr, because the job is submitted."""
    try:
        console.out_line(job_id)
    except OutputLost:
        console.must_say(f"job {job_id}")
        raise
