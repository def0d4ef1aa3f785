"""Pipeline of prepared statements: they go out together, with one sync, and their results come back together.

It is libpq's own, by way of psycopg's `pq`: psycopg's cursors take several times as long for each statement, and send
each by itself. All goes out without a pause, so a broker that is stopped hardly ever leaves a half-sent transaction,
whose locks nothing would end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from select import POLLIN, POLLOUT, poll
from struct import Struct as Format
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from airunner.broker.store.postgres.arrays import BYTEA, Array, text

Value = str | int | bytes | None
Rows = list[tuple[Any, ...]]

PREPARED_MAX: Final = 512  # statements that a session keeps prepared: more than there are, in all their variants
_BINARY: Final = 1
_BIGINT, _TEXT, _UNKNOWN = 20, 25, 0
_INTEGER: Final = Format("!q")


class Pipeline:
    """Pipeline on a connection of psycopg, which may be used otherwise between two runs."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._rows = Transformer(connection)
        self._numbers = count()
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}  # names, by statement and types
        self._prepared_max = 0 if connection.prepare_threshold is None else PREPARED_MAX
        self._unsent = False
        self._socket = poll()
        self._socket.register(self._pgconn.socket, POLLIN)

    def run(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> list[Rows]:
        """Run statements, with %b for each of their values, and return the rows of each.

        Raises `psycopg.Error` of the first that fails; if that has no SQLSTATE, the connection is closed.
        """
        results: list[PGresult] = []
        try:
            self._pgconn.enter_pipeline_mode()
            prepares = [self._send(_numbered(statement), values) for statement, values in statements]
            self._pgconn.pipeline_sync()
            self._unsent = True
            self._gather(results)
            self._pgconn.exit_pipeline_mode()
        except BaseException as error:
            self._connection.close()  # nobody knows what is under way
            if isinstance(error, psycopg.Error):
                _raise_first(results, error)
            raise
        found = iter(results)
        own: list[PGresult] = []
        for key in prepares:
            if key and next(found).status != ExecStatus.COMMAND_OK:
                del self._prepared[key]
            own.append(next(found))
        _raise_first(results)
        return [self._loaded(result) for result in own]

    def _send(self, statement: str, values: Sequence[Value]) -> tuple[str, tuple[int, ...]] | None:
        """Queue a statement; returns its key if it is prepared first."""
        dumped = [_dumped(value) for value in values]
        parameters, types = [parameter for parameter, _ in dumped], tuple(oid for _, oid in dumped)
        formats = [_BINARY] * len(dumped)
        key = (statement, types)
        name, prepares = self._prepared.get(key), False
        if name is None and len(self._prepared) < self._prepared_max:
            name = self._prepared[key] = b"airunner%d" % next(self._numbers)
            self._pgconn.send_prepare(name, statement.encode(), types)
            prepares = True
        if name is None:
            self._pgconn.send_query_params(statement.encode(), parameters, types, formats, _BINARY)
        else:
            self._pgconn.send_query_prepared(name, parameters, formats, _BINARY)
        return key if prepares else None

    def _gather(self, results: list[PGresult]) -> None:
        """Gather the results of all that was sent, up to the sync; each is followed by None."""
        while (result := self._next()) is None or result.status != ExecStatus.PIPELINE_SYNC:
            if result is not None:
                results.append(result)
            elif self._pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection is lost")

    def _next(self) -> PGresult | None:
        while self._unsent or self._pgconn.is_busy():
            self._socket.modify(self._pgconn.socket, POLLIN | POLLOUT if self._unsent else POLLIN)
            if any(events != POLLOUT for _, events in self._socket.poll()):
                self._pgconn.consume_input()
            if self._unsent:
                self._unsent = bool(self._pgconn.flush())
        return self._pgconn.get_result()

    def _loaded(self, result: PGresult) -> Rows:
        self._rows.set_pgresult(result)
        return self._rows.load_rows(0, result.ntuples, tuple)


@lru_cache(maxsize=PREPARED_MAX)
def _numbered(statement: str) -> str:
    """Convert each %b to a number, as the server has it."""
    first, *rest = statement.split("%b")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


def _raise_first(results: Sequence[PGresult], instead_of: BaseException | None = None) -> None:
    """Raise the first error that the server has reported, which says more than that the connection was lost."""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result) from instead_of


def _dumped(value: Value) -> tuple[bytes | None, int]:
    """Convert a value to the server's binary format, and its type."""
    match value:
        case Array():
            return value, value.oid
        case bytes():
            return value, BYTEA
        case str():
            return text(value).encode(), _TEXT
        case int():
            return _INTEGER.pack(value), _BIGINT
        case None:
            return None, _UNKNOWN
