"""Arrays for `unnest`, in PostgreSQL's binary format: written here, because psycopg takes several times as long.

A text cannot contain NUL in PostgreSQL. The few that a peer may choose freely are stored with `NUL_SHOWN` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from struct import Struct as Format
from typing import Any, Final, TypeVar

from airunner.broker.store.rows import JobRow

NUL_SHOWN: Final = "\u2400"
_HEADER: Final = Format("!iiiii")  # dimensions, whether there are NULLs, type of elements, their number, first index
_LENGTH: Final = Format("!i")
_NULL: Final = _LENGTH.pack(-1)
_ELEMENT: Final = Format("!iq")
_BIGINT, _TEXT, BYTEA = 20, 25, 17
T = TypeVar("T")


class Array(bytes):
    """Array in PostgreSQL's binary format; `oid` is its type."""

    oid = 0


class Bigints(Array):
    """Array of type bigint[]; PostgreSQL assigns its elements to integer columns too."""

    oid = 1016


class Texts(Array):
    """Array of type text[]."""

    oid = 1009


class Byteas(Array):
    """Array of type bytea[]."""

    oid = 1001


def bigints(values: Sequence[int | None]) -> Bigints:
    """Convert integers to an array."""
    return Bigints(_array(_BIGINT, values, lambda value: _ELEMENT.pack(8, value)))


def texts(values: Sequence[str | None]) -> Texts:
    """Convert texts to an array."""
    return Texts(_array(_TEXT, values, lambda value: _sized(text(value).encode())))


def byteas(values: Sequence[bytes | None]) -> Byteas:
    """Convert bytes to an array."""
    return Byteas(_array(BYTEA, values, _sized))


def text(value: str) -> str:
    """Convert a text to one that PostgreSQL can store."""
    return value.replace("\0", NUL_SHOWN) if "\0" in value else value


def _sized(element: bytes) -> bytes:
    return _LENGTH.pack(len(element)) + element


def _array(kind: int, values: Sequence[T | None], convert: Callable[[T], bytes]) -> bytes:
    """Convert values to an array; many a column has the same in all rows of a batch, which is converted once."""
    if values and values.count(values[0]) == len(values):
        parts = [_NULL if values[0] is None else convert(values[0])] * len(values)
    else:
        parts = [_NULL if value is None else convert(value) for value in values]
    return _HEADER.pack(1, None in values, kind, len(values), 1) + b"".join(parts)


Column = Callable[[Sequence[Any]], bytes]
_BYTES: Final = ("watch_key", "token_hash", "lease_request", "terminal", "awaits", "dependents", "result", "spec")
COLUMN_OF: Final[dict[str, Column]] = {
    name: byteas if name in _BYTES else bigints if str(kind).startswith("int") else texts
    for name, kind in JobRow.__annotations__.items()
}
"""Kind of array for each column of `job`."""


def columns(rows: Sequence[Any], fields: Sequence[str], kinds: Sequence[Column]) -> list[bytes]:
    """Convert rows to one array for each of these fields."""
    return [kind(list(map(attrgetter(field), rows))) for field, kind in zip(fields, kinds, strict=True)]
