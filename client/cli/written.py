"""Written values of a job file, YAML or JSON: each word as it was typed, with its line.

`on`, `1.10`, `0777` and `2026-01-31` are text for every key that has text. YAML and JSON give such words another
meaning before the key's type is known, so a word is a `Written` here: text, with the meaning that it has where a key
has true, false or nothing; the reader of a number parses the text.

A file is read as JSON if it is JSON, and as YAML otherwise.
"""

from __future__ import annotations

import codecs
from typing import Final, NoReturn, Self

from airunner.protocol.errors import OperatorError

DEPTH_MAX: Final = 32  # of lists and mappings in each other: a job file has three
_MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_JSON_BEGINS: Final = ('{"', '["', "{}", "[]")
_TOO_DEEP: Final = f"more than {DEPTH_MAX} lists and mappings are nested here"


class Written(str):
    """Written word, its line, and its meaning: true, false or nothing, and otherwise the text itself."""

    __slots__ = ("line", "meaning")

    line: int
    meaning: object

    def __new__(cls, text: str, line: int, *meaning: object) -> Self:
        """Make text with a line; its meaning is the text unless one is given."""
        made = super().__new__(cls, text)
        made.line = line
        [made.meaning] = meaning or (text,)
        return made


class Entries(dict[Written, object]):
    """Mapping of a file, and the line on which it begins. `add` refuses a key that is there already."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line

    def add(self, key: Written, value: object) -> None:
        """Add an entry. Raises `OperatorError` for a duplicate key."""
        if key in self:
            first = next(known for known in self if known == key)
            refuse(key.line, f"the key {str(key)!r} is here again; it is in line {first.line} already")
        self[key] = value


class Items(list[object]):
    """List of a file, and the line on which it begins."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class MiswrittenError(Exception):
    """Part of a file that cannot be read: its line and the problem."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem


def refuse(line: int, problem: str) -> NoReturn:
    """Raise `MiswrittenError`."""
    raise MiswrittenError(line, problem)


def load(raw: bytes, file: str) -> object:
    """Load a document: `Written` words, `Entries` and `Items`. Raises `OperatorError` with `file` and the line."""
    from airunner.client.cli import jsondocument, yamldocument

    try:
        text = _decoded(raw)
        try:
            return jsondocument.parse(text, DEPTH_MAX)
        except jsondocument.NotJsonError as error:
            if "".join(text.split()).startswith(_JSON_BEGINS):
                try:
                    return yamldocument.parse(text)  # a comma too many, or a comment: YAML permits these
                except MiswrittenError:
                    refuse(error.line, f"this is not JSON: {error.problem}")
            return yamldocument.parse(text)
    except MiswrittenError as error:
        raise OperatorError(f"{file}, line {error.line}: {error.problem}") from error
    except RecursionError as error:
        raise OperatorError(f"{file}: {_TOO_DEEP}; a job file has three") from error


def meaning_of(value: object) -> object:
    """Return the meaning of a `Written`, and any other value as it is."""
    return value.meaning if isinstance(value, Written) else value


def line_of(value: object) -> int:
    """Return the line of a value; 0 if it has none."""
    return value.line if isinstance(value, (Written, Entries, Items)) else 0


def _decoded(raw: bytes) -> str:
    """Decode a file: UTF-8, or UTF-16 if its byte order mark says so."""
    mark, encoding = next((known for known in _MARKS if raw.startswith(known[0])), (b"", "utf-8"))
    try:
        return raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, len(mark) + error.start) + 1
        refuse(line, f"byte {error.object[error.start]:#04x} is not text in {encoding.upper()}")
