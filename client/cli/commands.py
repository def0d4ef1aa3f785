"""`airunner submit`, `monitor`, `list` and `show`: what the command line says, and no more.

Laws
- The job's stdout goes to stdout and its stderr to stderr, byte for byte; airunner's own words go to stderr.
- Errors are raised; the composition root prints their line and exits with their code.
- Nothing is imported before it is needed: `airunner --help` is quick.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.protocol.job import (
    ATTEMPTS_MAX,
    DEFAULT_QUEUE,
    DEPTH_MAX,
    MAX_ATTEMPTS_DEFAULT,
    PRIORITY_MAX,
    ProcessType,
)
from airunner.protocol.jobretry import RETRIES_MAX
from airunner.transport.endpoints import BROKER_VARIABLE, DEFAULT_BROKER

if TYPE_CHECKING:
    from airunner.client.cli.console import Console
    from airunner.client.cli.watching import Offload
    from airunner.client.client import Client
    from airunner.protocol.events import Event

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

BrokerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--broker",
        envvar=BROKER_VARIABLE,
        metavar="ENDPOINT",
        help="The broker, as tcp://HOST:PORT; repeat it for more, which are tried in turn.",
        show_default=DEFAULT_BROKER,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="AIRUNNER_TOKEN",
        show_envvar=True,
        help="The token to present; see `airunner token`.",
        show_default="one signed with the home's key, if it is there",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Let a terminal have all that the job writes, such as full screens. Without, only text and colours pass, "
        "and nothing that could harm a terminal; a pipe or a file always gets every byte.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="None of airunner's own words on stderr.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


def submit_command(
    ctx: typer.Context,
    operands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REPOSITORY] [-- COMMAND ARG...]",
            help="What to clone, a URL or a folder (none: an empty workspace), and what to run in it.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-f", help="A job file, YAML or JSON; a flag beats it.", metavar="FILE")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="The queue to wait in.", show_default=DEFAULT_QUEUE)] = None,
    commit: Annotated[
        str | None,
        typer.Option(help="What to check out: a hash, or the name of a branch or tag, or HEAD; overrides --branch."),
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="The branch or tag to check out.", show_default="the remote's HEAD")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=0, max=DEPTH_MAX, help="Commits of history to check out.", show_default="all"),
    ] = None,
    submodules: Annotated[
        bool | None,
        typer.Option("--submodules/--no-submodules", help="Check submodules out too.", show_default="no"),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG=VALUE", help="Only an agent with this tag may run it; may be repeated."),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whom the job is for; shown in lists.")] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A variable to keep out of the log: of --env, or set with `airunner secret`, or offered by the agent; "
            "may be repeated.",
        ),
    ] = None,
    secret_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The same, but the variable holds the path of a file with the value; may be repeated.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for the command; may be repeated.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A note that is kept with the job; may be repeated.")
    ] = None,
    command: Annotated[str | None, typer.Option(help="The program to run, if not given behind --.")] = None,
    args: Annotated[
        list[str] | None,
        typer.Option(metavar="ARG", help="One argument for --command; repeat it for more (--args=-v for a dash)."),
    ] = None,
    process_type: Annotated[
        ProcessType | None,
        typer.Option(case_sensitive=False, help="What its standard streams are.", show_default="pipe"),
    ] = None,
    pty: Annotated[bool, typer.Option("--pty", help="Run it in a terminal: short for --process-type pty.")] = False,
    terminal: Annotated[
        str | None, typer.Option(metavar="COLSxROWS", help="The terminal's size.", show_default="80x24")
    ] = None,
    timeout_seconds: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="How long the command may run: 90, or 1h30m.", show_default="no bound"),
    ] = None,
    working_directory: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where to run, inside the checkout.", show_default="its top")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            min=-PRIORITY_MAX, max=PRIORITY_MAX, help="The highest in its queue goes first.", show_default="0"
        ),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANT",
            help="Start no sooner: an instant such as 2027-01-31T03:00:00Z, or +90s, +10m, +1h30m, +1d from now.",
            show_default="at once",
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=ATTEMPTS_MAX,
            help="How often its agent may be lost before it fails.",
            show_default=str(MAX_ATTEMPTS_DEFAULT),
        ),
    ] = None,
    retry: Annotated[
        int | None,
        typer.Option(min=0, max=RETRIES_MAX, help="How often to run it again when it fails.", show_default="0"),
    ] = None,
    retry_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="END",
            help="Retry only on this exit code or signal, such as 75 or SIGKILL; may be repeated.",
            show_default="any failure",
        ),
    ] = None,
    retry_backoff: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS", help="The pause before the first retry: 90, or 1m30s; it doubles.", show_default="1"
        ),
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="A UUID or any text; submitted again under the same one, it is the same job.",
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
) -> None:
    """Submit a job, follow it to its end, and exit with its exit code (128+N for signal N).

    The id is printed first: on stderr, or with --no-monitor on stdout. Ctrl-C stops following, not the job.
    """
    from airunner.client.cli.console import Console
    from airunner.client.cli.request import SubmitFlags, fields_of, hints_of
    from airunner.client.client import spec_of
    from airunner.client.requestid import request_id_of
    from airunner.transport.ports import SYSTEM

    before, words = split_operands(operands or [], ctx.obj)
    flags = SubmitFlags(
        config=config,
        operands=before,
        words=words,
        command=command,
        args=args or (),
        queue=queue,
        process_type=ProcessType.PTY if pty else process_type,
        terminal=terminal,
        depth=depth,
        submodules=submodules,
        require=require or (),
        timeout=timeout_seconds,
        working_directory=working_directory,
        env=env or (),
        secrets=secret or (),
        secret_files=secret_file or (),
        metadata=metadata or (),
        commit=commit,
        branch=branch,
        owner=owner,
        priority=priority,
        not_before=not_before,
        max_attempts=max_attempts,
        retry=retry,
        retry_on=retry_on or (),
        retry_backoff=retry_backoff,
    )
    spec = spec_of(fields_of(flags, SYSTEM.wall_ms()))
    name = None if request_id is None else request_id_of(request_id)
    console = Console(quiet=quiet, raw=raw)
    for hint in hints_of(flags):
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
    """Show how one job stands."""
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
    """How many words stand behind the first `--`; None where there is none.

    The parser drops the `--` and puts all operands into one list, so the root counts them before it parses.
    """
    return len(argv) - list(argv).index("--") - 1 if "--" in argv else None


def split_operands(operands: Sequence[str], behind: int | None) -> tuple[Sequence[str], Sequence[str] | None]:
    """The operands before `--`, and those behind it; None where there was no `--`."""
    if behind is None:
        return operands, None
    at = max(0, len(operands) - behind)
    return operands[:at], operands[at:]


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
    """Say the id of a job that was just submitted, and follow it if that is wanted; the exit code."""
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
    """Show a job's events to its end, and record them; the exit code."""
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
    """Do `work` with a client and exit with what it returns.

    `watched` holds the job's id, once there is one: Ctrl-C tells how to go on with it.
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
