"""Submission of a job set: all of its jobs over one connection, their ends as they come, and a table of results."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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

    The exit code is 0 if all of them are COMPLETED, otherwise that of the first that ended otherwise.
    """

    async def run(client: Client) -> int:
        from airunner.client.cli.watching import exit_status, first_failure

        submitted: dict[str, JobSpec] = {}
        ends: dict[str, JobFinished] = {}
        try:
            await _submit(client, console, specs, submitted, request_id, shield=cancel_on_exit)
            for job_id, spec in submitted.items():
                if json:
                    console.out_json({"job_id": job_id, "name": spec.name})
                elif not wait:
                    console.out_line(job_id)
            console.say(f"submitted {len(submitted)} jobs")
            if not wait:
                return 0
            await _follow(client, console, submitted, ends, json=json)
        except BaseException:
            if cancel_on_exit:
                await _cancel(client, console, [job_id for job_id in submitted if job_id not in ends])
            raise
        if not json:
            await _print_table(client, console, submitted, ends)
        return first_failure((end.timestamp_ms, exit_status(end)) for end in ends.values())

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

    for number, batch in enumerate(batches(specs)):
        console.farewell = f"{len(submitted)} of {len(specs)} jobs are submitted; {IN_DOUBT}"
        same = None if request_id is None else f"{request_id}#{number}"
        with anyio.CancelScope(shield=shield):
            jobs = await client.submit_many(batch, request_id=same)
            submitted.update(zip([job.id for job in jobs], batch, strict=True))
        await anyio.lowlevel.checkpoint()


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


async def _follow(
    client: Client, console: Console, submitted: Mapping[str, JobSpec], ends: dict[str, JobFinished], *, json: bool
) -> None:
    """Wait for the ends of jobs, and note each."""
    from airunner.client.cli.wait import follow_ends
    from airunner.client.cli.watching import exit_status

    def ended(job_id: str, finished: JobFinished) -> bool:
        ends[job_id] = finished
        if json:
            code = exit_status(finished)
            name = submitted[job_id].name
            console.out_json({"job_id": job_id, "name": name, "state": finished.state, "exit_code": code})
        console.show_status(progress_text(ends.values(), len(submitted)))
        return len(ends) == len(submitted)

    console.farewell = "the jobs continue; `airunner list` shows them"
    console.show_status(progress_text((), len(submitted)))
    await follow_ends(client, tuple(submitted), ended)
    console.farewell = ""


async def _cancel(client: Client, console: Console, job_ids: Sequence[str]) -> None:
    """Cancel the jobs that have not ended, although this command is interrupted."""
    import anyio

    from airunner.client.cli.bulk import change_each
    from airunner.client.cli.commands import CANCEL_S

    cancelled = 0

    async def cancel(job_id: str) -> str:
        nonlocal cancelled
        await client.cancel(job_id)
        cancelled += 1
        return ""

    with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_S):
        await change_each(console, "cancel", job_ids, cancel)
    console.farewell = f"{cancelled} of {len(job_ids)} jobs are cancelled or being cancelled"


def progress_text(ends: Collection[JobFinished], total: int) -> str:
    """Format how many jobs have ended, with a bar: `[#######...] 35 of 50 ended, 2 failed`."""
    from airunner.protocol.job import JobState

    filled = BAR_CHARS * len(ends) // total
    failed = sum(end.state is not JobState.COMPLETED for end in ends)
    bad = f", {failed} not completed" if failed else ""
    return f"[{'#' * filled}{'.' * (BAR_CHARS - filled)}] {len(ends)} of {total} ended{bad}"


async def _print_table(
    client: Client, console: Console, submitted: Mapping[str, JobSpec], ends: Mapping[str, JobFinished]
) -> None:
    """Print a line for each job: how it ended, and the last line of the output of one that failed."""
    import anyio

    from airunner.client.cli.columns import aligned, end_state_text, short_ids
    from airunner.client.cli.taskgroups import first_error
    from airunner.client.cli.watching import exit_status, result_of
    from airunner.protocol.printable import shell_line

    lines: dict[str, str] = {}
    at_once = anyio.Semaphore(LINES_AT_ONCE)

    async def read(job_id: str) -> None:
        async with at_once:
            lines[job_id] = await _last_line(client, job_id)

    failed = [job_id for job_id, end in ends.items() if exit_status(end)]
    with first_error():
        async with anyio.create_task_group() as group:
            for job_id in failed:
                group.start_soon(read, job_id)
    rows: list[Sequence[str]] = [HEADINGS]
    for short_id, (job_id, spec) in zip(short_ids(tuple(submitted)), submitted.items(), strict=True):
        title = spec.name or shell_line(spec.argv)[:TITLE_CHARS_MAX]
        end = ends[job_id]
        state = end_state_text(end.state, result_of(end))
        rows.append((short_id, title, state, str(exit_status(end)), lines.get(job_id, "")))
    for line in aligned(rows):
        console.out_line(line)
    bad = f", {len(failed)} did not" if failed else ""
    console.say(f"{len(ends) - len(failed)} of {len(ends)} jobs completed{bad}")


async def _last_line(client: Client, job_id: str) -> str:
    """Read the last line that a job has written."""
    from airunner.client.cli.explain import last_events, last_line

    job = await client.get(job_id)
    return last_line(await last_events(client, job, ("OUTPUT",)))
