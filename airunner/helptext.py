"""Help of a command: what it does, its operands and options, and its examples, as wide as the terminal.

An option is shown with its variable, its default and its bounds: `[AIRUNNER_SPAWN; default: 4; 1 to 256]`. The pages of
`reference` are made of the same `Description`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from airunner.commandtable import width_shown, wrapped
from airunner.examples import EXAMPLES
from airunner.usage import label

_KINDS: Final = {int: "NUMBER", float: "NUMBER", Path: "PATH"}
COLUMN_MAX: Final = 30  # of the texts beside names; a longer name has a line of its own
NARROW: Final = 60  # columns below which each text is under its name
INDENT: Final = 6  # of such a text


class Option(NamedTuple):
    """Option of a command, or an operand: how it is spelled, and what its help says."""

    names: str
    help: str
    default: str
    variable: str
    bounds: str

    @property
    def text(self) -> str:
        """Help with variable, default and bounds behind it."""
        more = "; ".join(filter(None, (self.variable, self.default and f"default: {self.default}", self.bounds)))
        return f"{self.help} [{more}]" if more else self.help


class Description(NamedTuple):
    """Description of a command: its name, usage, the paragraphs of its help, operands, options and examples."""

    name: str
    usage: str
    paragraphs: Sequence[str]
    operands: Sequence[Option]
    options: Sequence[Option]
    examples: Sequence[str]


def described(command: Any, name: str, ctx: Any) -> Description:  # noqa: ANN401 - of the parser's, whose classes typer hides
    """Describe the command of this name, such as `certs init`."""
    operands = [each for each in command.params if not hasattr(each, "is_flag")]
    named = [
        Option(_spelled(each), _line(each.help), default_of(each, ctx), str(each.envvar or ""), _bounds(each))
        for each in command.get_params(ctx)
        if hasattr(each, "is_flag") and not each.hidden
    ]
    usage = " ".join((ctx.command_path, "[OPTIONS]", *(_plain(each) for each in operands)))
    paragraphs = [_line(part) for part in (command.help or "").split("\n\n")]
    plain = [Option(label(each), _line(each.help), "", "", "") for each in operands]
    return Description(name, usage, paragraphs, plain, named, EXAMPLES.get(name, ()))


def help_of(command: Any, name: str, ctx: Any) -> str:  # noqa: ANN401 - likewise
    """Return the help of a command; each example is in a line of its own at every width, so that it can be copied."""
    width = width_shown()
    found = described(command, name, ctx)
    lines = [*_usage(found.usage, width), *_paragraphs(found.paragraphs, width)]
    for heading, options in (("Arguments", found.operands), ("Options", found.options)):
        if options:
            lines += ["", f"{heading}:", *_listed([(each.names, each.text) for each in options], width)]
    if found.examples:
        lines += ["", "Examples:", *(f"  {line}" for line in found.examples)]
    return "\n".join(lines)


def group_help(group: Any, ctx: Any) -> str:  # noqa: ANN401 - likewise
    """Return the help of a group of commands, with the whole first sentence of each."""
    width = width_shown()
    rows = [(name, f"{first_sentence(each.help or '')}.") for name, each in group.commands.items()]
    usage = f"{ctx.command_path} COMMAND [ARGUMENTS]"
    lines = [*_usage(usage, width), *_paragraphs([_line(group.help)], width), "", "Commands:", *_listed(rows, width)]
    path = ctx.command_path
    return "\n".join((*lines, "", *wrapped("", f"`{path} COMMAND --help` describes a command.", width)))


def first_sentence(text: str) -> str:
    """Return the first sentence of a command's help."""
    return _line(text.partition("\n\n")[0]).partition(". ")[0].removesuffix(".")


def default_of(option: Any, ctx: Any) -> str:  # noqa: ANN401 - likewise
    """Return an option's default in words; empty: it has none, or is a switch that is off."""
    if isinstance(option.show_default, str):
        return str(option.show_default)
    value = option.get_default(ctx, call=False)
    if value is None or value in ((), []) or (option.is_flag and not option.secondary_opts):
        return ""
    return ("yes" if value else "no") if option.is_flag else str(value)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _usage(usage: str, width: int) -> list[str]:
    return wrapped("Usage: ", usage, width)


def _paragraphs(paragraphs: Sequence[str], width: int) -> Iterator[str]:
    for paragraph in paragraphs:
        yield ""
        yield from wrapped("  ", paragraph, width)


def _listed(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield the lines of names, each with its text beside it, or below it where there is no room."""
    column = min(COLUMN_MAX, max(len(name) for name, _ in rows) + 4)
    if width < NARROW:
        column = INDENT
    for name, text in rows:
        head = f"  {name}"
        if len(head) + 2 > column:
            yield from wrapped("  ", name, width)
            head = ""
        yield from wrapped(head.ljust(column), text, width)


def _spelled(option: Any) -> str:  # noqa: ANN401 - likewise
    """Return the spellings of an option, short ones first, and what it takes."""
    names = [", ".join(sorted(each, key=len)) for each in (option.opts, option.secondary_opts) if each]
    return " / ".join(names) if option.is_flag else f"{names[0]} {option.metavar or _kind(option)}"


def _kind(option: Any) -> str:  # noqa: ANN401 - likewise
    """Return what an option takes: NUMBER, PATH, TEXT or one of several words."""
    annotation: Any = getattr(getattr(option, "type_descriptor", None), "annotation", str)
    kind: Any = (get_args(annotation) or (annotation,))[0]
    if words := getattr(kind, "__members__", None):  # an enumeration
        return "|".join(str(word).lower() for word in words.values())
    return _KINDS.get(kind, "TEXT")


def _bounds(option: Any) -> str:  # noqa: ANN401 - likewise
    """Return the bounds of a number in words, and whether the option is required."""
    info = getattr(getattr(option, "type_descriptor", None), "parameter_info", None)
    least, most = getattr(info, "min", None), getattr(info, "max", None)
    if option.required:
        return "required"
    return "" if least is None else f"{least} or more" if most is None else f"{least} to {most}"


def _plain(operand: Any) -> str:  # noqa: ANN401 - likewise
    """Return an operand as it is called in a usage line."""
    name = label(operand)
    return name if operand.required or name.startswith("[") else f"[{name}]"
