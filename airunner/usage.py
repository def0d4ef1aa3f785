"""Usage errors of the command line, in one line: what was given, what is allowed, and a command that works."""

from __future__ import annotations

import re
from shlex import join
from typing import TYPE_CHECKING, Any, Final

import typer

from airunner.examples import EXAMPLES
from airunner.protocol.errors import OperatorError
from airunner.protocol.names import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

UsageError: Final[type[Exception]] = typer.BadParameter.__mro__[1]
"""Base class of the parser's usage errors, which typer does not export under this name."""

_SYNONYMS: Final = {
    **dict.fromkeys(("status", "inspect", "describe", "info", "view", "get"), ("show",)),
    **dict.fromkeys(("jobs", "history"), ("list",)),
    **dict.fromkeys(("log", "logs", "output"), ("logs", "monitor")),
    **dict.fromkeys(("attach", "watch", "follow", "tail"), ("monitor",)),
    **dict.fromkeys(("stop", "kill", "rm", "delete", "remove"), ("cancel",)),
    **dict.fromkeys(("enqueue", "add", "start", "create", "exec"), ("submit",)),
    **dict.fromkeys(("rerun", "restart"), ("retry",)),
    **dict.fromkeys(("unpause", "continue"), ("resume",)),
    **dict.fromkeys(("nodes", "workers", "runners"), ("agents",)),
    **dict.fromkeys(("server", "serve"), ("broker",)),
    **dict.fromkeys(("check", "verify"), ("doctor",)),
}
"""Names that other programs have for our commands, with the commands: the first that exists is meant."""

_EXTRA: Final = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)


def usage_error(error: Any, named: str) -> OperatorError:  # noqa: ANN401 - typer does not declare its attributes
    """Convert a usage error of the parser to one line; `named` is the command, in case the error does not say it."""
    kind, problem = type(error).__name__, error.message.rstrip(".")
    if kind == "BadOptionUsage":  # it may have no context
        problem = f"{error.option_name} {'takes no' if 'not take' in problem else 'needs a'} value"
        return OperatorError(f"{problem}; see `airunner {named} --help`")
    path, command = error.ctx.command_path, error.ctx.command
    allowed = f"{path} --help"
    if kind == "NoSuchOption":
        problem = f"there is no option {error.option_name}"
        names = [name for option in command.params for name in (*option.opts, *option.secondary_opts)]
        if near := nearest(error.option_name, names):
            return OperatorError(f"{problem}; did you mean {near}? `{allowed}` lists all")
        if error.ctx.parent is None:
            problem += " before the command: a command's options come after it"
    elif kind == "MissingParameter":
        name = label(error.param)
        example = EXAMPLES.get(path.removeprefix("airunner "), ("",))[0]
        problem = f"{name} is missing, as in `{example}`" if example else f"{name} is missing"
        allowed = allowed if name.startswith("-") else _usage(path, command)
    elif extra := _EXTRA.fullmatch(problem):
        problem, allowed = f"unexpected argument {extra[1]}", _usage(path, command)
    return OperatorError(f"{problem}; see `{allowed}`")


def _usage(path: str, command: Any) -> str:  # noqa: ANN401 - a command of the parser's
    """Format how a command is called."""
    operands = [label(operand) for operand in command.params if not operand.opts[0].startswith("-")]
    return " ".join([path, "[OPTIONS]", *operands])


def label(parameter: Any) -> str:  # noqa: ANN401 - an option or operand of the parser's
    """Return how an option or operand is called in a usage line."""
    flag: str = parameter.opts[0]
    return flag if flag.startswith("-") else parameter.metavar or flag.upper()


def unknown_command(path: str, words: Sequence[str], names: Collection[str]) -> OperatorError:
    """Name the command that the first of `words` most likely means: another program's name for it, or mistyped."""
    word, *operands = words
    near = meant(word, names)
    problem = f"there is no command {path} {word}".replace(" airunner ", " ", 1)
    if near is None:
        return OperatorError(f"{problem}; `{path} --help` lists all")
    kept = [] if any(operand.startswith("-") for operand in operands) else operands
    return OperatorError(f"{problem}; did you mean `{path} {join([near, *kept])}`?")


def meant(word: str, names: Collection[str]) -> str | None:
    """Find the name that a word most likely means: another program's for it, or mistyped; None: none is near."""
    known = [name for name in _SYNONYMS.get(word, ()) if name in names]
    return known[0] if known else nearest(word, names)
