"""Commands `airunner submit` and `show`, and what every client command shares: options, following, running a client.

Laws
- The job's stdout goes to stdout and its stderr to stderr, byte for byte; airunner's own messages go to stderr.
- Errors are raised; the composition root prints their line and exits with their code.
- Commands import modules when they run: `airunner --help` is quick.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.options import Given, with_job_options
from airunner.transport.endpoints import BROKER_VARIABLE, DEFAULT_BROKER

if TYPE_CHECKING:
    from airunner.client.cli.console import Console
    from airunner.client.cli.watching import Offload
    from airunner.client.client import Client
    from airunner.protocol.events import Event
    from airunner.protocol.fields import JobSpec

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells

BrokerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--broker",
        envvar=BROKER_VARIABLE,
        metavar="ENDPOINT",
        help="Broker to use, as tcp://HOST:PORT; repeat it for more brokers, which are tried in turn.",
        show_default=DEFAULT_BROKER,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="AIRUNNER_TOKEN",
        show_envvar=True,
        help="Token to present; see `airunner token`.",
        show_default="one signed with the home's key, if that exists",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout.")]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Pass all of the job's output to a terminal, such as full screens. By default only text and colours "
        "pass, and nothing that could harm a terminal; a pipe or a file always gets every byte.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print none of airunner's own messages on stderr.")]
OperandsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[REPOSITORY] [-- COMMAND ARG...]",
        help="Repository to check out, a URL or a folder (none: an empty workspace), and the command to run in it.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-f", help="Job file, YAML or JSON; options override its keys.", metavar="FILE"),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


@with_job_options
def submit_command(
    ctx: typer.Context,
    operands: OperandsArgument = None,
    config: ConfigOption = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A UUID or any text; submitting again with the same request id returns the same job.",
            show_default="a random one",
        ),
    ] = None,
    monitor: Annotated[
        bool, typer.Option("--monitor/--no-monitor", help="Follow the job to its end, or print its id and leave.")
    ] = True,
    json: JsonOption = False,
    quiet: QuietOption = False,
    raw: RawOption = False,
    broker: BrokerOption = None,
    token: TokenOption = None,
    **fields: Given,
) -> None:
    """Submit a job, follow it to its end, and exit with its exit code (128+N for signal N).

    The job's id is printed first: on stderr, or with --no-monitor on stdout. Ctrl-C stops following, not the job.
    """
    from airunner.client.cli.console import Console
    from airunner.client.requestid import request_id_of

    spec, hints = requested_job(operands, ctx.obj, config, fields)
    name = None if request_id is None else request_id_of(request_id)
    console = Console(quiet=quiet, raw=raw)
    for hint in hints:
        console.say(hint)
    submitted: list[str] = []

    async def run(client: Client) -> int:
        job = await client.submit(spec, request_id=name)
        submitted.append(job.id)
        return await follow_job(client, job.id, console, json=json, monitor=monitor)

    run_client(run, console, broker, token, submitted)


def show_command(
    job: JobArgument, json: JsonOption = False, broker: BrokerOption = None, token: TokenOption = None
) -> None:
    """Show a job: its fields, state and result."""
    from airunner.client.cli.console import Console
    from airunner.client.cli.listing import job_lines

    console = Console()

    async def run(client: Client) -> int:
        found = await client.get(job)
        if json:
            console.out_json(found)
        else:
            for line in job_lines(found):
                console.out_line(line)
        return 0

    run_client(run, console, broker, token, [job])


def words_behind_dashes(argv: Sequence[str]) -> int | None:
    """Count the words behind the first `--`; None where there is none.

    The parser drops the `--` and puts all operands into one list, so the root counts them before it parses.
    """
    return len(argv) - list(argv).index("--") - 1 if "--" in argv else None


def split_operands(operands: Sequence[str], behind: int | None) -> tuple[Sequence[str], Sequence[str] | None]:
    """Split the operands before `--` from those behind it; None where there was no `--`."""
    if behind is None:
        return operands, None
    at = max(0, len(operands) - behind)
    return operands[:at], operands[at:]


def requested_job(
    operands: Sequence[str] | None, behind: int | None, config: Path | None, options: Mapping[str, Given]
) -> tuple[JobSpec, Sequence[str]]:
    """Make the job of a command line, and hints at possible mistakes; `behind` as in `split_operands`."""
    from airunner.client.cli.request import fields_of, hints_of
    from airunner.client.client import spec_of
    from airunner.transport.ports import SYSTEM

    before, words = split_operands(operands or [], behind)
    return spec_of(fields_of(options, before, words, config, SYSTEM.wall_ms())), hints_of(options)


async def follow_job(
    client: Client,
    job_id: str,
    console: Console,
    *,
    json: bool,
    monitor: bool,
    record: Callable[[Event], None] | None = None,
    offload: Offload | None = None,
) -> int:
    """Print the id of a submitted job, and follow it where `monitor`; return the exit code."""
    if json:
        console.out_json({"job_id": job_id})
    elif monitor:
        console.say(f"job {job_id}")
    else:
        console.out_line(job_id)
    if not monitor:
        return 0
    return await watch_job(client, job_id, console, json=json, record=record, offload=offload)


async def watch_job(
    client: Client,
    job_id: str,
    console: Console,
    *,
    json: bool,
    record: Callable[[Event], None] | None = None,
    offload: Offload | None = None,
) -> int:
    """Show a job's events to its end, and record them; return the exit code."""
    from airunner.client.cli.printing import ConsolePrinter, JsonPrinter, Printer, Recorded
    from airunner.client.cli.watching import watch

    printer: Printer = JsonPrinter(console) if json else ConsolePrinter(console)
    status = console if console.has_status and not json else None
    try:
        shown = printer if record is None else Recorded(printer, record)
        return await watch(client, job_id, shown, status=status, offload=offload)
    finally:
        console.job_over()


def run_client(
    work: Callable[[Client], Awaitable[int]],
    console: Console,
    broker: list[str] | None,
    token: str | None,
    watched: Sequence[str] = (),
) -> None:
    """Run `work` with a client and exit with the code that it returns.

    `watched` holds the job's id, once there is one: Ctrl-C prints the command that follows it again.
    """
    import anyio

    from airunner.client.cli.waiting import patience
    from airunner.client.client import Client
    from airunner.protocol.errors import NotFound, OperatorError

    def notice(endpoint: str, left_s: float | None) -> None:
        left = "" if left_s is None else f", {left_s:.0f} s more"
        console.must_say(f"waiting for the broker at {endpoint}{left}")

    async def run() -> int:
        async with Client(broker, token=token, patience=patience(notice)) as client:
            return await work(client)

    try:
        code = anyio.run(run)
    except KeyboardInterrupt:
        if watched:
            console.must_say(f"the job goes on; to follow it again: airunner monitor {watched[0]}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except NotFound as error:
        if not watched:
            raise
        raise OperatorError(
            f"there is no job {watched[0]}; `airunner list` shows which there are", exit_code=1
        ) from error
    raise typer.Exit(code)
