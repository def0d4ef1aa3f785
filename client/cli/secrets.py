"""Commands `airunner secret …`: set, list and remove secrets that only the agents of a queue can open.

A value is never passed as an argument, because other users of a machine can read arguments: it comes from stdin, a file
or a prompt that does not echo. The value is sealed here; only the sealed box leaves this process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airunner.client.cli.clientcommand import JsonOption, Work, client_command
from airunner.client.cli.console import Console
from airunner.client.cli.controls import show_rows
from airunner.protocol.errors import OperatorError
from airunner.protocol.fields import DEFAULT_QUEUE
from airunner.protocol.names import NAME_EXPECTED, VARIABLE_EXPECTED, fits_name, fits_variable

if TYPE_CHECKING:
    from airunner.client.client import Client

secret_app = typer.Typer(help="Manage secrets of jobs, sealed for the agents of a queue.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Variable in which the job receives the secret.")]
QueueOption = Annotated[str, typer.Option(help="Queue whose jobs may use the secret.")]


@secret_app.command("set")
@client_command("quiet")
def set_command(
    console: Console,
    name: NameArgument,
    queue: QueueOption = DEFAULT_QUEUE,
    from_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            allow_dash=True,
            help="Read the value from this file, to the last byte.",
            show_default="stdin",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Public key of the queue.", show_default="$AIRUNNER_HOME/certs/queues/QUEUE.public"
        ),
    ] = None,
) -> Work:
    """Set a secret, or replace its value. Jobs that are leased from then on get the new value.

    The value is typed at a prompt, or read from stdin without the newline at its end. Jobs name the secret in --secret
    or --secret-file.
    """
    from airunner.certs.ownership import own_home
    from airunner.certs.queuekeys import load_public, public_path, seal_secret

    _check(name, queue)
    public = load_public(key or public_path(own_home(os.environ), queue), queue)
    box = seal_secret(public, queue, name, _value(name, from_file))

    async def run(client: Client) -> None:
        await client.set_secret(queue, name, box)
        console.say(f"the secret {name} of queue {queue} is set")

    return run


@secret_app.command("list")
@client_command()
async def list_command(
    client: Client,
    console: Console,
    queue: Annotated[str | None, typer.Option(help="List only this queue's secrets.", show_default="all")] = None,
    json: JsonOption = False,
) -> None:
    """List the names of secrets, and when each was set. No command shows their values."""
    from airunner.client.cli.listing import SECRET_HEADINGS, SECRETS_LEAVE, secret_row

    _check(None, queue)
    await show_rows(console, client.secrets(queue), secret_row, SECRET_HEADINGS, SECRETS_LEAVE, json=json)


@secret_app.command("rm")
@client_command("quiet")
async def remove_command(
    client: Client, console: Console, name: NameArgument, queue: QueueOption = DEFAULT_QUEUE
) -> None:
    """Remove a secret. Running jobs keep its value."""
    _check(name, queue)
    await client.remove_secret(queue, name)
    console.say(f"the secret {name} of queue {queue} is removed")


def _check(name: str | None, queue: str | None) -> None:
    if name is not None and not fits_variable(name):
        raise OperatorError(f"{name!r} is no name of a secret: expected {VARIABLE_EXPECTED}")
    if queue is not None and not fits_name(queue):
        raise OperatorError(f"--queue {queue!r}: expected {NAME_EXPECTED}")


def _value(name: str, from_file: Path | None) -> bytes:
    """Read the value of a secret; the end of a value that is too large is not read. Raises `OperatorError`."""
    from airunner.certs.queuekeys import VALUE_BYTES_MAX

    if from_file is not None and from_file != Path("-"):
        try:
            with from_file.open("rb") as file:
                value = file.read(VALUE_BYTES_MAX + 1)
        except OSError as error:
            raise OperatorError(f"cannot read {from_file}: {error.strerror}") from error
    elif sys.stdin.isatty():
        value = _typed(name)
    else:
        try:
            value = sys.stdin.buffer.read(VALUE_BYTES_MAX + 2).removesuffix(b"\n")
        except OSError:  # closed, as by <&-
            value = b""
    if not value:
        raise OperatorError(f"the value of {name} is empty: give it on stdin, or with --from-file FILE")
    return value


def _typed(name: str) -> bytes:
    """Prompt for a value without echo; Ctrl-D: an empty value."""
    from getpass import getpass

    try:
        return getpass(f"{name}: ").encode("utf-8", "surrogateescape")
    except EOFError:
        print(file=sys.stderr)  # the cursor is still on the prompt's line
        return b""
