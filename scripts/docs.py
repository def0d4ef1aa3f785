"""Generated documentation, `make docs`: writes tables and diagrams from the code into pages, between two comments.

One page is code, protocol/jobfields.py: its class `JobFields` repeats the table of job fields for type checkers.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httppage
import msgspec
import packages
import pythonpage
from msgspec import inspect

from airunner.agent.metrics import METRICS as AGENT_METRICS
from airunner.broker.metrics import METRICS
from airunner.commandline import commands
from airunner.protocol.fields import FIELDS
from airunner.protocol.form import Field
from airunner.protocol.names import MILLISECONDS_MAX, NAME_PATTERN, TEXT_CHARS_MAX, VARIABLE_PATTERN
from airunner.protocol.states import mermaid
from airunner.reference import exit_codes, markdown, variables
from airunner.transport.metric import Metric
from airunner.variables import setting_of
from bench.figures import Row
from bench.results import Report
from bench.table import MET, number, references

ROOT: Final = Path(__file__).resolve().parents[1]
BASELINE: Final = ROOT / "bench" / "baseline.json"  # written by `make bench` on a machine with nothing else to do


class Piece(NamedTuple):
    """Generated part of a page, between the comments `begin` and `end`; `write` returns its text."""

    page: str
    name: str
    write: Callable[[], str]

    @property
    def begin(self) -> str:
        """Comment before the piece."""
        return self._mark(f"{self.name}: written by `make docs`")

    @property
    def end(self) -> str:
        """Comment after the piece."""
        return self._mark(f"end of {self.name}")

    def _mark(self, text: str) -> str:
        return f"    # {text}\n" if self.page.endswith(".py") else f"<!-- {text} -->\n"

    def written(self, page: str) -> str:
        """Return the text `page` with this piece generated again."""
        assert self.begin in page, f"{self.page} has no comment where {self.name} begins"
        assert self.end in page, f"{self.page} has no comment where {self.name} ends"
        before, _, rest = page.partition(self.begin)
        _, _, after = rest.partition(self.end)
        return f"{before}{self.begin}{self.write()}\n{self.end}{after}"


def states() -> str:
    """Draw the diagram of a job's states."""
    return f"```mermaid\n{mermaid()}\n```"


def job_file() -> str:
    """Write the table of a job file's keys and the options for them."""
    return _table("key", "option", "value", "default", "what it says", rows=map(_key_row, FIELDS.values()))


def job_spec() -> str:
    """Write the table of the fields of a job spec."""
    return _table("field", "type", "default", "", rows=map(_field_row, FIELDS.values()))


def job_fields() -> str:
    """Write the fields of a job spec with the types that callers may give."""
    return "\n".join(f"    {field.name}: {_given(inspect.type_info(field.type))}" for field in FIELDS.values())


def settings() -> str:
    """Write the names of settings: those of all options with a variable."""
    names = {setting_of(option) for _, command, _ in commands() for option in command.params} - {""}
    text = textwrap.fill(" ".join(sorted(names)), 110, break_on_hyphens=False)
    return textwrap.indent(f'"""\n{text}\n""".split()  # noqa: SIM905 - words', "    ")


def imports() -> str:
    """Draw the diagram of packages and their imports."""
    return f"```mermaid\n{packages.mermaid()}\n```"


def figures() -> str:
    """Write the table of the benchmark's figures, as `make bench` wrote them to `BASELINE`."""
    rows = msgspec.json.decode(BASELINE.read_bytes(), type=Report).figures
    table = _table("", "figure", "measured", "target", "reference", "ratio", "met", rows=map(_figure_row, rows))
    lines = [f"- {'; '.join(names)}: {reference}" for reference, names in references(rows).items()]
    return "\n".join((table, "", "The references:", "", *lines))


def broker_metrics() -> str:
    """Write the table of the broker's metrics."""
    return _metrics(METRICS)


def agent_metrics() -> str:
    """Write the table of the agent's metrics."""
    return _metrics(AGENT_METRICS)


PIECES: Final = (
    Piece("docs/ARCHITECTURE.md", "packages", imports),
    Piece("docs/ARCHITECTURE.md", "states", states),
    Piece("docs/METRICS.md", "broker metrics", broker_metrics),
    Piece("docs/METRICS.md", "agent metrics", agent_metrics),
    Piece("docs/PERFORMANCE.md", "figures", figures),
    Piece("docs/PROTOCOL.md", "job spec", job_spec),
    Piece("docs/reference/http-api.md", "statuses", httppage.statuses),
    Piece("docs/reference/http-api.md", "operations", httppage.operations),
    Piece("docs/reference/job-file.md", "job file", job_file),
    Piece("docs/reference/python.md", "methods", pythonpage.methods),
    Piece("docs/reference/python.md", "events", pythonpage.events),
    Piece("docs/reference/python.md", "errors", pythonpage.errors),
    Piece("protocol/jobfields.py", "job fields", job_fields),
    Piece("client/settings.py", "settings", settings),
    Piece("docs/reference/commands.md", "commands", markdown),
    Piece("docs/reference/command-line.md", "variables", variables),
    Piece("docs/reference/command-line.md", "exit codes", exit_codes),
)


def main() -> int:
    """Write all pieces into their pages."""
    for piece in PIECES:
        page = ROOT / piece.page
        page.write_text(piece.written(page.read_text()))
    return 0


def _table(*headings: str, rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (headings, *rows)]
    return "\n".join((lines[0], f"|{'---|' * len(headings)}", *lines[1:]))


def _key_row(field: Field) -> tuple[str, ...]:
    options = ", ".join(f"`{option.flag}`" for option in (field, *field.more))
    return f"`{field.key}`", options, field.expected, field.unset, _help(field)


def _metrics(metrics: Iterable[Metric]) -> str:
    return _table("metric", "kind", "labels", "", rows=map(_metric_row, metrics))


def _metric_row(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"`{metric.shown_name}`", metric.kind.name.lower(), labels, metric.help


def _figure_row(row: Row) -> tuple[str, ...]:
    target = f"{row.bound} {number(row.target)}" if row.target is not None else ""
    reference = number(row.reference) if row.reference is not None else ""
    ratio = number(row.ratio) if row.ratio is not None else ""
    return row.group, f"{row.name}, {row.unit}", number(row.value), target, reference, ratio, MET[row.met]


def _field_row(field: Field) -> tuple[str, ...]:
    default = field.default
    if default is msgspec.NODEFAULT:
        text = "required"
    elif default is None or isinstance(default, msgspec.Struct):
        text = field.unset or "none"
    else:
        text = f"`{msgspec.json.encode(default).decode()}`"
    return f"`{field.name}`", _type(inspect.type_info(field.type)), text, _help(field)


def _help(field: Field) -> str:
    found = f" The job finds it in `{field.variable}`." if field.exported else ""
    return re.sub(r"`?(\bPATH\b|\bHEAD\b)`?", r"`\1`", field.help) + found


def _type(type_: Any) -> str:  # noqa: ANN401 - a class of msgspec's for each kind of type
    """Describe the type of a field in words."""
    match type_:
        case inspect.Metadata():
            return _type(type_.type)
        case inspect.UnionType():
            return " or ".join(_type(part) for part in type_.types if not isinstance(part, inspect.NoneType))
        case inspect.BoolType():
            return "`true` or `false`"
        case inspect.IntType():
            return _integer(type_.ge, type_.le)
        case inspect.StrType():
            return _text(type_)
        case inspect.EnumType():
            return " or ".join(f'`"{word}"`' for word in type_.cls)
        case inspect.VarTupleType():
            return f"array of up to {_number(type_.max_length)}: {_type(type_.item_type)}"
        case inspect.DictType():
            return f"map of up to {_number(type_.max_length)}: {_type(type_.key_type)} → {_type(type_.value_type)}"
        case inspect.StructType():
            return f"`{{{', '.join(field.name for field in type_.fields)}}}`, see below"
        case _:
            raise AssertionError(f"no description for {type_}")


def _given(type_: Any) -> str:  # noqa: ANN401 - as above
    """Write the annotation of a type that callers may give: any sequence for a tuple, also a string for an enum."""
    match type_:
        case inspect.Metadata():
            return _given(type_.type)
        case inspect.UnionType():
            return " | ".join(map(_given, type_.types))
        case inspect.EnumType():
            return f"{type_.cls.__name__} | str"
        case inspect.VarTupleType():
            return f"Sequence[{_given(type_.item_type)}]"
        case inspect.DictType():
            return f"Mapping[{_given(type_.key_type)}, {_given(type_.value_type)}]"
        case inspect.StructType():
            return type_.cls.__name__
        case inspect.BoolType() | inspect.IntType() | inspect.StrType() | inspect.NoneType():
            return type(type_).__name__.removesuffix("Type").lower().replace("none", "None")
        case _:
            raise AssertionError(f"no annotation for {type_}")


def _integer(least: Any, most: Any) -> str:  # noqa: ANN401 - an integer or none, by the type's own bounds
    if most == MILLISECONDS_MAX:
        return "positive" if least else "natural"
    return f"{_number(least)} to {_number(most)}"


def _text(type_: inspect.StrType) -> str:
    named = {NAME_PATTERN: "name", VARIABLE_PATTERN: "name of a variable"}.get(type_.pattern or "")
    if named or type_.max_length in (None, TEXT_CHARS_MAX):
        return named or "text"
    least = f"{type_.min_length} to" if type_.min_length else "up to"
    return f"text, {least} {_number(type_.max_length)} characters"


def _number(number: Any) -> str:  # noqa: ANN401 - the bounds of msgspec's types
    """Format a number with a space between thousands."""
    return f"{number:,}".replace(",", " ")


if __name__ == "__main__":
    sys.exit(main())
