"""Arrays for `unnest`, in PostgreSQL's binary format: written here, because psycopg takes several times as long.

A text cannot contain NUL in PostgreSQL. The few that a peer may choose freely are stored with `NUL_SHOWN` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import attrgetter
from struct import Struct as Format
from struct import pack
from typing import Any, Final

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format as WireFormat

from airunner.broker.store.rows import JobRow

NUL_SHOWN: Final = "\u2400"
_HEADER: Final = Format("!iiiii")  # dimensions, whether there are NULLs, type of elements, their number, first index
_LENGTH: Final = Format("!i")
_NULL: Final = _LENGTH.pack(-1)
_BIGINT: Final = Format("!iq")
_BIGINT_TYPE, _TEXT_TYPE, _BYTEA_TYPE = 20, 25, 17


class Bigints(bytes):
    """Array of type bigint[]; PostgreSQL assigns its elements to integer columns too."""


class Texts(bytes):
    """Array of type text[]."""


class Byteas(bytes):
    """Array of type bytea[]."""


def bigints(values: Sequence[int | None]) -> Bigints:
    """Convert integers to an array."""
    if None in values:
        parts = [_NULL if value is None else _BIGINT.pack(8, value) for value in values]
        return Bigints(_HEADER.pack(1, 1, _BIGINT_TYPE, len(values), 1) + b"".join(parts))
    elements: Iterable[Any] = chain.from_iterable(zip(repeat(8), values, strict=False))
    return Bigints(pack("!iiiii" + "iq" * len(values), 1, 0, _BIGINT_TYPE, len(values), 1, *elements))


def texts(values: Sequence[str | None]) -> Texts:
    """Convert texts to an array."""
    encoded = [None if value is None else text(value).encode() for value in values]
    return Texts(_elements(_TEXT_TYPE, encoded))


def byteas(values: Sequence[bytes | None]) -> Byteas:
    """Convert bytes to an array."""
    return Byteas(_elements(_BYTEA_TYPE, values))


def text(value: str) -> str:
    """Convert a text to one that PostgreSQL can store."""
    return value.replace("\0", NUL_SHOWN) if "\0" in value else value


def _elements(kind: int, values: Sequence[bytes | None]) -> bytes:
    parts = [_NULL if value is None else _LENGTH.pack(len(value)) + value for value in values]
    return _HEADER.pack(1, None in values, kind, len(values), 1) + b"".join(parts)


Column = Callable[[Sequence[Any]], bytes]
_BYTES_FIELDS: Final = ("watch_key", "token_hash", "lease_request", "result", "spec")
COLUMN_OF: Final[dict[str, Column]] = {
    name: byteas if name in _BYTES_FIELDS else bigints if str(kind).startswith("int") else texts
    for name, kind in JobRow.__annotations__.items()
}
"""Kind of array for each column of `job`."""


def columns(rows: Sequence[Any], fields: Sequence[str], kinds: Sequence[Column]) -> list[bytes]:
    """Convert rows to one array for each of these fields."""
    return [kind(list(map(attrgetter(field), rows))) for field, kind in zip(fields, kinds, strict=True)]


class _Dumper(Dumper):
    format = WireFormat.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _BigintsDumper(_Dumper):
    oid = 1016


class _TextsDumper(_Dumper):
    oid = 1009


class _ByteasDumper(_Dumper):
    oid = 1001


def register(connection: Connection[Any]) -> None:
    """Register the arrays as parameters (`%b`) of a connection's statements."""
    for kind, dumper in ((Bigints, _BigintsDumper), (Texts, _TextsDumper), (Byteas, _ByteasDumper)):
        connection.adapters.register_dumper(kind, dumper)
