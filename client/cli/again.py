"""Command `airunner continue`: a new job that begins in the last saved workspace of another one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JsonOption, Work, client_command
from airunner.client.cli.commands import (
    CancelOption,
    ConfigOption,
    MonitorOption,
    StdinOption,
    follow_new,
    is_typed,
    requested_job,
    require_monitor,
    split_operands,
)
from airunner.client.cli.console import Console
from airunner.client.cli.dependencies import with_dependencies
from airunner.client.cli.oninterrupt import InterruptOption, OnInterrupt
from airunner.client.cli.options import Given, with_job_options
from airunner.protocol.errors import EXIT_WRONG_STATE, OperatorError

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.protocol.fields import JobSpec


@client_command("quiet", "raw")
@with_job_options
def continue_command(
    console: Console,
    ctx: typer.Context,
    operands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB -- COMMAND [ARG...]",
            help="The job whose saved workspace is used, and the command to run in it.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    monitor: MonitorOption = True,
    on_interrupt: InterruptOption = OnInterrupt.DETACH,
    cancel_on_exit: CancelOption = False,
    stdin: StdinOption = True,
    json: JsonOption = False,
    **fields: Given,
) -> Work:
    """Submit a job that begins in the last saved workspace of an ended one, follow it, and exit with its exit code.

    The other job has saved it with --keep. The new job has its repository, commit, tree, environment, secrets, queue,
    tags and paths to keep, which options override. It may run on any agent.
    """
    from airunner.client.cli.stdin import stdin_for_job

    require_monitor(monitor=monitor, cancel_on_exit=cancel_on_exit)
    jobs, words = split_operands(operands or [], ctx.obj)
    if config:
        raise OperatorError("--config is for `submit` and `run`: this job has the fields of the one that it continues")
    if len(jobs) != 1 or not words:
        raise OperatorError("name one job, and a command after --, as in `airunner continue 3f2a -- make test`")
    given = stdin_for_job(console, wanted=stdin, asked=is_typed(ctx, "stdin"))

    async def run(client: Client) -> int:
        spec = await with_dependencies(client, await _continuing(client, console, ctx, jobs[0], words, fields))
        follow = partial(follow_new, client, partial(client.submit, spec, stdin=given), console, on_interrupt)
        return await follow(json=json, monitor=monitor, cancel_on_exit=cancel_on_exit)

    return run


async def _continuing(
    client: Client,
    console: Console,
    ctx: typer.Context,
    operand: str,
    words: Sequence[str],
    options: dict[str, Given],
) -> JobSpec:
    """Make the spec of a job that continues another one. Raises `OperatorError`, `PeerError`."""
    from msgspec.structs import replace

    from airunner.client.again import CONTINUED, KINDS, Past, require_shown, taken_over
    from airunner.client.cli.jobname import job_id_of
    from airunner.protocol.blobs import SavedWorkspace

    job_id = await job_id_of(client, operand)
    origin = await client.get(job_id)
    if not origin.state.terminal:
        message = f"job {job_id} is {origin.state}: its workspace can be used once it has ended, see `airunner wait`"
        raise OperatorError(message, exit_code=EXIT_WRONG_STATE)
    past = Past.of([event async for event in client.replay(job_id, kinds=KINDS)])
    if not past.kept:
        mend = "submit with --keep PATH what is to be continued"
        if origin.spec.keep:
            mend = f"it did not get so far, or `airunner logs {job_id} --kind PROCESS_ERROR` says why"
        raise OperatorError(f"job {job_id} has saved no workspace: {mend}", exit_code=EXIT_WRONG_STATE)
    base = taken_over(origin.spec, CONTINUED, past.kept_commit, os.environ)
    spec, _ = requested_job(console, ctx, words, None, options, tree=True, base=base)
    require_shown(job_id, spec)
    return replace(spec, tree=origin.spec.tree, continues=SavedWorkspace(job_id=job_id, slices=past.kept))
