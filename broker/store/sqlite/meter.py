"""Counts the work that SQLite does for a command: a `Database` around another.

What SQLite cannot read is `Damaged` from here on.

Counted are statements, rows that they change (by triggers too), rows that are read out of them, and SQLite's own steps,
so that a statement that looks through many rows and finds none is seen as well. No clock is asked: on every machine
the same commands on the same store cost the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airunner.broker.store.sqlite.damage import READ_FAULTS, damage_of
from airunner.broker.store.sqlite.rows import Database, Rows, Values

# Measured, in sixteenths of 100 µs: some 10 µs for a statement or a row written, 6 for a row that Python sees.
POINTS_PER_UNIT: Final = 16
STATEMENT_POINTS: Final = 2
CHANGE_POINTS: Final = 2
ROW_POINTS: Final = 1
STEPS_PER_UNIT: Final = 2_000  # of SQLite's virtual machine; looking at a row takes about ten


class Meter:
    """The same database, counted."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._points = 0
        self._changes_before = 0
        connection.set_progress_handler(self._stepped, STEPS_PER_UNIT)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    def execute(self, statements: str, bindings: Values | None = None) -> Rows:
        """Run statements, with values for their question marks."""
        self._points += STATEMENT_POINTS
        try:
            return _CountedRows(self._connection.execute(statements, bindings), self)
        except READ_FAULTS as error:
            raise damage_of(error) from error

    def changes(self) -> int:
        """How many rows the last statement that writes has changed."""
        return self._connection.changes()

    def total_changes(self) -> int:
        """How many rows were changed since the database was opened."""
        return self._connection.total_changes()

    def config(self, setting: int, value: int, /) -> int:
        """Set one of SQLite's `SQLITE_DBCONFIG` settings; what it is then."""
        return self._connection.config(setting, value)

    def set_progress_handler(self, _stepped: object, _steps: int, /) -> None:
        """It is the meter's own."""
        raise AssertionError("steps are counted here")

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def begin(self) -> None:
        """Another command begins."""
        self._points = 0
        self._changes_before = self._connection.total_changes()

    def read(self) -> None:
        """Another row was read."""
        self._points += ROW_POINTS

    def cost(self) -> int:
        """What was done since `begin`, in units of some 100 µs; at least one."""
        changes = self._connection.total_changes() - self._changes_before
        return 1 + (self._points + changes * CHANGE_POINTS) // POINTS_PER_UNIT

    def _stepped(self) -> bool:
        """Called every `STEPS_PER_UNIT`; the statement is to go on."""
        self._points += POINTS_PER_UNIT
        return False


class _CountedRows:
    def __init__(self, rows: Rows, meter: Meter) -> None:
        self._rows = rows
        self._meter = meter

    @property
    def get(self) -> object:
        try:
            return self._rows.get
        except READ_FAULTS as error:
            raise damage_of(error) from error

    def fetchone(self) -> object:
        try:
            return self._rows.fetchone()
        except READ_FAULTS as error:
            raise damage_of(error) from error

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        rows = iter(self._rows)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except READ_FAULTS as error:
                raise damage_of(error) from error
            self._meter.read()
            yield row
