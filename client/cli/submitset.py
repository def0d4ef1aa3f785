"""Submission of a job set: all of its jobs over one connection, their ends as they come, and a table of results."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from airunner.client.cli.clientcommand import Work
from airunner.client.cli.console import Console

if TYPE_CHECKING:
    from airunner.client.client import Client
    from airunner.protocol.events import JobFinished
    from airunner.protocol.fields import JobSpec

HEADINGS: Final = ("ID", "NAME OR COMMAND", "STATE", "EXIT", "LAST LINE")
BATCH_BYTES_MAX: Final = 262_144  # of the specs in one request: an eighth of what a broker accepts
BAR_CHARS: Final = 30
TITLE_CHARS_MAX: Final = 40  # of a command in the place of a name
LINES_AT_ONCE: Final = 16  # logs whose last lines are read at once


def submit_set(
    console: Console, specs: Sequence[JobSpec], request_id: str | None, *, json: bool, wait: bool, cancel_on_exit: bool
) -> Work:
    """Submit jobs; with `wait`, wait for their ends and print a table of them.

    The exit code is 0 if all of them are COMPLETED, otherwise that of the first one in the file that is not.
    """

    async def run(client: Client) -> int:
        submitted: list[str] = []
        for number, batch in enumerate(batches(specs)):
            console.farewell = f"{len(submitted)} of {len(specs)} jobs are submitted"
            same = None if request_id is None else f"{request_id}#{number}"
            job_ids = [job.id for job in await client.submit_many(batch, request_id=same)]
            for job_id, spec in zip(job_ids, batch, strict=True):
                if json:
                    console.out_json({"job_id": job_id, "name": spec.name})
                elif not wait:
                    console.out_line(job_id)
            submitted += job_ids
        console.say(f"submitted {len(submitted)} jobs")
        if not wait:
            return 0
        return await _until_all_end(client, console, specs, submitted, json=json, cancel_on_exit=cancel_on_exit)

    return run


def batches(specs: Sequence[JobSpec]) -> Iterator[list[JobSpec]]:
    """Yield the jobs of each request: as many as it may have, and no more bytes than `BATCH_BYTES_MAX`."""
    from airunner.protocol.job import encode_spec
    from airunner.protocol.requests import ENQUEUE_MAX

    batch: list[JobSpec] = []
    size_bytes = 0
    for spec in specs:
        spec_bytes = len(encode_spec(spec))
        if batch and (len(batch) == ENQUEUE_MAX or size_bytes + spec_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size_bytes = [], 0
        batch.append(spec)
        size_bytes += spec_bytes
    yield batch


async def _until_all_end(
    client: Client,
    console: Console,
    specs: Sequence[JobSpec],
    job_ids: Sequence[str],
    *,
    json: bool,
    cancel_on_exit: bool,
) -> int:
    """Wait for the ends of jobs; return the exit code of the command."""
    from airunner.client.cli.wait import follow_ends
    from airunner.client.cli.watching import exit_status

    ends: dict[str, JobFinished] = {}
    names = {job_id: spec.name for job_id, spec in zip(job_ids, specs, strict=True)}

    def ended(job_id: str, finished: JobFinished) -> bool:
        ends[job_id] = finished
        if json:
            code = exit_status(finished)
            console.out_json({"job_id": job_id, "name": names[job_id], "state": finished.state, "exit_code": code})
        console.show_status(progress_text(ends.values(), len(job_ids)))
        return len(ends) == len(job_ids)

    try:
        console.farewell = "the jobs continue; `airunner list` shows them"
        console.show_status(progress_text((), len(job_ids)))
        await follow_ends(client, job_ids, ended)
    except BaseException:
        if cancel_on_exit:
            await _cancel(client, console, [job_id for job_id in job_ids if job_id not in ends])
        raise
    console.farewell = ""
    if not json:
        await _print_table(client, console, specs, job_ids, ends)
    return next(filter(None, (exit_status(ends[job_id]) for job_id in job_ids)), 0)


async def _cancel(client: Client, console: Console, job_ids: Sequence[str]) -> None:
    """Cancel the jobs that have not ended, although this command is interrupted."""
    import anyio

    from airunner.client.cli.commands import CANCEL_S

    console.farewell = "the broker has not confirmed every cancel; `airunner list` shows what runs"
    with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S):
        async with anyio.create_task_group() as group:
            for job_id in job_ids:
                group.start_soon(client.cancel, job_id)
        console.farewell = f"cancelled {len(job_ids)} jobs"


def progress_text(ends: Collection[JobFinished], total: int) -> str:
    """Format how many jobs have ended, with a bar: `[#######...] 35 of 50 ended, 2 failed`."""
    from airunner.protocol.job import JobState

    filled = BAR_CHARS * len(ends) // total
    failed = sum(end.state is not JobState.COMPLETED for end in ends)
    bad = f", {failed} not completed" if failed else ""
    return f"[{'#' * filled}{'.' * (BAR_CHARS - filled)}] {len(ends)} of {total} ended{bad}"


async def _print_table(
    client: Client, console: Console, specs: Sequence[JobSpec], job_ids: Sequence[str], ends: dict[str, JobFinished]
) -> None:
    """Print a line for each job: how it ended, and the last line of the output of one that failed."""
    import anyio

    from airunner.client.cli.columns import aligned, end_state_text, short_ids
    from airunner.client.cli.watching import exit_status, result_of
    from airunner.protocol.printable import shell_line

    lines: dict[str, str] = {}
    at_once = anyio.Semaphore(LINES_AT_ONCE)

    async def read(job_id: str) -> None:
        async with at_once:
            lines[job_id] = await _last_line(client, job_id)

    async with anyio.create_task_group() as group:
        for job_id in job_ids:
            if exit_status(ends[job_id]):
                group.start_soon(read, job_id)
    rows: list[Sequence[str]] = [HEADINGS]
    for job_id, short_id, spec in zip(job_ids, short_ids(job_ids), specs, strict=True):
        end = ends[job_id]
        title = spec.name or shell_line(spec.argv)[:TITLE_CHARS_MAX]
        rows.append(
            (
                short_id,
                title,
                end_state_text(end.state, result_of(end)),
                str(exit_status(end)),
                lines.get(job_id, ""),
            )
        )
    for line in aligned(rows):
        console.out_line(line)
    failed = sum(bool(exit_status(end)) for end in ends.values())
    console.say(f"{len(ends) - failed} of {len(ends)} jobs completed{f', {failed} did not' if failed else ''}")


async def _last_line(client: Client, job_id: str) -> str:
    """Read the last line that a job has written."""
    from airunner.client.cli.explain import last_events, last_line

    job = await client.get(job_id)
    return last_line(await last_events(client, job, ("OUTPUT",)))
