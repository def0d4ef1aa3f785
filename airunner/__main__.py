"""Entry point of the `airunner` command: finds the module of each command, and decides how the program ends.

An error that an operator or the other side can fix becomes a message on stderr and an exit code. Without `--debug`, a
traceback means a bug of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from airunner.client.cli.clientcommand import EXIT_INTERRUPTED
from airunner.client.cli.commands import words_after_dashes
from airunner.client.cli.console import ReaderGone, silence_stdout
from airunner.protocol.errors import OperatorError, PeerError
from airunner.protocol.printable import own_lines
from airunner.switches import DebugOption, SwitchGroup, debug_is_on, turn_debug_on, with_debug

EXIT_READER_GONE = 141  # 128 + SIGPIPE

COMMANDS: Final = {
    "submit": "airunner.client.cli.commands:submit_command",
    "show": "airunner.client.cli.commands:show_command",
    "monitor": "airunner.client.cli.monitor:monitor_command",
    "list": "airunner.client.cli.joblist:list_command",
    "export": "airunner.client.cli.export:export_command",
    "cancel": "airunner.client.cli.controls:cancel_command",
    "retry": "airunner.client.cli.controls:retry_command",
    "queues": "airunner.client.cli.controls:queues_command",
    "agents": "airunner.client.cli.controls:agents_command",
    "pause": "airunner.client.cli.controls:pause_command",
    "resume": "airunner.client.cli.controls:resume_command",
    "drain": "airunner.client.cli.controls:drain_command",
    "run": "airunner.solo:run_command",
    "broker": "airunner.broker.command:broker_command",
    "agent": "airunner.agent.command:agent_command",
    "worker": "airunner.agent.command:agent_command",  # the name that other runners use
    "token": "airunner.certs.command:token_command",
    "backup": "airunner.broker.storecommand:backup_command",
    "doctor": "airunner.doctor:doctor_command",
}
"""Module and function of each command; running a command imports only its own module."""
GROUPS: Final = {
    "certs": "airunner.certs.command:certs_app",
    "store": "airunner.broker.storecommand:store_app",
    "secret": "airunner.client.cli.secrets:secret_app",
}
HIDDEN: Final = ("worker",)


def make_app(named: str = "") -> typer.Typer:
    """Build the command line: only the command `named`, or all commands if there is none of that name."""
    app = typer.Typer(
        name="airunner",
        cls=SwitchGroup,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # rich takes 60 ms to import
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    known = named in COMMANDS or named in GROUPS
    for name, place in COMMANDS.items():
        if name == named or not known:
            app.command(name, hidden=name in HIDDEN)(with_debug(_import(place)))
    for name, place in GROUPS.items():
        if name == named or not known:
            defined = _import(place)
            group = typer.Typer(help=defined.info.help, no_args_is_help=True)
            for command in defined.registered_commands:
                group.command(command.name)(with_debug(command.callback))
            app.add_typer(group, name=name, cls=SwitchGroup)
    return app


def _import(place: str) -> Any:  # noqa: ANN401 - a command or a group of them
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"airunner {version('airunner')}")
    except PackageNotFoundError:
        typer.echo("airunner (not installed)")
    raise typer.Exit


def _root(
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
        named = next((word for word in argv if not word.startswith("-")), "")
        make_app(named)(list(argv), prog_name="airunner", obj=words_after_dashes(argv))
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
    """Print the error's message on stderr, with `--debug` after its traceback, and return its exit code."""
    if debug_is_on():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError):
        message, code = ": ".join(filter(None, (error.filename, error.strerror or str(error)))), 1
    else:
        message, code = error.message, error.exit_code
    print(f"airunner: {own_lines(message)}", file=sys.stderr)  # a message may quote other people's text
    return code


def _only_fixable(group: BaseExceptionGroup[BaseException]) -> OperatorError | PeerError | OSError:
    """Return the first error of a task group; raise the group when a bug of ours is among its errors."""
    fixable, ours = group.split((OperatorError, PeerError, OSError))
    if ours is not None or fixable is None:
        raise group
    error: BaseException = fixable
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, (OperatorError, PeerError, OSError)), "split() returned another error"
    return error


def main() -> None:
    """Run the `airunner` command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: otherwise the next opened file would get its descriptor
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the end of the process
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
