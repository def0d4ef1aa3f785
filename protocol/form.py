"""Field of a job as people see it: its help, and the form in which they write its value. The table is `fields`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, StrEnum
from typing import Any, get_args

from msgspec import Meta, Struct

from airunner.protocol.jobretry import RETRIES_MAX


class Form(Enum):
    """Notation of a field's value: its metavar as an option, and what is expected in a job file."""

    TEXT = "TEXT", "text"
    CHOICE = "", ""  # metavar and expectation are `Field.choices`
    SIGNAL = "SIGNAL", ""  # a choice too: SIG may stand before it
    NUMBER = "NUMBER", "a whole number"
    SWITCH = "", "true or false"
    WORDS = "NAME", "a list of texts such as [test, --fast]"
    PAIRS = "NAME=VALUE", "names and texts such as {LEVEL: high}"
    DURATION = "SECONDS", "whole seconds, or a duration such as 1h30m"
    INSTANT = "INSTANT", "an instant such as 2027-01-31T03:00:00Z, a time from now such as +10m, or ms since the epoch"
    EXPIRY = "DURATION|INSTANT", "a duration such as 2h, or an instant such as 2027-01-31T03:00:00Z"
    CACHES = "CACHE", "a list such as [go] or [{name: go, paths: [~/.cache/go-build], key: [go.sum]}]"
    SIZE = "COLSxROWS", "a size such as 120x40 or {cols: 120, rows: 40}"
    RETRY = (
        "NUMBER",
        f"a number up to {RETRIES_MAX}, or {{limit: 3, on: [75, SIGKILL, timeout], backoff: 1, maxBackoff: 300}}",
    )

    def __init__(self, metavar: str, expected: str) -> None:
        self.metavar = metavar
        self.expected = expected


class Field(Struct, frozen=True):
    """Job field as people see it; `FIELDS` fills in what is left empty here."""

    help: str
    form: Form = Form.TEXT
    flag: str = ""  # by default from the name, such as `--max-attempts`; without dashes it is an operand
    also: tuple[str, ...] = ()  # other spellings of the option, such as `-e`
    key: str = ""  # key in a job file; by default from the name, such as `maxAttempts`
    unset: str = ""  # meaning of an unset field, in words; by default from the field's default
    metavar: str = ""
    exported: bool = False  # whether the job gets the value in a variable, such as `AIRUNNER_QUEUE`
    plain: bool = False  # whether new jobs may have only visible characters in this text, or in its names of pairs
    show: Callable[[Any], str] | None = None  # formats a `JobSpec` in `show`; by default the form's printer does
    more: tuple[Field, ...] = ()  # further options of this field: each gives its value (`means`) or a `part` of it
    means: str = ""  # value that this option gives the field, as --pty gives `process_type` the value pty
    part: str = ""  # key of the field's mapping that this option sets, as --retry-on sets `on` of `retry`
    name: str = ""
    type: Any = str
    default: object = ""

    @property
    def label(self) -> str:
        """Name in `show`, such as `max attempts`."""
        return re.sub("[A-Z]", lambda match: f" {match[0].lower()}", self.key)

    @property
    def variable(self) -> str:
        """Variable in which the job finds an exported field."""
        return f"AIRUNNER_{self.name.upper()}"

    @property
    def expected(self) -> str:
        """Values that people may write, in words: "pipe or pty", or "a whole number from 1 to 1000000 (0: all)"."""
        of = f" from {self.bounds[0]} to {self.bounds[1]}" if self.form is Form.NUMBER and self.bounds else ""
        bounded = of or self.form is Form.DURATION
        zero = f" (0: {self.unset})" if self.unset and bounded and self.default != 0 else ""
        return " or ".join(self.choices) or f"{self.form.expected}{of}{zero}"

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Smallest and greatest number that the type allows; None: it is not bounded."""
        for part in types_in(self.type):
            if isinstance(part, Meta) and part.ge is not None and part.le is not None:
                return int(part.ge), int(part.le)
        return None

    @property
    def choices(self) -> tuple[str, ...]:
        """Values to choose from, if the type is an enum."""
        enums = [part for part in types_in(self.type) if isinstance(part, type) and issubclass(part, StrEnum)]
        return tuple(word for enum in enums for word in enum)


def types_in(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - an annotation is anything
    """Yield the types and metadata of which an annotation is made."""
    yield annotation
    for part in get_args(annotation):
        yield from types_in(part)
