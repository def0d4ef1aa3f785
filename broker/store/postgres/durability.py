"""Durability of a PostgreSQL server: settings and standbys that may lose work after it was acknowledged."""

from __future__ import annotations

from typing import Final

from airunner.broker.store.postgres.connecting import Database

DURABILITY: Final = (
    "SELECT current_setting('fsync') = 'on', current_setting('synchronous_commit'),"
    " current_setting('synchronous_standby_names'),"
    # What a standby is called, and how it is attached, only some roles see; that it is there, all do.
    " (SELECT count(*) FROM pg_stat_replication WHERE application_name IS DISTINCT FROM 'pg_basebackup')"
)


def warnings_of(connection: Database) -> list[str]:
    """List what of the server's settings and standbys may lose acknowledged work."""
    return warnings_from(*connection.execute(DURABILITY).fetchall()[0])


def warnings_from(fsync: bool, commits: str, names: str, standbys: int) -> list[str]:  # noqa: FBT001 - a row's columns
    """List warnings from the row of `DURABILITY`."""
    found: list[str] = []
    if not fsync:
        found.append("fsync is off: a crash of the server's machine loses acknowledged work; turn it on")
    if commits == "off":
        found.append("synchronous_commit is off: a crash of the server loses acknowledged work; turn it on")
    if standbys and (not names or commits == "local"):
        found.append(
            "a standby is attached asynchronously: a failover to it loses acknowledged work; set "
            "synchronous_standby_names on the server, and synchronous_commit to on"
        )
    return found
