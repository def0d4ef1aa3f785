"""Submission of a job set: all of its jobs over one connection, their ends as they come, and a table of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from airunner.client.cli.clientcommand import Work
from airunner.client.cli.console import Console
from airunner.client.cli.oninterrupt import Interruption, OnInterrupt

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.protocol.fields import JobSpec
    from airunner.protocol.job import Job

HEADINGS: Final = ("ID", "NAME OR COMMAND", "STATE", "EXIT", "LAST LINE")
LEAVE: Final = ("EXIT", "LAST LINE")  # columns that a narrow terminal leaves out
TITLE_CHARS_MAX: Final = 40  # of a name or command on a terminal
BESIDE_TITLE: Final = 24  # columns of a narrow terminal that id and state need
LINES_AT_ONCE: Final = 16  # logs whose last lines are read at once


def submit_set(
    console: Console,
    specs: Sequence[JobSpec],
    request_id: str | None,
    on_interrupt: OnInterrupt,
    *,
    json: bool,
    wait: bool,
    cancel_on_exit: bool,
) -> Work:
    """Submit jobs; with `wait`, wait for their ends and print a table of them.

    The exit code is 0 if all of them are COMPLETED, otherwise that of the first that ended otherwise.
    """

    async def run(client: Client) -> int:
        from airunner.client.cli.watching import first_failed

        submitted: dict[str, JobSpec] = {}
        ends: dict[str, Job] = {}
        cancels = cancel_on_exit or on_interrupt is OnInterrupt.CANCEL  # whether an interrupt now does so

        async def cancel() -> None:
            await _cancel(client, console, [job_id for job_id in submitted if job_id not in ends])

        try:
            await _submit(client, console, specs, submitted, request_id, shield=cancels)
            cancels = cancel_on_exit
            console.on_interrupt = Interruption(on_interrupt, console, cancel).decide if wait else None
            if json or not wait:
                shown = {job_id: {"job_id": job_id, "name": spec.name} for job_id, spec in submitted.items()}
                console.out_submitted(shown, json=json)
            console.say(f"submitted {len(submitted)} {'job' if len(submitted) == 1 else 'jobs'}")
            if not wait:
                return 0
            await _follow(client, console, submitted, ends, json=json)
        except BaseException:
            if cancels:
                await cancel()
            raise
        if not json:
            await _print_table(client, console, submitted, ends)
        return first_failed(ends.values())

    return run


async def _submit(
    client: Client,
    console: Console,
    specs: Sequence[JobSpec],
    submitted: dict[str, JobSpec],
    request_id: str | None,
    *,
    shield: bool,
) -> None:
    """Submit jobs, and note each; with `shield` an interrupt waits for the answer, which has the ids to cancel."""
    import anyio

    from airunner.client.cli.commands import IN_DOUBT
    from airunner.client.cli.dependencies import with_dependencies
    from airunner.client.requestids import batch_id, request_id_of
    from airunner.client.specs import batches
    from airunner.protocol.dependencies import dependency_of
    from airunner.protocol.errors import OperatorError

    name = request_id_of(request_id)
    named = {spec.name for spec in specs if spec.name}
    for spec in specs:
        if own := named.intersection(dependency_of(text).job_id for text in spec.after):
            raise OperatorError(f"after: {min(own)} is a job of this file: submit it first, and give its id")
    specs = [await with_dependencies(client, spec) for spec in specs]
    for number, batch in enumerate(batches(specs)):
        console.farewell = f"{len(submitted)} of {len(specs)} jobs are submitted; {IN_DOUBT}"
        with anyio.CancelScope(shield=shield):
            jobs = await client.submit_many(batch, request_id=batch_id(name, number))
            submitted.update(zip([job.id for job in jobs], batch, strict=True))
        await anyio.lowlevel.checkpoint()


async def _follow(
    client: Client, console: Console, submitted: Mapping[str, JobSpec], ends: dict[str, Job], *, json: bool
) -> None:
    """Wait for the ends of jobs, and note each."""
    from airunner.client.cli.setstatus import set_status

    waiting = dict.fromkeys(submitted)
    async with set_status(client, console, waiting, ends.values()) as show, client.as_completed(submitted) as ended:
        async for job in ended:
            ends[job.id] = job
            del waiting[job.id]
            await console.no_question()
            if json:
                name = submitted[job.id].name
                console.out_json({"job_id": job.id, "name": name, "state": job.state, "exit_code": job.exit_status})
            show()


async def _cancel(client: Client, console: Console, job_ids: Sequence[str]) -> None:
    """Cancel the jobs that have not ended, although this command is interrupted."""
    import anyio

    from airunner.client.cli.bulk import change_each
    from airunner.client.cli.commands import CANCEL_S

    cancelled = 0

    def note() -> None:
        console.cancelling = f"{cancelled} of {len(job_ids)} jobs are cancelled or being cancelled"

    async def cancel(job_id: str) -> str:
        nonlocal cancelled
        await client.cancel(job_id)
        cancelled += 1
        note()
        return ""

    note()
    with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S):
        await change_each(console, "cancel", job_ids, cancel)
    console.farewell = console.cancelling  # which `change_each` has cleared


async def _print_table(
    client: Client, console: Console, submitted: Mapping[str, JobSpec], ends: Mapping[str, Job]
) -> None:
    """Print a line for each job: how it ended, and the last line of the output of one that failed."""
    import anyio

    from airunner.client.cli.columns import end_state_text, short_ids
    from airunner.client.cli.rowtable import cut, table_lines, width_of
    from airunner.client.taskgroups import first_error
    from airunner.protocol.job import command_summary
    from airunner.protocol.printable import one_line

    lines: dict[str, str] = {}
    at_once = anyio.Semaphore(LINES_AT_ONCE)

    async def read(job_id: str) -> None:
        async with at_once:
            lines[job_id] = await _last_line(client, job_id)

    failed = [job_id for job_id, end in ends.items() if end.exit_status]
    with first_error():
        async with anyio.create_task_group() as group:
            for job_id in failed:
                group.start_soon(read, job_id)
    rows: list[Sequence[str]] = []
    width = width_of(console)
    whole = math.isinf(width)
    title_chars = width if whole else max(1, min(TITLE_CHARS_MAX, width - BESIDE_TITLE))
    ids = tuple(submitted)
    for shown_id, (job_id, spec) in zip(ids if whole else short_ids(ids), submitted.items(), strict=True):
        title = cut(one_line(spec.name or command_summary(spec)), title_chars)
        end = ends[job_id]
        state = end_state_text(end.state, end.result)
        rows.append((shown_id, title, state, str(end.exit_status), lines.get(job_id, "")))
    for line in table_lines(HEADINGS, rows, LEAVE, width):
        console.out_line(line)
    bad = f", {len(failed)} did not" if failed else ""
    console.say(f"{len(ends) - len(failed)} of {len(ends)} jobs completed{bad}")


async def _last_line(client: Client, job_id: str) -> str:
    """Read the last line that a job has written."""
    from airunner.client.cli.explain import last_line
    from airunner.client.logreader import last_events

    job = await client.get(job_id)
    return last_line(await last_events(client, job, ("OUTPUT",)))
