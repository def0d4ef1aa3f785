"""Opening of a PostgreSQL store: checks the server, makes or upgrades the schema, and registers the broker.

Each check that fails is one line that says what to do, and nothing was changed by then.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql

from airunner import __version__
from airunner.broker.store.contract import Identity, StoreAway
from airunner.broker.store.postgres.connecting import Database, Link, one_line
from airunner.broker.store.postgres.durability import warnings_of
from airunner.broker.store.postgres.schema import HALF_COPIED, NEW, STEPS, VERSION
from airunner.protocol.errors import EXIT_UNAVAILABLE, NoSpace, OperatorError

OLDEST: Final = 150_000  # PostgreSQL 15, as the server numbers it
SKEW_MS_MAX: Final = 2_000  # between the clocks of this machine and the server's: delays and timestamps follow it
MAKE_TRIES: Final = 10  # when brokers make the schema at the same time, one of them does, and the others look again
_MADE_BY_ANOTHER: Final = ("23505", "42P06", "42P07", "40P01", "XX000")  # row, schema, table; deadlock, "concurrently"
_INSTALLED: Final = "SELECT version, compatible, fleet FROM airunner.installed"
_IS_INSTALLED: Final = "SELECT to_regclass('airunner.installed') IS NOT NULL"
_SERVER: Final = "SELECT current_setting('server_encoding'), pg_is_in_recovery(), current_database()"
_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_REGISTER: Final = (
    "INSERT INTO airunner.broker AS own (broker, epoch, requests, events, version, knows, opened_ms)"
    " VALUES (%s, 1, %s, %s, %s, %s, %s) ON CONFLICT (broker) DO UPDATE SET epoch = own.epoch + 1, beat = own.beat + 1,"
    " dead = false, requests = excluded.requests, events = excluded.events, version = excluded.version,"
    " knows = excluded.knows, opened_ms = excluded.opened_ms RETURNING epoch, ready_seq"
)
_GRANTS: Final = (
    "GRANT USAGE ON SCHEMA airunner TO {}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA airunner TO {}",
    "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA airunner TO {}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA airunner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA airunner GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {}",
)


def open_link(url: str, identity: Identity, now_ms: Callable[[], int]) -> tuple[Link, int, int]:
    """Open a store for a broker; return the link, and its row's epoch and `ready_seq`. Raises `OperatorError`."""
    try:
        link = Link(url, lambda connection: check_store(connection, identity.fleet))
        try:
            with link.translated():
                check_clock(link.connection, now_ms)
                own = (identity.broker, identity.requests, identity.events, __version__)
                ((epoch, ready_seq),) = link.connection.execute(_REGISTER, (*own, VERSION, now_ms())).fetchall()
        except BaseException:
            link.close()
            raise
    except (StoreAway, NoSpace) as error:
        raise OperatorError(f"cannot use {error}", exit_code=EXIT_UNAVAILABLE) from error
    return link, epoch, ready_seq


def check_store(connection: Database, fleet: str) -> list[str]:
    """Check a new connection's server and schema, which is made or upgraded if need be, and claim it for the fleet.

    Returns warnings, as `check_server`. Raises `OperatorError`, and `StoreAway`: the server is a standby.
    """
    warnings = check_server(connection)
    install(connection, "run `airunner store init --store URL-OF-THE-OWNER --grant-to ROLE` as the owner")
    if not (owner := require_whole(connection)):
        connection.execute("UPDATE airunner.installed SET fleet = %s WHERE fleet = ''", (fleet,))
        owner = require_whole(connection)
    if owner != fleet:
        raise OperatorError(
            "the store belongs to another fleet, whose brokers have another key: make this home with `airunner certs "
            "import` from a file of that fleet's `airunner certs export`, or name another database with --store"
        )
    return warnings


def require_whole(connection: Database) -> str:
    """Require a store that this version may use, and return its fleet. Raises `OperatorError`."""
    ((version, compatible, owner),) = connection.execute(_INSTALLED).fetchall()
    if compatible == HALF_COPIED:
        raise OperatorError(
            "the store is a copy that was interrupted, or is being made: if that has ended, DROP SCHEMA airunner "
            "CASCADE, and run `airunner store copy` again"
        )
    if compatible > VERSION:
        words = f"the store has version {version} of the schema, and this airunner knows {VERSION}"
        raise OperatorError(f"{words}: install the newer airunner")
    return str(owner)


def check_server(connection: Database) -> list[str]:
    """Check that a server can hold a store; return warnings. Raises `OperatorError`; `StoreAway`: it is a standby."""
    ((encoding, standby, database),) = connection.execute(_SERVER).fetchall()
    if (version := connection.info.server_version) < OLDEST:
        raise OperatorError(f"the server is PostgreSQL {version // 10_000}: upgrade it to {OLDEST // 10_000} or newer")
    if encoding != "UTF8":
        raise OperatorError(
            f"database {database} has the encoding {encoding}: create one with ENCODING 'UTF8' TEMPLATE template0, and "
            "name it with --store"
        )
    if standby:
        raise StoreAway(f"the store on {connection.info.host}: it is a read-only standby; name the primary too")
    return warnings_of(connection)


def check_clock(connection: Database, now_ms: Callable[[], int]) -> None:
    """Check that this machine's clock agrees with the server's. Raises `OperatorError`."""
    before_ms = now_ms()
    ((server_ms,),) = connection.execute(_CLOCK).fetchall()
    after_ms = now_ms()
    ahead_ms = max(before_ms - server_ms, 0) - max(server_ms - after_ms, 0)
    if abs(ahead_ms) > SKEW_MS_MAX:
        words = f"{abs(ahead_ms) / 1000:.1f} s {'ahead of' if ahead_ms > 0 else 'behind'}"
        raise OperatorError(f"this machine's clock is {words} the database server's: set both by NTP, then start again")


def install(connection: Database, otherwise: str) -> int:
    """Make the schema, or upgrade it to this version if it is older; return the version that it had.

    otherwise: words for a role that lacks the right
    """
    for _ in range(MAKE_TRIES):
        try:
            ((is_installed,),) = connection.execute(_IS_INSTALLED).fetchall()
            version = connection.execute(_INSTALLED).fetchall()[0][0] if is_installed else 0
            if version < VERSION:
                connection.execute(b"BEGIN")
                if not is_installed:
                    connection.execute(NEW.encode())
                _upgrade(connection)
                connection.execute(b"COMMIT")
        except psycopg.Error as error:
            if connection.closed:
                raise
            connection.execute(b"ROLLBACK")
            if error.sqlstate == "42501":
                words = f"this role cannot make or upgrade the store: {one_line(error)}; {otherwise}"
                raise OperatorError(words) from error
            if error.sqlstate not in _MADE_BY_ANOTHER:
                raise
        else:
            return version
    raise StoreAway("the store: its schema is being changed; try again")


def _upgrade(connection: Database) -> None:
    """Apply the steps that are missing; a broker that does not know the result is fenced off."""
    ((version,),) = connection.execute("SELECT version FROM airunner.installed FOR UPDATE").fetchall()
    for step in STEPS[version:]:
        connection.execute(step.statements.encode())
    if version < VERSION:
        compatible = STEPS[-1].compatible
        connection.execute("UPDATE airunner.installed SET version = %s, compatible = %s", (VERSION, compatible))
        connection.execute("UPDATE airunner.broker SET dead = true WHERE knows < %s", (compatible,))


def inspect(url: str, now_ms: Callable[[], int]) -> list[str]:
    """Check the server and the clock without changing anything; return warnings. Raises `OperatorError`."""
    with _linked(url, check_server) as link:
        check_clock(link.connection, now_ms)
        ((is_installed,),) = link.connection.execute(_IS_INSTALLED).fetchall()
        missing = [] if is_installed else ["there is no store yet: a broker makes it, or `airunner store init`"]
        return [*missing, *link.warnings]


@contextmanager
def _linked(url: str, check: Callable[[Database], list[str]]) -> Generator[Link]:
    """Link to a server while this block runs. Raises `OperatorError` for all errors."""
    try:
        link = Link(url, check)
        try:
            with link.translated():
                yield link
        finally:
            link.close()
    except (StoreAway, NoSpace) as error:
        raise OperatorError(f"cannot use {error}", exit_code=EXIT_UNAVAILABLE) from error


def initialise(url: str, grant_to: str | None) -> str:
    """Make or upgrade the schema as its owner, and grant a role what a broker needs; return what was done.

    Raises `OperatorError`.
    """
    with _linked(url, check_server) as link:
        had = install(link.connection, "run this as a role with CREATE on the database, who owns the store")
        if grant_to is not None:
            _grant(link.connection, grant_to)
    done = "has" if had == VERSION else f"was upgraded from version {had} to" if had else "was made with"
    granted = "" if grant_to is None else f"; {grant_to} may run brokers on it"
    return f"the store {link.shown} {done} version {VERSION} of the schema{granted}"


def _grant(connection: Database, role: str) -> None:
    if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchall():
        raise OperatorError(
            f"--grant-to {role}: there is no such role: CREATE ROLE it first, with LOGIN and a password"
        )
    for statement in _GRANTS:
        connection.execute(sql.SQL(statement).format(sql.Identifier(role)))
