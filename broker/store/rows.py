"""Rows of SQLite as typed tuples: what comes out of the database is checked once, where it comes out."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import apsw
import msgspec

Row = TypeVar("Row", bound=NamedTuple)
Values = tuple[int | float | str | bytes | None, ...]


def fetch_all(connection: apsw.Connection, kind: type[Row], sql: str, values: Values) -> list[Row]:
    """Every row that `sql` finds; its columns are the fields of `kind`, in order."""
    return [msgspec.convert(row, kind) for row in connection.execute(sql, values)]


def fetch_one(connection: apsw.Connection, kind: type[Row], sql: str, values: Values) -> Row | None:
    """The one row that `sql` finds, if any."""
    row = connection.execute(sql, values).fetchone()
    return None if row is None else msgspec.convert(row, kind)
