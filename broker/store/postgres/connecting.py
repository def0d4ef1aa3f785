"""Connection to a PostgreSQL server: parameters, detection of a lost server, and what each error means to a broker.

The URL is libpq's: several hosts, `service=`, `sslmode=`, PGPASSFILE and PG… variables work as with psql. The
connection has no state of its own between two transactions, so it may go through a pooler in transaction mode.

An error means one of these; anything else is a fault of this program, and ends it:

| what has happened | raised | what the Ledger does |
|---|---|---|
| server or connection lost before COMMIT was sent | `StoreAway` | reconnects, applies the batch again |
| lost after that, or the wait for a standby was given up | `StoreUnsure` | the same: a batch may be applied twice |
| serialisation failure, deadlock, a key that exists | `Moved` | loads and decides the batch again |
| no space on the server's disk | `NoSpace` | rejects the batch |
| missing right, table, database | `OperatorError` | ends with its line |
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from airunner.broker.store.contract import Moved, StoreAway, StoreUnsure
from airunner.protocol.errors import EXIT_UNAVAILABLE, NoSpace, OperatorError

Database = psycopg.Connection[tuple[Any, ...]]

DEFAULTS: Final[dict[str, str | int]] = {  # the URL may override them
    "client_encoding": "UTF8",
    "connect_timeout": 5,  # seconds for each host: a machine that is gone answers nothing
    "keepalives": 1,
    "keepalives_idle": 5,  # seconds: a server that was parted from us while it worked is noticed after some 11 s,
    "keepalives_interval": 2,  # which is about when other brokers take this one for dead
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms: likewise, for what was sent and not acknowledged
}
WORDS_CHARS_MAX: Final = 300  # of an error of libpq or the server, in one line
AWAY_CLASSES: Final = ("08", "57P", "53", "58")  # connection, shutdown, no resources, files of the server
IDLE: Final = "25P03"  # ended between two trips of a transaction, before anything of the second was read
AWAY: Final = {
    "25006",  # read-only transaction: a standby, or a primary that was demoted
    "25P02",  # the transaction has failed already, in a statement before
    IDLE,
    "26000",  # a pooler has forgotten a prepared statement
    "55P03",  # a lock was not available in time, as the administrator sees it
    "57014",  # cancelled by the administrator
}
MOVED: Final = {"40001", "40P01", "23505"}  # serialisation failure, deadlock, a key that another broker has stored
UNSURE: Final = {"40003", "08007"}  # whether a statement has completed, or the transaction, is unknown
DISK_FULL: Final = "53100"
GIVEN_UP: Final = ("01000", "57P01")  # a warning in COMMIT: committed here, but the wait for the standby was cancelled
REFUSED: Final = {  # and what the operator has to do
    "42501": "the role lacks a right: run `airunner store init --store URL-OF-THE-OWNER --grant-to ROLE`",
    "42P01": "restore a backup: `airunner store init` makes a whole store where there is none, but no single table",
    "3F000": "the schema is missing: run `airunner store init`",
    "3D000": "create the database, or name another with --store",
    "XX001": "the server's files are damaged: restore a backup",
    "XX002": "an index of the server is damaged: REINDEX it, or restore a backup",
}
_SECRET_PARTS: Final = re.compile(r"(://[^:/@?]*):.*@|(password=)(?:'(?:[^'\\]|\\.)*'|[^&\s]*)")

logging.getLogger("psycopg").addHandler(logging.NullHandler())  # what it logs is raised too


class Link:
    """Link to a server: one connection, made again after it is lost.

    url: URL or connection string of libpq
    check: called with each new connection before it is used; returns warnings; raises `OperatorError`, `StoreAway`

    `warnings` are those of the last check.
    """

    def __init__(self, url: str, check: Callable[[Database], list[str]]) -> None:
        self._parameters = parameters_of(url)
        self.shown = shown(url)
        self._check = check
        self._given_up = False
        self.warnings: list[str] = []
        self.connection = self._connect()

    def _connect(self) -> Database:
        """Connect and check. Raises `OperatorError`: the parameters are wrong, or the server cannot be reached."""
        try:
            connection: Database = psycopg.connect(
                **self._parameters,
                autocommit=True,
                fallback_application_name="airunner",
            )
        except psycopg.Error as error:
            words = f"cannot use the store {self.shown}: {one_line(error)}; start PostgreSQL, or correct --store"
            raise OperatorError(words, exit_code=EXIT_UNAVAILABLE) from error
        try:
            with self.translated(connection):
                # A pooler gives the client a number of its own. What a session has prepared may then be another's.
                ((pid,),) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
                if pid != connection.info.backend_pid:
                    connection.prepare_threshold = None
                self.warnings = self._check(connection)
        except BaseException:
            connection.close()
            raise
        connection.add_notice_handler(self._noticed)
        return connection

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        """Note a warning that a COMMIT was told as done before a standby had it."""
        self._given_up |= notice.severity_nonlocalized == "WARNING" and notice.sqlstate in GIVEN_UP

    def reconnect(self) -> None:
        """Connect again. Raises `StoreAway`: that failed. Raises `OperatorError`: another store was found there."""
        self.close()
        try:
            self.connection = self._connect()
        except OperatorError as error:
            if error.exit_code == EXIT_UNAVAILABLE:
                raise StoreAway(error.message) from error
            raise

    def close(self) -> None:
        """Close the connection; what it had not committed is undone by the server."""
        with suppress(psycopg.Error):
            self.connection.close()

    @contextmanager
    def committing(self) -> Generator[None]:
        """Run this block, in which COMMIT is sent: an error leaves open whether it was done. Raises as `translated`."""
        self._given_up = False
        with self.translated(self.connection, committing=True):
            yield
            if self._given_up:
                raise StoreUnsure(f"the wait for a standby of the store {self.shown} was cancelled on the server")

    @contextmanager
    def translated(self, connection: Database | None = None, *, committing: bool = False) -> Generator[None]:
        """Translate the errors of this block, as the module shows. Raises those."""
        try:
            yield
        except psycopg.Error as error:
            connection = connection or self.connection
            if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
                connection.close()  # an error of libpq's own, after which nobody knows what is under way
            raise meaning(error, self.shown, lost=connection.closed, committing=committing) from error


def meaning(error: psycopg.Error, store: str, *, lost: bool, committing: bool) -> Exception:
    """Convert an error of psycopg to what it means to a broker; `lost`: the connection is closed or broken.

    Of a connection that was lost while COMMIT was being sent nobody knows whether it was done; of an error that the
    server reported, it was not, unless that says so.
    """
    code = error.sqlstate
    words = f"the store {store}: {one_line(error)}"
    if code in UNSURE or (lost and committing and code != IDLE):
        return StoreUnsure(words)
    if code == DISK_FULL:
        return NoSpace(f"{words}; make room on the server's disk")
    if code in MOVED:
        return Moved(words)
    if code in REFUSED:
        return OperatorError(f"cannot use {words}; {REFUSED[code]}")
    if lost or code in AWAY or (code or "").startswith(AWAY_CLASSES):
        return StoreAway(words)
    return error


def one_line(error: psycopg.Error) -> str:
    """Format the message of an error as one line of bounded length: what follows in libpq's are guesses and repeats."""
    text = error.diag.message_primary or str(error).strip().partition("\n")[0]
    words = " ".join(text.removeprefix("connection failed: ").split()).removesuffix(".")
    return words if len(words) <= WORDS_CHARS_MAX else f"{words[:WORDS_CHARS_MAX]}…"


def shown(url: str) -> str:
    """Format a URL for messages, without its passwords."""
    return _SECRET_PARTS.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[2]}***", url)


def parameters_of(url: str) -> dict[str, Any]:
    """Parse a URL or connection string to libpq's parameters. Raises `OperatorError`, whose words have no part of it.

    A password with an unescaped special character would be taken for a host, a port or a database, and shown.
    """
    given: dict[str, Any]
    try:
        given = {key: value for key, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        given = {"port": "unreadable"}
    ports = str(given.get("port", "")).replace(",", "")
    if (ports and not ports.isdecimal()) or any("@" in str(given.get(name, "")) for name in ("host", "dbname")):
        raise OperatorError(
            "--store is no URL as libpq has it: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with each special "
            "character of the password as %XX, or keep it in ~/.pgpass"
        )
    several = {"target_session_attrs": "read-write"} if "," in str(given.get("host", "")) else {}
    return {**DEFAULTS, **several, **given}
