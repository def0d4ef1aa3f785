"""Table of the benchmark as text: 80 columns of plain characters, for a terminal and for a pipe. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from bench.figures import Bound, Row

COLUMNS: Final = 80
NAME: Final = 34  # columns of a figure's name and unit
DIGITS: Final = 3
MET: Final = {True: "yes", False: "NO", None: ""}


def number(value: float | None) -> str:
    """Format a number with `DIGITS` digits, or all of an integer part."""
    if value is None:
        return "-"
    whole = str(int(abs(value))).lstrip("0")
    return f"{value:,.{max(0, DIGITS - len(whole))}f}"


def table(measured: Sequence[Row], base: str = "") -> Iterator[str]:
    """Format the rows; with `base`, the name of a revision, beside what that revision reached."""
    third, fourth = (base, "to base") if base else ("reference", "ratio")
    yield f"{'figure':{NAME}}{'measured':>10}{'target':>12}{third:>11}{fourth:>8}  met"
    group = ""
    for row in measured:
        if row.group != group:
            group = row.group
            yield group
        target = f"{row.bound} {number(row.target)}" if row.bound is not Bound.NONE else ""
        beside, ratio = (row.base, row.to_base) if base else (row.reference, row.ratio)
        line = f"  {f'{row.name}, {row.unit}':{NAME - 2}}{number(row.value):>10}{target:>12}"
        yield f"{line}{number(beside):>11}{number(ratio):>8}  {MET[row.met]}".rstrip()


def beside(measured: Sequence[Row]) -> Iterator[str]:
    """Format the rows of several groups that measured the same figures: a column for each group."""
    groups = list(dict.fromkeys(row.group for row in measured))
    values = {(row.group, row.name): row.value for row in measured}
    yield f"{'figure':{NAME}}" + "".join(f"{group:>12}" for group in groups)
    for name, unit in dict.fromkeys((row.name, row.unit) for row in measured):
        yield f"{f'{name}, {unit}':{NAME}}" + "".join(f"{number(values.get((group, name))):>12}" for group in groups)


def references(measured: Sequence[Row]) -> dict[str, list[str]]:
    """List what the references are, each with the names of its figures, or of the group if it is that of them all."""
    of_group: dict[str, set[str]] = {}
    for row in measured:
        of_group.setdefault(row.group, set()).update(filter(None, [row.reference_is]))
    named: dict[str, dict[str, None]] = {}
    for row in measured:
        if row.reference_is:
            name = row.name if len(of_group[row.group]) > 1 else row.group
            named.setdefault(row.reference_is, {})[name] = None
    return {reference: [*names] for reference, names in named.items()}


def legend(measured: Sequence[Row]) -> Iterator[str]:
    """Format what the references are, one paragraph for each."""
    named = references(measured)
    if named:
        yield "references, measured in the same rounds:"
    for reference, names in named.items():
        text = f"{'; '.join(names)}: {reference}"
        yield from textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="    ")


def missed(measured: Sequence[Row]) -> list[str]:
    """List the figures whose targets are missed."""
    return [f"{row.group}: {row.name}" for row in measured if row.met is False]
