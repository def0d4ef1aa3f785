"""Commands `airunner submit` and `show`, and how a submitted job is made and followed."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from airunner.client.cli.clientcommand import JobsArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console, continues
from airunner.client.cli.dependencies import with_dependencies
from airunner.client.cli.oninterrupt import Interruption, InterruptOption, OnInterrupt
from airunner.client.cli.options import Given, with_job_options
from airunner.protocol.errors import OperatorError

if TYPE_CHECKING:
    from airunner.client.cli.causes import Why
    from airunner.client.cli.jobfile import JobDocument, JobFile
    from airunner.client.cli.sources import Sources
    from airunner.client.cli.watching import Offload
    from airunner.client.client import Client
    from airunner.client.jobref import SubmittedJob
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
    bool,
    typer.Option(
        "--monitor/--no-monitor", "--wait/--detach", " /-d", help="Follow the job to its end, or only print its id."
    ),
]
CancelOption = Annotated[
    bool,
    typer.Option(
        "--cancel-on-exit",
        help="Cancel the job if this command ends first: by Ctrl-C, a signal, a closed terminal, or a reader of its "
        "output that has gone.",
    ),
]
IN_DOUBT: Final = "the broker has not answered yet: `airunner list` shows whether it has the job"
CANCEL_S: Final = 10.0  # for the broker's answer to the cancel of `--cancel-on-exit`; supervisors wait as long


StdinOption = Annotated[
    bool,
    typer.Option(
        "--stdin/--no-stdin",
        "-i",
        help="Give the job the standard input of this command, up to 1 MiB, if it is a pipe or a file. In a loop that "
        "reads a list, --no-stdin leaves the list to the loop.",
    ),
]


TreeOption = Annotated[
    bool | None,
    typer.Option(
        "--tree/--no-tree",
        help="Run the working tree as it is, with uncommitted work, of the folder that is given as repository or of "
        "this one; or its commit.",
        show_default="asks on a terminal if a folder with uncommitted work is given",
    ),
]
IgnoredOption = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Ignored files that --tree takes too, as a pattern of .gitignore."),
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
    on_interrupt: InterruptOption = OnInterrupt.DETACH,
    cancel_on_exit: CancelOption = False,
    stdin: StdinOption = True,
    tree: TreeOption = None,
    include_ignored: IgnoredOption = None,
    json: JsonOption = False,
    **fields: Given,
) -> Work:
    """Submit a job, follow it to its end, and exit with its exit code.

    That is 128+N for signal N, 124 for a timeout, 125 for a job that failed without a code of its own or was cancelled.
    The job's id is printed first: on stderr, or with --no-monitor on stdout. Ctrl-C stops following, not the job,
    unless --on-interrupt or --cancel-on-exit says otherwise; the exit code is then 130.
    """
    from airunner.client.cli.controls import EXIT_DECLINED
    from airunner.client.cli.oninterrupt import person_answers
    from airunner.client.cli.stdin import stdin_for_job
    from airunner.client.cli.submitset import submit_set
    from airunner.client.cli.tree import NOTHING, question_about, submission_with_tree, tree_wanted
    from airunner.client.requestids import request_id_of

    require_monitor(monitor=monitor, cancel_on_exit=cancel_on_exit)
    file = job_file_of(config)
    if file is not None and file.is_set:
        if tree:
            raise OperatorError("--tree is for one job, and the job file has several")
        specs = [requested_job(console, ctx, operands, job, fields, sized=False)[0] for job in file.documents]
        return submit_set(
            console, specs, request_id, on_interrupt, json=json, wait=monitor, cancel_on_exit=cancel_on_exit
        )
    sized = request_id is None  # a repeat from another terminal would be another job
    asks = tree is None and person_answers()
    spec, _ = requested_job(console, ctx, operands, file and file.only(), fields, sized=sized, tree=asks or tree)
    question = question_about(console, spec) if asks else ""
    name = request_id_of(request_id)
    given = stdin_for_job(console, wanted=stdin, asked=is_typed(ctx, "stdin"))

    async def run(client: Client) -> int:
        wanted = await tree_wanted(console, question) if question else tree
        if wanted is None and question:
            console.must_say(NOTHING)
            return EXIT_DECLINED
        job = await with_dependencies(client, spec)
        submit: Callable[..., Awaitable[SubmittedJob]] = partial(client.submit, job)
        if wanted:
            submit = await submission_with_tree(client, job, include_ignored or ())
        submit = partial(submit, stdin=given, request_id=name)
        follow = partial(follow_new, client, submit, console, on_interrupt)
        return await follow(json=json, monitor=monitor, cancel_on_exit=cancel_on_exit)

    return run


@client_command()
async def show_command(client: Client, console: Console, jobs: JobsArgument, json: JsonOption = False) -> int:
    """Show jobs: their fields, state and result, why they wait or failed, and the commands that come next.

    Exits with 66 if there is no such job.
    """
    from airunner.client.cli.apply import returned_text
    from airunner.client.cli.artifacts import artifacts_text
    from airunner.client.cli.attempts import ATTEMPT_KINDS, attempts_of
    from airunner.client.cli.explain import explain
    from airunner.client.cli.jobname import NoJob, job_id_of, say_no_job
    from airunner.client.cli.listing import Left, job_lines
    from airunner.client.cli.saves import saved_text
    from airunner.protocol.errors import NotFound, PeerError

    exit_code = 0
    for number, operand in enumerate(jobs):
        try:
            found = await client.get(await job_id_of(client, operand))
        except (NoJob, NotFound) as error:
            exit_code = say_no_job(console, operand, error)
            continue
        if json:
            console.out_json(found)
            continue
        if number:
            console.out_line("")
        why: Why | None = None
        attempts: Sequence[str] = ()
        left = Left()
        with suppress(PeerError):  # a damaged log: the job itself is shown
            why = await explain(client, found)
            if found.attempt > 1:
                log = client.replay(found.id, kinds=ATTEMPT_KINDS)
                attempts = attempts_of([event async for event in log])
            artifacts, returned = await artifacts_text(client, found), await returned_text(client, found)
            left = Left(artifacts, returned, await saved_text(client, found))
        for line in job_lines(found, why, attempts, left):
            console.out_line(line)
    return exit_code


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


def job_file_of(config: Sequence[str] | None) -> JobFile | None:
    """Read the file of `--config`; None: there is none. Raises `OperatorError`."""
    from airunner.client.cli.jobfile import read_job_file

    if config and len(config) > 1:
        raise OperatorError("--config is given twice: a job has one job file; options override its keys")
    return read_job_file(config[0]) if config else None


def requested_job(
    console: Console,
    ctx: typer.Context,
    operands: Sequence[str] | None,
    document: JobDocument | None,
    options: Mapping[str, Given],
    *,
    sized: bool = True,
    tree: bool | None = None,
    base: Mapping[str, Any] | None = None,
) -> tuple[JobSpec, Sources]:
    """Make the job spec of a command line, and print hints at likely mistakes; `ctx.obj` counts words after `--`.

    If it is `sized`, a terminal whose size is not given has the size of this one. `tree`: whether it gets uncommitted
    work, or its submitter is asked; None: it does not, and a hint says so. `base` has the fields of another job, which
    options override as those of a file.
    """
    from airunner.client.cli.request import fields_of, hints_of
    from airunner.client.cli.sources import Sources
    from airunner.client.cli.terminalsize import own_size
    from airunner.client.cli.worktree import uncommitted_in
    from airunner.client.specs import spec_of
    from airunner.protocol.fields import ProcessType
    from airunner.transport.ports import SYSTEM

    sources = Sources(f"airunner {ctx.info_name}")
    before, words = split_operands(operands or [], ctx.obj)
    if document is not None:
        options = _without_variables(ctx, _names_in(document), options)
    elif base is not None:
        options = _without_variables(ctx, base, options)
    found = fields_of(options, before, words, document, SYSTEM.wall_ms(), sources, base)
    console.sizes = found.get("process_type") == ProcessType.PTY and "terminal" not in found
    if console.sizes and sized and (size := own_size()):
        found["terminal"] = size
    spec = spec_of(found, sources.label)
    work = None if tree else uncommitted_in(spec, os.environ)
    for hint in (*sources.hints, *hints_of(options), *([work.hint] if work and tree is None else [])):
        console.must_say(hint)
    return spec, sources


def is_typed(ctx: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line."""
    return getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"


def _names_in(document: JobDocument) -> list[str]:
    """Name the options of the fields that a job file gives."""
    from airunner.client.cli.notation import is_mapping
    from airunner.protocol.fields import FIELDS

    written = document.content if is_mapping(document.content) else {}
    return [each.name for field in FIELDS.values() if field.key in written for each in (field, *field.more)]


def _without_variables(ctx: typer.Context, names: Iterable[str], options: Mapping[str, Given]) -> Mapping[str, Given]:
    """Return the options without those that a variable gives and a job file too: the file overrides variables."""
    weaker = {name for name in names if getattr(ctx.get_parameter_source(name), "name", "") == "ENVIRONMENT"}
    return {name: value for name, value in options.items() if name not in weaker}


async def follow_job(
    client: Client,
    job_id: str,
    console: Console,
    *,
    json: bool,
    monitor: bool = True,
    record: Callable[[Event], None] | None = None,
    offload: Offload | None = None,
    alone: bool = False,
) -> int:
    """Print the id of a submitted job and, if `monitor`, follow it; return the exit code. `record` gets each event.

    A job that runs `alone`, without a cluster, has no id that a command accepts, so that is not printed.
    """
    from airunner.client.cli.printing import ConsolePrinter, JsonPrinter
    from airunner.client.cli.watching import WaitingReason, watch

    console.job_id = job_id
    if monitor:
        console.follow()
    console.owns = True
    console.farewell = continues(job_id) if monitor else ""
    if monitor and not json:
        if not alone:
            console.say(f"job {job_id}")
    else:
        console.out_submitted({job_id: {"job_id": job_id}}, json=json)
    if not monitor:
        if console.person_reads:
            await WaitingReason(client, job_id, console).ask()
        return 0
    printer = JsonPrinter(console) if json else ConsolePrinter(console, alone=alone)

    def show(batch: Sequence[Event]) -> None:
        if record is not None:
            for event in batch:
                record(event)
        printer.show(batch)

    return await watch(client, job_id, show, console, status=not json, offload=offload)


async def follow_new(
    client: Client,
    submit: Callable[[], Awaitable[SubmittedJob]],
    console: Console,
    on_interrupt: OnInterrupt,
    *,
    json: bool,
    monitor: bool,
    cancel_on_exit: bool,
) -> int:
    """Submit a job and, if `monitor`, follow it; return the exit code."""
    import anyio

    console.farewell = IN_DOUBT
    job: SubmittedJob | None = None
    submitted = anyio.Event()

    async def cancel() -> None:
        await submitted.wait()
        assert job is not None, "it was submitted"
        console.cancelling = unconfirmed(job.id)
        await client.cancel(job.id)
        console.cancelling = f"the job is being cancelled; `airunner monitor {job.id}` returns to it"

    if monitor:
        console.on_interrupt = Interruption(on_interrupt, console, cancel).decide
    with anyio.CancelScope(shield=cancel_on_exit):  # the id is needed to cancel the job
        job = await submit()
    assert job is not None, "the scope was cancelled by itself"
    submitted.set()
    async with cancelled_on_exit(client, job.id, console) if cancel_on_exit else nullcontext():
        return await follow_job(client, job.id, console, json=json, monitor=monitor)


def unconfirmed(job_id: str) -> str:
    """Return the farewell while the broker has not answered that it cancels a job."""
    return f"job {job_id} is being cancelled, which the broker has not confirmed; to be sure: airunner cancel {job_id}"


def require_monitor(*, monitor: bool, cancel_on_exit: bool) -> None:
    """Require that a job which is cancelled when this command ends is followed. Raises `OperatorError`."""
    if cancel_on_exit and not monitor:
        raise OperatorError("--cancel-on-exit needs --monitor: without it this command ends before the job")


@asynccontextmanager
async def cancelled_on_exit(client: Client, job_id: str, console: Console) -> AsyncGenerator[None]:
    """Cancel the job if this block ends by an error or an interrupt; a second interrupt does not wait for that."""
    import anyio

    try:
        yield
    except BaseException:
        if console.farewell:
            console.farewell = unconfirmed(job_id)
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S):
                state = await client.cancel(job_id)
                ended = f"has ended: {state}" if state.terminal else "is being cancelled"
                console.farewell = f"job {job_id} {ended}"
        raise
