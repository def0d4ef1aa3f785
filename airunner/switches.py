"""Switches of the command line in all common spellings: `--monitor=false`, `--json=true`, `--debug`.

The parser knows only `--monitor` and `--no-monitor`, so the arguments are rewritten before it reads them. This module
also defines `--debug` and `--cluster`, and adds them to every command.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial, wraps
from inspect import Parameter, signature
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Self, get_args

import typer
from typer.core import TyperGroup

from airunner.client.cli.options import with_parameters
from airunner.protocol.errors import EXIT_USAGE, OperatorError
from airunner.usage import unknown_command
from airunner.variables import TRUTHS, give_variables, origins

_DIGITS_MAX: Final = 18
_WHOLE: Final = re.compile(rf"[+-]?[0-9]{{1,{_DIGITS_MAX}}}", re.ASCII)
_DECIMAL: Final = re.compile(rf"[+-]?[0-9]{{1,{_DIGITS_MAX}}}(?:\.[0-9]{{1,{_DIGITS_MAX}}})?", re.ASCII)
_BARE: Final = {"--timestamps": "clock"}
"""Options that may be given without a value, with the value that this means."""
_LOG: Final = "airunner"  # the parent of all our loggers

DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", envvar="AIRUNNER_DEBUG", help="Print requests, retries and tracebacks on stderr, without secrets."
    ),
]


def use_cluster(ctx: typer.Context, name: str | None) -> str | None:
    """Apply config.yaml to this process's environment, for the named cluster or the one that it chooses.

    The parser calls this before it reads the variables of other options. Raises `OperatorError`.
    """
    from airunner.client.settings import configured

    if ctx.resilient_parsing or (name is None and ctx.parent is None):
        return name  # of `airunner` itself it is applied only if it is given: the command applies it otherwise
    found = configured(os.environ, name or "")
    os.environ.update(found.environ)
    origins.update(found.origins)
    return name


ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        callback=use_cluster,
        is_eager=True,
        help="Cluster of config.yaml to use; see `airunner config list`.",
        show_default="the one that `airunner config use` has chosen",
    ),
]


class SwitchGroup(TyperGroup):
    """Command group whose switches accept true or false."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - the parser's own, which Typer hides
        """Parse the group's own options; without any word, print the help on stderr and exit as for bad usage."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(EXIT_USAGE)
        _avoid_converters(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - likewise
        """Return the help: of `airunner` itself that of the table, and of a group that of its commands."""
        if ctx.parent is None:
            from airunner.commandtable import help_text

            return help_text().rstrip("\n")
        from airunner.helptext import group_help

        return group_help(self, ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - the parser's own, which Typer hides
        """Find the named command and rewrite its arguments. Raises `OperatorError`: there is none of that name."""
        if args[0] not in self.commands:
            raise unknown_command(ctx.command_path, args, self.list_commands(ctx))
        name, command, rest = super().resolve_command(ctx, args)
        path = f"{ctx.command_path} {name}".partition(" ")[2]
        give_variables(path, command.params if command is not None else ())
        if command is not None and not hasattr(command, "commands") and not {"-h", "--help"}.isdisjoint(rest):
            from airunner.helptext import help_of

            shown: Any = command
            shown.get_help = partial(help_of, command, path)
        _avoid_converters(command.get_params(ctx) if command is not None else ())
        return name, command, respelled(rest, command.params if command is not None else ())


def _avoid_converters(options: Sequence[Any]) -> None:
    """Give options the converter `_Words` instead of typer's own; older versions of typer have none."""
    for option in options:
        if hasattr(option, "get_runtime_param"):
            option.get_runtime_param = _Words(option).same


class _Words:
    """Converter of an option's value that leaves text as it is, and reads numbers, durations and the words of a choice.

    Typer's own converters import pydantic, which takes a tenth of a second: they are built for other types only.
    """

    def __init__(self, option: Any) -> None:  # noqa: ANN401 - an option of the parser's
        self._several = option.multiple or option.nargs != 1
        flag = option.opts[0]
        self._name = flag if flag.startswith("-") else option.metavar or flag.upper()
        self._kind = option.type_descriptor.annotation
        self._info = option.type_descriptor.parameter_info
        self._full = option.get_runtime_param

    def same(self) -> Self:
        """Return this converter, where typer would build its own."""
        return self

    def coerce(self, value: Any, **context: Any) -> Any:  # noqa: ANN401 - what the parser has read
        """Return the option's value: unset, text as it is, or the value that typer makes of it."""
        if value is None:
            return () if self._several else None
        if self._info.parser is not None:
            return self._info.parser(value)
        if self._kind in (str, list[str]):
            return value
        if self._kind is Path:
            return self._path(value)
        if self._kind in (int, float):
            return self._number(value)
        kind, *_ = get_args(self._kind) or (self._kind,)
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return [self._choice(kind, word) for word in value] if self._several else self._choice(kind, value)
        return self._full().coerce(value, **context)

    def _path(self, value: str | Path) -> Path:
        """Read a path. Raises `OperatorError`: it is empty, or means a standard stream, which the option does not."""
        if value == "":  # it would be the working directory
            raise OperatorError(f"{self._name} is empty: expected the path of a file or folder")
        if value == "-" and not self._info.allow_dash:
            raise OperatorError(f"{self._name}: expected a file, not stdin or stdout; a file of the name - is ./-")
        return Path(value)

    def _choice(self, kind: type[StrEnum], value: str) -> StrEnum:
        """Read one of several words, in any case. Raises `OperatorError`."""
        words = {str(word).lower(): word for word in kind}
        if value.lower() not in words:
            raise OperatorError(f"{self._name}: expected {' or '.join(words)}, not {value!r}")
        return words[value.lower()]

    def _number(self, value: str | float) -> float:
        """Read a number within the option's bounds. Raises `OperatorError`."""
        whole, least, most = self._kind is int, self._info.min, self._info.max
        if isinstance(value, str):
            number: float | None = float(value) if _DECIMAL.fullmatch(value) else None
            if whole:
                number = int(value) if _WHOLE.fullmatch(value) else None
        else:
            number = value  # the default
        if number is None or (least is not None and number < least) or (most is not None and number > most):
            bounds = f"from {least} to {most}" if most is not None else "" if least is None else f"of at least {least}"
            kind = "a whole number" if whole else "a number"
            long = f", with up to {_DIGITS_MAX} digits" if len(str(value)) > _DIGITS_MAX else ""
            raise OperatorError(f"{self._name}: expected {' '.join(filter(None, (kind, bounds)))}{long}, not {value!r}")
        return number


def respelled(words: Sequence[str], options: Sequence[Any]) -> list[str]:
    """Rewrite `--monitor=false` as `--no-monitor`, before any `--`. Raises `OperatorError`: not true or false."""
    named = [option for option in options if hasattr(option, "is_flag")]  # options, not operands
    switches = {name: option for option in named if option.is_flag for name in option.opts}
    opposites = {name: option for option in named for name in option.secondary_opts}
    takers = {name for option in named if not option.is_flag for name in option.opts}
    written: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*written, word, *rest]
        name, equals, value = word.partition("=")
        option = switches.get(name) or opposites.get(name)
        if equals and option is not None:
            if value.lower() not in TRUTHS:
                raise OperatorError(f"{name} {value!r}: expected true or false")
            on = TRUTHS[value.lower()] is (name in switches)
            written += (option.opts if on else option.secondary_opts)[:1]  # none: false for a switch without --no-
            continue
        if word in _BARE and word in takers:
            written.append(f"{word}={_BARE[word]}")
            continue
        written.append(word)
        if word in takers or (word[:1] == "-" != word[1:2] and f"-{word[-1]}" in takers):
            written += islice(rest, 1)  # the option's value
    return written


def with_shared(command: Callable[..., Any], *, choosing: bool) -> Callable[..., Any]:
    """Add the options that all commands have: `--debug` and, for those that are `choosing` a cluster, `--cluster`."""

    @wraps(command)
    def shared(*args: Any, debug: bool = False, **options: Any) -> Any:  # noqa: ANN401 - the command's own, of any kind
        if debug:
            turn_debug_on()
        if choosing:
            del options["cluster"]  # `use_cluster` has it
        return command(*args, **options)

    known = signature(command, eval_str=True).parameters.values()
    added = [Parameter("debug", Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)]
    if choosing:
        added.insert(0, Parameter("cluster", Parameter.KEYWORD_ONLY, default=None, annotation=ClusterOption))
    return with_parameters(shared, [*known, *added])


def turn_debug_on() -> None:
    """Print all our log messages on stderr."""
    import logging

    logger = logging.getLogger(_LOG)
    if logger.level != logging.DEBUG:
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(name)s: %(message)s", "%H:%M:%S"))
        logger.addHandler(lines)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False


def debug_is_on() -> bool:
    """Return whether `--debug` is on."""
    import logging

    return logging.getLogger(_LOG).level == logging.DEBUG
