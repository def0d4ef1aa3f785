"""Command `airunner artifacts`: lists the files that a job has left, gets them, or prints one of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.clientcommand import JobArgument, JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.protocol.errors import EXIT_NO_SUCH, OperatorError
from airunner.protocol.events import Stream
from airunner.protocol.printable import escaped, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airunner.client.artifactfiles import ArtifactFile
    from airunner.client.client import Client
    from airunner.protocol.job import Job

HEADINGS: Final = ("PATH", "SIZE", "MODE", "TARGET")
LEAVE: Final = ("MODE", "TARGET", "SIZE")  # columns, in the order in which they go
ACTIONS: Final = ("get", "cat")


@client_command("quiet")
def artifacts_command(
    console: Console,
    job: JobArgument,
    action: Annotated[
        str | None,
        typer.Argument(metavar="get|cat", help="get: write files here; cat: print one.", show_default="list them"),
    ] = None,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN...",
            help="The files: their paths, folders, or patterns such as dist/*.whl and **/report.xml, quoted.",
            show_default="all",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder to write files to.", show_default="the current one"
        ),
    ] = None,
    json: JsonOption = False,
) -> Work:
    """List the files that a job has left, its artifacts; or get them, or print one of them on stdout.

    A file can be had once it is stored, also while the job runs. Files that exist are replaced; modes, links and empty
    folders are as they were, and nothing is ever written outside of the folder. Exits with 66 if nothing matches.
    """
    patterns = paths or []
    if action not in (None, *ACTIONS):
        raise OperatorError(f"{action!r}: expected get or cat, as in `airunner artifacts {job} get`")
    if action == "cat" and len(patterns) != 1:
        raise OperatorError(f"cat prints one file, as in `airunner artifacts {job} cat PATH`; get takes several")
    if output is not None and action != "get":
        raise OperatorError(f"--output is for get, as in `airunner artifacts {job} get -o FOLDER`")

    async def run(client: Client) -> int:
        from airunner.client.cli.jobname import job_id_of

        job_id = await job_id_of(client, job)
        files = await client.artifacts(job_id)
        if action == "cat":
            await _print(client, console, job_id, files, patterns[0])
            return 0
        if not files:
            await _say_none(client, console, job_id)
            return EXIT_NO_SUCH if action == "get" else 0
        if action == "get":
            return await _get(client, console, job_id, files, patterns, output or Path(), json=json)
        await _list(client, console, job_id, files, json=json)
        return 0

    return run


def artifact_row(file: ArtifactFile, *, terminal: bool) -> Sequence[str]:
    """Format the cells of a file, in the order of `HEADINGS`; a pipe gets the size in bytes."""
    from airunner.protocol.sizes import bytes_text

    size = "" if file.kind != "file" else bytes_text(file.size_bytes) if terminal else str(file.size_bytes)
    mode = "" if file.kind == "link" else f"{file.mode:04o}"
    return (escaped(file.path), size, mode, escaped(file.target))


def total_text(files: Sequence[ArtifactFile]) -> str:
    """Format number and size of files: `12 files, 3.4 MiB`."""
    from airunner.protocol.sizes import bytes_text

    number = "1 file" if len(files) == 1 else f"{len(files):,} files"
    return f"{number}, {bytes_text(sum(file.size_bytes for file in files))}"


async def files_at_end(client: Client, job: Job) -> list[ArtifactFile]:
    """List the files that a job's last command has left: the log is read from the end of that command on."""
    if not job.spec.artifacts:
        return []
    from airunner.client.artifactfiles import artifacts_of
    from airunner.client.artifacts import ARTIFACT_KINDS
    from airunner.client.logreader import last_events

    ends = await last_events(client, job, ("PROCESS_END",)) if job.attempt else ()
    if not ends:
        return []
    return artifacts_of([event async for event in client.replay(job.id, ends[-1].sequence, kinds=ARTIFACT_KINDS)])


async def artifacts_text(client: Client, job: Job) -> str:
    """Say how many files a job has left, and how to get them; empty if none."""
    files = await files_at_end(client, job)
    return f"{total_text(files)}: airunner artifacts {job.id} get" if files else ""


async def _say_none(client: Client, console: Console, job_id: str) -> None:
    state = (await client.get(job_id)).state
    console.must_say(
        "the job has left no files" if state.terminal else f"the job is {state}, and has left no files yet"
    )


async def _list(client: Client, console: Console, job_id: str, files: Sequence[ArtifactFile], *, json: bool) -> None:
    from airunner.client.cli.rowtable import table_lines, width_of

    if json:
        for file in files:
            console.out_json(file.form)
        return
    width = width_of(console)
    rows = [artifact_row(file, terminal=not math.isinf(width)) for file in files]
    for line in table_lines(HEADINGS, rows, LEAVE, width):
        console.out_line(line)
    if console.person_reads:
        state = (await client.get(job_id)).state
        so_far = "" if state.terminal else f" so far: the job is {state}"
        console.say(f"{total_text(files)}{so_far}; to get them: airunner artifacts {job_id} get")


async def _get(
    client: Client,
    console: Console,
    job_id: str,
    files: Sequence[ArtifactFile],
    patterns: Sequence[str],
    folder: Path,
    *,
    json: bool,
) -> int:
    from airunner.client.artifactfiles import chosen
    from airunner.protocol.sizes import bytes_text

    wanted = chosen(files, patterns)
    total = total_text(wanted)

    def show(number: int, size_bytes: int) -> None:
        console.show_status(f"{number:,} of {total}; {bytes_text(size_bytes)} so far")

    console.farewell = "not all files are there; `airunner artifacts` gets them again"
    await client.fetch(job_id, wanted, folder, progress=show)
    console.show_status("")
    console.farewell = ""
    for file in wanted if json else ():
        console.out_json(file.form)
    console.say(f"{total}, written to {'the current folder' if folder == Path() else one_line(str(folder))}")
    return 0


async def _print(client: Client, console: Console, job_id: str, files: Sequence[ArtifactFile], path: str) -> None:
    from airunner.client.artifactfiles import file_at

    async with client.read_artifact(job_id, file_at(files, path)) as pieces:
        async for piece in pieces:
            console.job_output(Stream.STDOUT, piece)
    console.job_over()
