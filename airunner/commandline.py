"""Parser of the command line: of the named command, or of all."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer

from airunner.commandtable import TABLE
from airunner.switches import ClusterOption, DebugOption, SwitchGroup, turn_debug_on, with_shared
from airunner.variables import give_variables


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
        choosing = name != "config"  # its commands look at the file themselves
        if not entry.is_group:
            app.command(name, hidden=not entry.line)(with_shared(defined, choosing=choosing))
            continue
        group = typer.Typer(help=defined.info.help)
        for command in defined.registered_commands:
            group.command(command.name)(with_shared(command.callback, choosing=choosing))
        app.add_typer(group, name=name, cls=SwitchGroup)
    return app


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Yield each command of the table by its whole name, such as `certs add`, and with a context for its help."""
    root = typer.main.get_command(make_app())
    top = typer.Context(root, info_name="airunner")

    def below(group: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401 - likewise
        for name, command in group.commands.items():
            if command.hidden:
                continue
            context = typer.Context(command, info_name=name, parent=parent)
            if hasattr(command, "commands"):
                yield from below(command, context)
                continue
            path = context.command_path.partition(" ")[2]
            give_variables(path, command.params)
            yield path, command, context

    yield from below(root, top)


def _import(place: str) -> Any:  # noqa: ANN401 - a command or a group of them
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _root(debug: DebugOption = False, cluster: ClusterOption = None) -> None:  # noqa: ARG001 - it is applied
    """Run any command in any Git repository, on any number of machines, and lose nothing."""
    if debug:
        turn_debug_on()
