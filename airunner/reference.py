"""Reference of the commands: their options, defaults, variables and examples, as pages of Markdown and of `man`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from airunner.commandtable import GROUPS, SUMMARY
from airunner.helptext import Description, described, first_sentence
from airunner.topics import EXIT_CODES, VARIABLES

SECTION: Final = "1"  # of the manual: commands


def reference() -> Iterator[Description]:
    """Yield the description of each command of the table."""
    from airunner.commandline import commands

    for name, command, ctx in commands():
        yield described(command, name, ctx)


def markdown() -> str:
    """Return the reference of all commands, by group."""
    found = {first: list(each) for first, each in groupby(reference(), lambda command: command.name.split()[0])}
    blocks: list[str] = []
    for heading, entries in GROUPS.items():
        blocks.append(f"## {heading}")
        for name in entries:
            blocks += [block for command in found.get(name, ()) for block in _section(command)]
    return "\n\n".join(blocks)


def exit_codes() -> str:
    """Return the table of exit codes in Markdown."""
    return "\n".join(("| exit code | meaning |", "|---|---|", *(f"| {code} | {text} |" for code, text in EXIT_CODES)))


def variables() -> str:
    """Return the table of variables that are no option's in Markdown."""
    rows = (f"| `{'`, `'.join(name.split(', '))}` | {meaning} | {default} |" for name, meaning, default in VARIABLES)
    return "\n".join(("| variable | meaning | default |", "|---|---|---|", *rows))


def _section(command: Description) -> Iterator[str]:
    yield f"### airunner {command.name}"
    yield from map(_cell, command.paragraphs)
    yield f"```sh\n{command.usage}\n```"
    if command.operands:
        yield _table(("operand", "what it is"), [(f"`{each.names}`", each.help) for each in command.operands])
    rows = [
        (f"`{each.names}`", each.help, each.default, each.variable and f"`{each.variable}`")
        for each in command.options
        if each.names != "-h, --help"
    ]
    yield _table(("option", "what it does", "default", "variable"), rows)
    yield "Examples:\n\n```sh\n" + "\n".join(command.examples) + "\n```"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [re.sub(r"(?<=\|)  (?=\|)", " ", f"| {' | '.join(map(_cell, row))} |") for row in (headings, *rows)]
    return "\n".join((lines[0], f"|{'---|' * len(headings)}", *lines[1:]))


def _cell(text: str) -> str:
    """Escape what Markdown would take for its own: a bar ends a cell, and < begins a tag; code stays."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<*_\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def descriptions() -> dict[str, Description]:
    """Return the descriptions of all commands by name: this builds the whole command line, so do it once."""
    return {command.name: command for command in reference()}


def manual(name: str, version: str, found: Mapping[str, Description]) -> str:
    """Return the page of `man` for a command, or for `airunner` itself if the name is empty."""
    title = "-".join(("airunner", *name.split()))
    lines = [f'.TH "{title.upper()}" "{SECTION}" "" "airunner {version}" "airunner"', ".SH NAME"]
    if not name:
        lines += [f"airunner \\- {_roff(SUMMARY)}", ".SH SYNOPSIS", ".B airunner", "COMMAND [ARGUMENTS]"]
        for heading, entries in GROUPS.items():
            lines.append(f".SH {_roff(heading.upper())}")
            for each, entry in entries.items():
                if entry.line:
                    lines += [".TP", f".B {_roff(each)}", _roff(f"{entry.line}.")]
        lines += _listed("ENVIRONMENT", [(each, f"{text}.") for each, text, _ in VARIABLES])
        lines += _listed("EXIT STATUS", EXIT_CODES)
        lines += [".SH SEE ALSO", ", ".join(f"airunner\\-{_roff('-'.join(each.split()))}(1)" for each in found)]
        return "\n".join(lines) + "\n"
    command = found[name]
    lines += [f"{_roff(title)} \\- {_roff(first_sentence(command.paragraphs[0]))}"]
    lines += [".SH SYNOPSIS", _roff(command.usage), ".SH DESCRIPTION"]
    lines += [line for paragraph in command.paragraphs for line in (".PP", _roff(paragraph))]
    for heading, options in (("ARGUMENTS", command.operands), ("OPTIONS", command.options)):
        lines += _listed(heading, [(each.names, each.text) for each in options])
    lines += [".SH EXAMPLES", ".nf", *map(_roff, command.examples), ".fi"]
    lines += [".SH SEE ALSO", "airunner(1), which has the exit codes"]
    return "\n".join(lines) + "\n"


def _listed(heading: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = [line for name, text in rows for line in (".TP", f".B {_roff(name)}", _roff(text))]
    return [f".SH {heading}", *lines] if lines else []


def _roff(text: str) -> str:
    """Escape text for roff, so that no line of it is a request and each character is itself."""
    text = (
        re.sub(r"[`*]", "", text).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    )
    text = text.replace("~", "\\(ti").replace("…", "\\[u2026]").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith(".") else text


def pages() -> Iterator[str]:
    """Yield the names of the manual's pages: of `airunner` itself an empty one."""
    from airunner.commandline import commands

    yield ""
    yield from (name for name, _, _ in commands())
