"""Sources of a job's fields: the option, or the line and key of a job file, by which errors call each field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airunner.protocol.fields import FIELDS

STDIN_FILE: Final = "-"  # file of an option that is standard input


class Sources:
    """Sources of the fields that were read, and hints at likely mistakes; `program` names the command in errors."""

    def __init__(self, program: str = "airunner submit") -> None:
        self.program = program
        self.hints: list[str] = []
        self._labels: dict[tuple[str, object], str] = {}

    def note_file(self, name: str, file: str, line: int, lines: Iterable[tuple[object, int]] = ()) -> None:
        """Note that a field, and each of its parts in `lines`, comes from a line of a job file."""
        key = FIELDS[name].key
        self._labels[name, None] = f"{file}, line {line}: {key}"
        self._labels |= {(name, part): f"{file}, line {at}: {key}" for part, at in lines}

    def note_option(self, name: str, label: str, parts: Iterable[object] = (None,)) -> None:
        """Note that a field comes from an option or operand; with `parts`, that only these names of pairs do."""
        self._labels |= {(name, part): label for part in parts}

    def label(self, name: str, part: object = None) -> str:
        """Return how errors call a field, or the named part of it."""
        return self._labels.get((name, part)) or self._labels.get((name, None)) or FIELDS[name].flag
