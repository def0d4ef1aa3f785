"""Command `airunner artifact put`: keeps files of a job from inside of it, while it runs."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from airunner.client.cli.clientcommand import QuietOption
from airunner.client.cli.console import Console

EXIT_LEFT_OUT: Final = 1

artifact_app = typer.Typer(help="Keep files of a job from inside of it.", no_args_is_help=True)


@artifact_app.callback()
def artifact_group() -> None:
    """Keep files of a job from inside of it."""


@artifact_app.command("put")
def put_command(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files and folders to keep, with everything in them; - is stdin."),
    ],
    called: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Path by which the file or folder is kept.",
            show_default="its path below the checkout",
        ),
    ] = None,
    *,
    quiet: QuietOption = False,
) -> None:
    """Keep files of the job that this command runs in, at once: they can be had while the job goes on.

    It returns when all of them are stored. Of two with the same path the later one counts. Exits with 66 if a path is
    missing, and with 1 if something in a folder cannot be kept; then all else is.
    """
    from airunner.client.puttingfiles import named_files, put_files
    from airunner.protocol.sizes import bytes_text

    console = Console(quiet=quiet)
    left_out: list[str] = []
    put = put_files(named_files(paths, called, os.environ, left_out.append), os.environ, left_out.append)
    for line in left_out:
        console.must_say(f"left out: {line}")
    number = "1 file" if put.files == 1 else f"{put.files:,} files"
    console.say(f"{number} kept, {bytes_text(put.size_bytes)}")
    if left_out:
        raise typer.Exit(EXIT_LEFT_OUT)
