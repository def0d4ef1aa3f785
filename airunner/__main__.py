"""Composition root: the only module that imports broker, agent and client.

It also decides how the program ends: an error that an operator or the other side can fix becomes one line on stderr and
an exit code, never a traceback. A traceback means a bug of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from airunner.agent.command import agent_command
from airunner.broker.command import broker_command
from airunner.broker.storecommand import backup_command, store_app
from airunner.certs.command import certs_app, token_command
from airunner.client.cli.commands import add_commands, words_behind_dashes
from airunner.client.cli.console import ReaderGone, silence_stdout
from airunner.client.cli.controls import add_controls
from airunner.client.cli.export import export_command
from airunner.client.cli.joblist import list_command
from airunner.client.cli.monitor import monitor_command
from airunner.client.cli.secrets import secret_app
from airunner.client.cli.waiting import with_timeout
from airunner.doctor import doctor_command
from airunner.protocol.errors import OperatorError, PeerError
from airunner.protocol.printable import own_lines
from airunner.solo import run_command
from airunner.switches import DebugOption, SwitchGroup, debug_is_on, turn_debug_on, with_debug

EXIT_READER_GONE = 141  # 128 + SIGPIPE
EXIT_INTERRUPTED = 130  # 128 + SIGINT

app = typer.Typer(
    name="airunner",
    cls=SwitchGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes 60 ms to import
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_commands(app)
app.command("monitor")(monitor_command)
app.command("list")(list_command)
app.command("export")(export_command)
add_controls(app)
app.command("run")(run_command)
app.command("broker")(broker_command)
app.command("agent")(agent_command)
app.command("worker", hidden=True)(agent_command)  # the name that other runners use
app.command("token")(token_command)
app.command("backup")(backup_command)
app.command("doctor")(doctor_command)
app.add_typer(certs_app, name="certs", cls=SwitchGroup)
app.add_typer(store_app, name="store", cls=SwitchGroup)
app.add_typer(secret_app, name="secret", cls=SwitchGroup)
for group in (app, certs_app, store_app, secret_app):
    for command in group.registered_commands:
        assert command.callback is not None, "a command does something"
        command.callback = with_debug(with_timeout(command.callback))


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"airunner {version('airunner')}")
    except PackageNotFoundError:
        typer.echo("airunner (not installed)")
    raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Run any command in any Git repository, on any number of machines, and lose nothing."""
    if debug:
        turn_debug_on()


def run(argv: Sequence[str]) -> int:
    """Run `airunner ARGV` and return its exit code."""
    try:
        app(list(argv), prog_name="airunner", obj=words_behind_dashes(argv))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except (ReaderGone, BrokenPipeError):
        silence_stdout()
        return EXIT_READER_GONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (OperatorError, PeerError, OSError) as error:
        return _report(error)
    except BaseExceptionGroup as group:
        if group.split(ReaderGone)[1] is None:
            silence_stdout()
            return EXIT_READER_GONE
        return _report(_only_fixable(group))
    return 0


def _report(error: OperatorError | PeerError | OSError) -> int:
    """Print the error on one line of stderr and return its exit code."""
    if debug_is_on():
        import traceback

        traceback.print_exception(error)
    message = _os_line(error) if isinstance(error, OSError) else error.message
    print(f"airunner: {own_lines(message)}", file=sys.stderr)  # it may quote other people's text
    return 1 if isinstance(error, OSError) else error.exit_code


def _os_line(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _only_fixable(group: BaseExceptionGroup[BaseException]) -> OperatorError | PeerError | OSError:
    """Return the error inside a task group's exception group, if all of them are for the operator.

    Raises `group` when a bug of ours is among them.
    """
    fixable, ours = group.split((OperatorError, PeerError, OSError))
    if ours is not None or fixable is None:
        raise group
    error: BaseException = fixable
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, (OperatorError, PeerError, OSError)), "split says so"
    return error


def main() -> None:
    """Run the `airunner` command."""
    _open_standard_streams()
    sys.exit(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Open stdin, stdout and stderr if they are closed: otherwise the next opened file would get their descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the end of the process


if __name__ == "__main__":
    main()
