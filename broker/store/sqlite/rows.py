"""Rows of SQLite: reads and writes them in sets, and detects damage.

A disk that returns an error, or other bytes than were written, harms only the jobs and requests with damaged rows:

- After a set of rows has met damage, it is read or written again row by row, which shows whose row is damaged.
- That job is set aside: until a backup is restored, nothing is written to it, its lease does not expire, and it is
  neither leased nor removed. Its readable parts are still shown.
- Damage that belongs to no job and no request (schema, counters, the transaction) ends the broker with a message.

Damage is not recorded in the store: after a restart it is detected again. `airunner store check` finds all of it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final, Protocol, TypeVar

import apsw
import msgspec

from airunner.broker.store.contract import Moved
from airunner.broker.store.rows import JobRow, Version
from airunner.protocol.bounds import UNDECODABLE
from airunner.protocol.errors import EXIT_IO, NoSpace, OperatorError

Row = TypeVar("Row")
Values = tuple[Any, ...]
Owner = int | str | tuple[str | bytes, ...]
"""Owner of a damaged row: a job (by its number or id), a request, a table, or a part of an index."""
FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a reached quota or file size limit is a full disk too
STEPS_COUNTED: Final = 1_000  # steps of SQLite's virtual machine between two calls of `_stepped`
ROWS_STEPPED: Final = 100  # rows searched in so many steps: each row takes about ten
FIELDS: Final = JobRow.__struct_fields__
CHECKED: Final = ("number", *Version._fields)  # columns that show that a job's row is still as it was loaded
COLUMNS: Final = ", ".join(f"job.{name}" for name in FIELDS)
_FAILED: Final = (
    "the store is damaged, or its disk fails ({}): the broker cannot go on; run `airunner store check`, and restore a"
    " backup with `airunner store restore`"
)
_READING: Final = [getattr(apsw, f"SQLITE_IOERR_{what}") for what in ("READ", "SHORT_READ", "CORRUPTFS", "DATA")]


class Database(Protocol):
    """Connection of apsw, as it is used here: type checkers can read apsw's own types from Python 3.12 on only."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, statements: str, bindings: Values | None = None) -> Iterator[Values]: ...

    def executemany(self, statements: str, sequenceofbindings: Iterable[Values]) -> Iterator[Values]: ...

    def total_changes(self) -> int: ...

    def config(self, setting: int, value: int, /) -> int: ...

    def set_progress_handler(self, stepped: Callable[[], bool], steps: int, /) -> None: ...

    def close(self) -> None: ...


class Damaged(OperatorError):
    """Damaged row; the broker ends with this error, unless the row's owner is found and set aside."""


def select(where: str, *, spec: bool = True) -> str:
    """Build the statement that reads job rows."""
    return f"SELECT {COLUMNS if spec else COLUMNS.rpartition(',')[0]} FROM job WHERE {where}"


class RowReader:
    """Reader of rows over a connection: counts its work, and sets aside the owners of damaged rows."""

    def __init__(self, connection: Database) -> None:
        self._db = connection
        self._looked = 0  # rows searched or read
        self._met = 0  # errors that show damage
        self._aside: set[Owner] = set()
        self._next_number = 0  # number for the next new job; 0: to be read from the tables
        connection.set_progress_handler(self._stepped, STEPS_COUNTED)

    def work(self) -> int:
        return self._looked + self._db.total_changes()

    def _stepped(self) -> bool:
        """Count rows that SQLite searches within a statement; return False, so that the statement goes on."""
        self._looked += ROWS_STEPPED
        return False

    @property
    def damage(self) -> tuple[int, int]:
        return self._met, sum(isinstance(owner, int) for owner in self._aside)

    def set_aside(self, owner: Owner | None) -> None:
        """Set aside a job, by its number and its id, or another owner; None: only count the error."""
        self._met += 1
        if isinstance(owner, str | int):
            column = "job_id" if isinstance(owner, str) else "number"
            with suppress(Damaged):
                self._aside.update(*self._run(f"SELECT number, job_id FROM job WHERE {column} = ?", ((owner,),)))
        if owner is not None:
            self._aside.add(owner)

    @property
    def _others(self) -> str:
        """Condition of a statement that excludes jobs that are set aside."""
        numbers = sorted(owner for owner in self._aside if isinstance(owner, int)) if self._aside else []
        return f"number NOT IN ({', '.join(map(str, numbers))})" if numbers else "TRUE"

    def _moved(self, *owners: Owner | None) -> Moved:
        """Undo the transaction, in which SQLite writes nothing after damage, and set owners aside; return `Moved`."""
        self._undo()
        for owner in owners:
            self.set_aside(owner)
        return Moved()

    def _run(self, sql: str, keys: Iterable[Values] = ((),)) -> list[Values]:
        """Run a statement for each of `keys`, and fetch its rows. Raises `NoSpace` (all is rolled back), `Damaged`."""
        try:
            rows = list(self._db.executemany(sql, keys))
        except (apsw.Error, *UNDECODABLE) as error:
            raise self._judged(error) from error
        self._looked += len(rows)
        return rows

    def _fetch(self, kind: type[list[Row]], sql: str, keys: Iterable[Values] = ((),)) -> list[Row]:
        """Fetch rows whose columns are the fields of `kind`. Raises what `_run` raises."""
        try:
            rows = self._run(sql, keys)
            return msgspec.convert(rows, kind) if rows else []  # converting nothing takes longer than the statement
        except UNDECODABLE as error:
            raise self._judged(error) from error

    def _judged(self, error: Exception) -> Exception:
        """Translate SQLite's error to `NoSpace`, `Damaged` or (a failed write) `OperatorError`; return any other."""
        failed = isinstance(error, apsw.IOError)
        if isinstance(error, apsw.FullError) or (failed and getattr(self._db, "system_errno", 0) in FULL_ERRNOS):
            self._undo()
            return NoSpace()
        if not failed and not isinstance(error, (apsw.CorruptError, apsw.NotADBError, *UNDECODABLE)):
            return error
        self._met += 1
        read = not failed or getattr(error, "extendedresult", 0) in _READING
        return (Damaged if read else OperatorError)(_FAILED.format(error), exit_code=EXIT_IO)

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._next_number = 0
            with suppress(apsw.Error):
                self._db.execute("ROLLBACK")

    def _fetch_each(
        self, kind: type[list[Row]], sql: str, keys: Collection[Values], whose: Callable[[Values], Owner]
    ) -> list[Row]:
        """Fetch rows, and set aside the owners of damaged ones. Raises `Moved`: there were some, in a transaction."""
        if not keys:
            return []
        if self._aside and self._db.in_transaction:
            keys = [key for key in keys if whose(key) not in self._aside]
        try:
            return self._fetch(kind, sql, keys)
        except Damaged:
            found: list[Row] = []
        for key in keys:
            try:
                found += self._fetch(kind, sql, (key,))
            except Damaged:
                self.set_aside(whose(key))
        if self._db.in_transaction:
            raise self._moved()
        return found

    def _fetch_sound(self, where: str, keys: Iterable[Values]) -> list[JobRow]:
        """Fetch the rows of jobs that `where` finds by an index, except jobs that are set aside. Raises `Moved`."""

        def part(key: Values) -> Owner:
            return (where, *(value for value in key if isinstance(value, str)))

        keys = [key for key in keys if part(key) not in self._aside]
        sound = f"{self._others} AND {where}"
        try:
            return self._fetch(list[JobRow], select(sound), keys)
        except Damaged as error:
            numbers = self._fetch_each(list[Values], f"SELECT number FROM job WHERE {sound}", keys, part)
            self._fetch_each(list[JobRow], select("number = ?"), numbers, itemgetter(0))
            raise self._moved() from error
