"""Rows of SQLite as typed tuples: what comes out of the database is checked once, where it comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import msgspec

Row = TypeVar("Row", bound=NamedTuple)
Values = tuple[int | float | str | bytes | None, ...]


class Rows(Protocol):
    """What a statement found."""

    @property
    def get(self) -> object:
        """The only value of the only row; None where there is no row."""
        ...

    def fetchone(self) -> object:
        """The next row, or None."""
        ...

    def __iter__(self) -> Iterator[tuple[object, ...]]: ...


class Database(Protocol):
    """The part of an `apsw.Connection` that is used here; apsw's own types can only be read from Python 3.12 on."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, statements: str, bindings: Values | None = None) -> Rows:
        """Run statements, with values for their question marks."""
        ...

    def changes(self) -> int:
        """How many rows the last statement that writes has changed."""
        ...

    def total_changes(self) -> int:
        """How many rows were changed since the database was opened, by triggers too."""
        ...

    def config(self, setting: int, value: int, /) -> int:
        """Set one of SQLite's `SQLITE_DBCONFIG` settings; what it is then."""
        ...

    def set_progress_handler(self, stepped: Callable[[], bool], steps: int, /) -> None:
        """Have `stepped` called whenever SQLite has taken so many steps; where it says true, the statement is ended."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def within(column: str, names: frozenset[str] | None) -> tuple[str, tuple[str, ...]]:
    """The condition that `column` is one of `names`, and its values; None: any."""
    if names is None:
        return "TRUE", ()
    return f"{column} IN ({', '.join('?' * len(names))})", tuple(sorted(names))


def fetch_all(connection: Database, kind: type[Row], sql: str, values: Values) -> list[Row]:
    """Every row that `sql` finds; its columns are the fields of `kind`, in order."""
    return [msgspec.convert(row, kind) for row in connection.execute(sql, values)]


def fetch_one(connection: Database, kind: type[Row], sql: str, values: Values) -> Row | None:
    """The one row that `sql` finds, if any."""
    row = connection.execute(sql, values).fetchone()
    return None if row is None else msgspec.convert(row, kind)
