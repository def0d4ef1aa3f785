"""Help of a command: its operands and options by the kind of their values, its summary and its examples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from airunner.examples import EXAMPLES
from airunner.usage import label

_KINDS: Final = {int: "NUMBER", float: "NUMBER", Path: "PATH"}


def complete_help(command: Any, name: str) -> None:  # noqa: ANN401 - a command of the parser's, whose classes typer hides
    """Complete the help of the command of this name, such as `certs init`, with its examples and plain kinds of values.

    Typer would show Python's types, and operands in braces.
    """
    for parameter in command.params:
        if hasattr(parameter, "is_flag"):
            parameter.metavar = parameter.metavar or _kind(parameter)
        else:
            _show_plainly(parameter)
    if name in EXAMPLES:
        command.format_epilog = partial(_write_examples, EXAMPLES[name])


def first_sentence(text: str) -> str:
    """Return the first sentence of a command's help."""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].removesuffix(".")


def _write_examples(lines: Sequence[str], _context: Any, formatter: Any) -> None:  # noqa: ANN401 - likewise
    """Write examples, each in a line of its own at every width, so that it can be copied."""
    with formatter.section("Examples"):
        formatter.write("".join(f"  {line}\n" for line in lines))


def _kind(option: Any) -> str | None:  # noqa: ANN401 - likewise
    """Return what an option takes: NUMBER, PATH, TEXT or one of several words; None: an older typer says it itself."""
    if not hasattr(option, "type_descriptor"):
        return None
    annotation: Any = option.type_descriptor.annotation
    kind: Any = (get_args(annotation) or (annotation,))[0]
    if words := getattr(kind, "__members__", None):  # an enumeration
        return "|".join(str(word).lower() for word in words.values())
    return _KINDS.get(kind, "TEXT")


def _show_plainly(operand: Any) -> None:  # noqa: ANN401 - likewise
    """Show an operand in the help as it is called in a usage line, and no type behind it."""
    name = operand.metavar = label(operand)
    plain = name if operand.required or name.startswith("[") else f"[{name}]"
    operand.display_type_rich = _no_type
    operand._usage_display_name = lambda: plain  # noqa: SLF001 - typer has no setting for it


def _no_type(ctx: Any) -> None:  # noqa: ANN401 - likewise
    """Return no type, where typer would return an operand's."""
