"""Commands `airunner config …`: show where each setting is from, choose a cluster, and change config.yaml."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec import Struct

from airunner.certs.home import Home
from airunner.client.cli.clientcommand import JsonOption
from airunner.client.settings import (
    CLIENT_NAMES,
    CLUSTER,
    NAMES,
    config_path,
    configured,
    no_cluster,
    read_config,
    unknown_setting,
    variable_of,
)
from airunner.protocol.errors import OperatorError
from airunner.protocol.printable import json_line
from airunner.transport.endpoints import DEFAULT_BROKER

if TYPE_CHECKING:
    from airunner.client.settings import Config, Setting

config_app = typer.Typer(help="Show and change settings, and choose a cluster.", no_args_is_help=True)

ClusterOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Cluster of config.yaml.", show_default="the one that is chosen"),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Setting, such as queue, or clusters.NAME.queue for one cluster.")
]
ALWAYS: Final = ("home", "cluster", "broker")  # shown, whatever they are
COLUMN_MAX: Final = 40  # of a column's cells; what is behind a longer one stands further to the right
HIDDEN: Final = "(set, not shown)"


class Row(Struct, frozen=True):
    """Row of `config show`: a setting, its value, and its source: an option, a variable, FILE:LINE or default."""

    name: str
    value: str
    source: str


class Cluster(Struct, frozen=True):
    """Cluster of `config list`."""

    name: str
    chosen: bool
    broker: str
    home: str


@config_app.command("show")
def show_command(
    cluster: ClusterOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show also what has its default.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the settings that are in force, and where each is from: an option, a variable, or a line of config.yaml.

    An option overrides its variable, that overrides the chosen cluster in config.yaml, and that the rest of the file.
    """
    rows = list(rows_of(os.environ, cluster or "", everything=everything))
    _print(rows, [(row.name, row.value, row.source) for row in rows], json=json)


@config_app.command("list")
def list_command(json: JsonOption = False) -> None:
    """List the clusters of config.yaml: the chosen one, then the others."""
    path = config_path(os.environ)
    config = read_config(path) if path.exists() else None
    chosen = os.environ.get(CLUSTER) or ("" if config is None else _chosen(config))
    clusters: Mapping[str, Mapping[str, Setting]] = {} if config is None else config.clusters
    if not clusters:
        _say(f"{path} has no clusters; `airunner config set clusters.NAME.broker tcp://HOST:PORT` adds one")
    found = [
        Cluster(name, name == chosen, _value(own, "broker", DEFAULT_BROKER), _value(own, "home", str(path.parent)))
        for name, own in sorted(clusters.items(), key=lambda each: each[0] != chosen)
    ]
    rows = [("*" if each.chosen else "", each.name, each.broker, each.home) for each in found]
    _print(found, rows, json=json)


@config_app.command("use")
def use_command(name: Annotated[str, typer.Argument(metavar="NAME", help="Cluster of config.yaml.")]) -> None:
    """Choose the cluster that commands use from now on, without --cluster or AIRUNNER_CLUSTER."""
    path = config_path(os.environ)
    config = read_config(path) if path.exists() else None
    if config is None or name not in config.clusters:
        raise no_cluster(path, name, () if config is None else config.clusters)
    broker = config.clusters[name].get("broker")
    where = f"{name}: broker {DEFAULT_BROKER if broker is None else broker.value}"
    if _chosen(config) == name:
        _say(f"the cluster is {where} already")
    else:
        _write(path, "cluster", name)
        _say(f"the cluster is now {where}; {path} says so")
    if other := os.environ.get(CLUSTER, name).removeprefix(name):
        _say(f"in this shell {CLUSTER} names {other}, which overrides it: `unset {CLUSTER}`")


@config_app.command("set")
def set_command(
    name: NameArgument, value: Annotated[str, typer.Argument(metavar="VALUE", help="Value, as of its option.")]
) -> None:
    """Set a setting in config.yaml; the file is made if it is missing, and its comments stay."""
    path = config_path(os.environ)
    _check(name)
    _write(path, name, value)
    _say(f"{name} is {value!r} in {path}")


@config_app.command("unset")
def unset_command(name: NameArgument) -> None:
    """Remove a setting from config.yaml, so that its default counts again."""
    path = config_path(os.environ)
    _check(name)
    was = path.read_text() if path.exists() else ""
    if path.exists() and _write(path, name, None) != was:
        _say(f"{name} is no longer in {path}")
    else:
        _say(f"{name} is not in {path}")


def rows_of(environ: Mapping[str, str], cluster: str, *, everything: bool) -> Iterator[Row]:
    """Yield the settings in force; with `everything` also those that have their default."""
    found = configured(environ, cluster)
    defaults = _defaults() if everything else {}
    defaults |= {"broker": DEFAULT_BROKER, "cluster": "none", "home": str(Home.from_environment(environ).root)}
    names = {*ALWAYS, *defaults, *NAMES, *CLIENT_NAMES}
    for name in (*ALWAYS, *sorted(names - {*ALWAYS})):
        variable = variable_of(name)
        value = found.environ.get(variable, "")
        if value:
            yield Row(name, shown(name, value), _source(variable, environ, found.origins, cluster))
        elif name in defaults:
            yield Row(name, defaults[name], "default")


def shown(name: str, value: str) -> str:
    """Return a value without its secrets."""
    if name == "token":
        return HIDDEN
    return f"{value.partition(':')[0]}:…{value.rpartition('@')[2]}" if name == "store" and "@" in value else value


def _source(variable: str, environ: Mapping[str, str], origins: Mapping[str, str], cluster: str) -> str:
    """Return where the value of a variable is from."""
    if variable == CLUSTER and cluster:
        return "--cluster"
    if variable in origins:
        return origins[variable].rpartition(": ")[0].replace(", line ", ":")
    if environ.get(variable):
        return variable
    path = config_path(environ)
    line = read_config(path).cluster
    return f"{path}:{line.line if line is not None else 1}"  # the chosen cluster


def _defaults() -> dict[str, str]:
    """Return the defaults of all settings, of which some differ by command."""
    from airunner.commandline import commands
    from airunner.helptext import default_of
    from airunner.variables import setting_of

    found: dict[str, dict[str, None]] = {}
    for _, command, ctx in commands():
        for option in command.params:
            if name := setting_of(option):
                found.setdefault(name, {})[default_of(option, ctx)] = None
    return {name: " | ".join(filter(None, texts)) or "none" for name, texts in found.items()}


def _value(settings: Mapping[str, Setting], name: str, default: str) -> str:
    return settings[name].value if name in settings else default


def _chosen(config: Config) -> str:
    return config.cluster.value if config.cluster is not None else ""


def _check(name: str) -> None:
    """Check the name of a setting. Raises `OperatorError`."""
    from airunner.client.configedit import key_of

    key = key_of(name)
    known = {*NAMES, *CLIENT_NAMES, "home" if key[1:] else "cluster"} - {"token"}
    if key[-1] not in known:
        raise OperatorError(unknown_setting(key[-1], known))


def _write(path: Path, name: str, value: str | None) -> str:
    """Change a setting of the file, and return its new text. Raises `OperatorError`."""
    from airunner.certs.secretfile import make_folder, replace
    from airunner.client.configedit import changed

    before = path.read_text() if path.exists() else ""
    after = changed(before, path, name, value)
    if after != before:
        make_folder(path.parent)
        replace(path.resolve(), after.encode())
    return after


def _print(found: Sequence[Any], rows: Sequence[tuple[str, ...]], *, json: bool) -> None:
    """Print a list: a JSON object a line, or aligned columns."""
    from airunner.client.cli.columns import aligned

    lines: Iterable[str] = ()
    if json:
        lines = map(json_line, found)
    elif rows:
        short = [[cell if len(cell) <= COLUMN_MAX else "" for cell in row] for row in rows]
        lines = aligned(rows, [max(map(len, column)) for column in zip(*short, strict=True)])
    for line in lines:
        typer.echo(line)


def _say(line: str) -> None:
    typer.echo(f"airunner: {line}", err=True)
