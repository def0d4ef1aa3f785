"""Parser of the command line: of the named command, or of all."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer

from airunner.commandtable import TABLE
from airunner.switches import DebugOption, SwitchGroup, turn_debug_on, with_debug


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
    for name, entry in TABLE.items():
        if named in TABLE and name != named:
            continue
        defined = _import(entry.place)
        if not entry.is_group:
            app.command(name, hidden=not entry.line)(with_debug(defined))
            continue
        group = typer.Typer(help=defined.info.help)
        for command in defined.registered_commands:
            group.command(command.name)(with_debug(command.callback))
        app.add_typer(group, name=name, cls=SwitchGroup)
    return app


def _import(place: str) -> Any:  # noqa: ANN401 - a command or a group of them
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _root(debug: DebugOption = False) -> None:
    """Run any command in any Git repository, on any number of machines, and lose nothing."""
    if debug:
        turn_debug_on()
