"""Command table of the command line: the module and function of each command, and the parser of the named one."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Final

import typer

from airunner.switches import DebugOption, SwitchGroup, turn_debug_on, with_debug

COMMANDS: Final = {
    "submit": "airunner.client.cli.commands:submit_command",
    "show": "airunner.client.cli.commands:show_command",
    "explain": "airunner.client.cli.explain:explain_command",
    "wait": "airunner.client.cli.wait:wait_command",
    "monitor": "airunner.client.cli.monitor:monitor_command",
    "logs": "airunner.client.cli.logs:logs_command",
    "list": "airunner.client.cli.joblist:list_command",
    "export": "airunner.client.cli.export:export_command",
    "cancel": "airunner.client.cli.controls:cancel_command",
    "retry": "airunner.client.cli.controls:retry_command",
    "queues": "airunner.client.cli.controls:queues_command",
    "agents": "airunner.client.cli.controls:agents_command",
    "brokers": "airunner.client.cli.controls:brokers_command",
    "pause": "airunner.client.cli.controls:pause_command",
    "resume": "airunner.client.cli.controls:resume_command",
    "drain": "airunner.client.cli.controls:drain_command",
    "ps": "airunner.client.cli.joblist:list_command",  # the names that other programs use
    "ls": "airunner.client.cli.joblist:list_command",
    "run": "airunner.solo:run_command",
    "broker": "airunner.broker.command:broker_command",
    "agent": "airunner.agent.command:agent_command",
    "worker": "airunner.agent.command:agent_command",
    "token": "airunner.certs.command:token_command",
    "backup": "airunner.broker.storecommand:backup_command",
    "doctor": "airunner.doctor:doctor_command",
}
"""Module and function of each command; running a command imports only its own module."""
GROUPS: Final = {
    "certs": "airunner.certs.command:certs_app",
    "store": "airunner.broker.storecommand:store_app",
    "scale": "airunner.client.cli.scale:scale_app",
    "secret": "airunner.client.cli.secrets:secret_app",
}
HIDDEN: Final = ("worker", "ps", "ls")


def make_app(named: str = "") -> typer.Typer:
    """Build the command line: only the command `named`, or all commands if there is none of that name."""
    app = typer.Typer(
        name="airunner",
        cls=SwitchGroup,
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
            group = typer.Typer(help=defined.info.help)
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
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Run any command in any Git repository, on any number of machines, and lose nothing."""
    if debug:
        turn_debug_on()
