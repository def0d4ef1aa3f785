"""Command `airunner export`: writes a job's log so far as a recording, as bytes or as JSON objects."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from airunner.client.cli.clientcommand import JobArgument, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.jobname import job_id_of
from airunner.protocol.errors import EXIT_IO, OperatorError
from airunner.protocol.events import Event, Stream

if TYPE_CHECKING:
    from airunner.client.cli.exporters import Exporter
    from airunner.client.client import Client
    from airunner.protocol.fields import JobSpec
    from airunner.protocol.job import Job


STDOUT: Final = Path("-")  # as `--output`


class Format(StrEnum):
    """Format of an export."""

    CAST = "cast"
    CAST2 = "cast2"
    HTML = "html"
    SVG = "svg"
    TEXT = "text"
    RAW = "raw"
    JSONL = "jsonl"
    JOB = "job"


@client_command("quiet")
async def export_command(
    client: Client,
    console: Console,
    job: JobArgument,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            case_sensitive=False,
            help="cast: a recording of the console, asciicast v3, for `asciinema play`; cast2: for asciinema 2. html: "
            "one page with colours and times. svg: an animation of the terminal, for a page or a README. text: what a "
            "terminal shows, without colours. raw: the job's output, stdout and stderr as they were written. jsonl: "
            "every event, as `monitor --json` prints it. job: the job itself, with its standard input and tree and "
            "without its log, for `airunner run --job FILE`.",
        ),
    ] = Format.CAST,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            allow_dash=True,
            help="File to write, or - for stdout; replaced if it exists, once the export is complete.",
            show_default="stdout",
        ),
    ] = None,
) -> None:
    """Export a job's log; if the job has not finished, the log so far."""
    console.job_id = job = await job_id_of(client, job)
    if format_ is Format.JOB:
        await _export_job(client, console, job, None if output == STDOUT else output)
        return
    found = await client.get(job)
    exporter = exporter_of(format_, found)
    # On a terminal the output is filtered.
    out = partial(console.job_output, Stream.STDOUT) if format_ is Format.RAW else console.out
    with sink(None if output == STDOUT else output, out) as put:
        async for event in client.replay(job):
            put(exporter.feed(event))
        put(exporter.end())
    console.job_over()
    if not found.state.terminal:
        console.must_say(f"the job is {found.state}: this is its log so far")


async def _export_job(client: Client, console: Console, job_id: str, output: Path | None) -> None:
    """Write the record of a job. Raises `OperatorError`, `PeerError`."""
    from tempfile import TemporaryDirectory

    from airunner.client.jobrecord import record_of, write_record

    with TemporaryDirectory(prefix="airunner-job-") as folder:
        record = await record_of(client, job_id, Path(folder))
        with sink(output, console.out) as put:
            write_record(record, put)


def exporter_of(format_: Format, job: Job) -> Exporter:
    """Return the exporter of a job's events in a format. Raises `OperatorError`: it needs a package."""
    from airunner.client.cli import exporters

    title = job.spec.name or f"airunner job {job.id}"
    match format_:
        case Format.CAST | Format.CAST2:
            from airunner.client.cli.cast import Cast

            return exporters.Each(Cast(job.spec, title, version=2 if format_ is Format.CAST2 else 3).feed)
        case Format.HTML:
            return exporters.Html(job, title)
        case Format.SVG:
            return exporters.svg(job.spec, title)
        case Format.TEXT:
            return exporters.Text(job.spec)
        case Format.RAW:
            return exporters.Raw()
        case Format.JSONL | Format.JOB:
            return exporters.Each(exporters.json_text)


@contextmanager
def sink(path: Path | None, out: Callable[[bytes], None]) -> Generator[Callable[[bytes], None]]:
    """Open the destination of an export: `out`, or a file, which is replaced once the export is complete.

    A device, a link or a file with another owner is written in place. Raises `OperatorError`: it cannot be written.
    """
    if path is None:
        yield out
        return
    if not _replaceable(path):
        with _in_place(path, path) as put:
            yield put
        return
    draft = path.with_name(f".airunner-{secrets.token_hex(8)}")
    try:
        with _in_place(draft, path) as put:
            yield put
        with _operators_fault(path):
            if path.exists():
                draft.chmod(stat.S_IMODE(path.stat().st_mode))
            draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def _replaceable(path: Path) -> bool:
    """Return whether another file may take the path's place without a change that the user could notice."""
    try:
        status = path.lstat()
    except OSError:
        return True
    plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
    return plain and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


@contextmanager
def _in_place(path: Path, called: Path) -> Generator[Callable[[bytes], None]]:
    with _operators_fault(called):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def put(piece: bytes) -> None:
        rest = memoryview(piece)
        with _operators_fault(called):
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    try:
        yield put
    finally:
        os.close(descriptor)


@contextmanager
def recording(path: Path | None, spec: JobSpec, console: Console) -> Generator[Callable[[Event], None] | None]:
    """Open a recording of a job, and yield the function that records an event, or None without a `path`.

    The file grows with the job. If it cannot be written any more, the job continues, and this is said.
    """
    if path is None:
        yield None
        return
    from airunner.client.cli.cast import Cast

    cast = Cast(spec, "airunner run")
    with _in_place(path, path) as put:
        lost = False

        def record(event: Event) -> None:
            nonlocal lost
            if lost:
                return
            try:
                put(cast.feed(event).encode())
            except OperatorError as error:
                lost = True
                console.lose(error)

        yield record


@contextmanager
def _operators_fault(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}", exit_code=EXIT_IO) from error
